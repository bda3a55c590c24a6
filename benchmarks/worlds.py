"""Data that this toolkit and its peers read: RecBole atomic files, one folder each."""

import shutil
import tempfile
from pathlib import Path

import duckdb
import numpy as np

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.suite.schema import SyntheticSource

HEADER = ["user_id:token", "item_id:token", "timestamp:float", "provider_id:token"]


def movielens(folder: Path, recbole: Path) -> str:
    """Copy the MovieLens-100k file that the RecBole environment of the Python `recbole` carries; return its name."""
    (packaged,) = recbole.parent.parent.glob("lib/python*/site-packages/recbole/dataset_example/ml-100k/ml-100k.inter")
    films = packaged.with_suffix(".item").read_text(encoding="utf-8").splitlines()[1:]
    genre = {film.split("\t")[0]: film.split("\t")[3].split()[0] for film in films}
    target = folder / "ml-100k" / "ml-100k.inter"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = (line.split("\t") for line in packaged.read_text(encoding="utf-8").splitlines()[1:])
        # The file has no providers: a film's first genre takes their place.
        lines = ["\t".join(HEADER), *(f"{user}\t{item}\t{time}\t{genre[item]}" for user, item, _, time in rows)]
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "ml-100k"


def beauty(folder: Path, source: Path) -> str:
    """Copy `amazon-beauty.tsv.gz` (columns user, item, provider, time) from the folder `source`; return its name."""
    target = folder / "amazon-beauty" / "amazon-beauty.inter"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = dict(zip(HEADER, ("user", "item", "time", "provider"), strict=True))
        named = ", ".join(f'{column} AS "{header}"' for header, column in columns.items())
        # In the file's order: RecBole breaks ties in time by it.
        duckdb.sql(
            f"""COPY (SELECT {named} FROM read_csv('{source / "amazon-beauty.tsv.gz"}', delim='\t', header=true))
            TO '{target}' (DELIMITER '\t', HEADER)"""
        )
    return "amazon-beauty"


def uniform(folder: Path, users: int, items: int, providers: int, mean_length: int) -> str:
    """Write a log of `users` random histories of about `mean_length`, with every item in it; return its name.

    Nothing can be learnt from it: it is for measurements of sizes. Popularity falls off as a power law.
    """
    name = f"uniform-{users}-{items}-{mean_length}"
    target = folder / name / f"{name}.inter"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = users * mean_length
        duckdb.sql("SELECT setseed(0.5)")
        duckdb.sql(
            f"""COPY (
                SELECT n % {users} AS "user_id:token", item AS "item_id:token", n AS "timestamp:float",
                       item % {providers} AS "provider_id:token"
                FROM (SELECT n, CASE WHEN n < {items} THEN n ELSE floor({items} * random() ** 3)::BIGINT END AS item
                      FROM range({rows}) AS t(n))
            ) TO '{target}' (FORMAT csv, DELIMITER '\t', HEADER)"""
        )
    return name


def synthetic(folder: Path, users: int, items: int, providers: int, mean_length: float) -> str:
    """Write a synthetic log; return its name. Items that nobody chose are not in it."""
    name = f"syn-{users}-{items}"
    target = folder / name / f"{name}.inter"
    if not target.exists():
        source = SyntheticSource(users=users, items=items, providers=providers, mean_length=mean_length)
        scratch = Path(tempfile.mkdtemp())
        data = prepare(name, source, scratch)
        user = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
        table = np.column_stack([user, data.items, np.arange(len(user)), data.providers])
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(target, table, fmt="%d", delimiter="\t", header="\t".join(HEADER), comments="")
        shutil.rmtree(scratch)
    return name
