"""Raw rows into the prepared form, by DuckDB SQL."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

import duckdb
import numpy as np

from ipsrec_bench.data.prepared import (
    PREPARED_FORMAT,
    UNKNOWN_PROVIDER,
    PreparedDataset,
    load_prepared,
)
from ipsrec_bench.data.sources import MAX_ID, load_raw, place_of, source_paths
from ipsrec_bench.data.staging import staged
from ipsrec_bench.data.stand_ins import MARK
from ipsrec_bench.data.statistics import describe
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import DatasetSpec, Filter, TableSource

# A timestamp may end in "UTC" or "Z"; DuckDB reads the rest without its time zone extension.
_TIMESTAMP = r"TRY_CAST(regexp_replace(time, '\s*(UTC|Z)$', '') AS TIMESTAMP)"
_TIME_TYPES = {
    # Only whole numbers: a cast of 1.4 to BIGINT would round it, and with it the order.
    "integer": r"CASE WHEN regexp_full_match(time, '\s*[+-]?\d+\s*') THEN TRY_CAST(time AS BIGINT) END",
    "number": "CASE WHEN isfinite(TRY_CAST(time AS DOUBLE)) THEN TRY_CAST(time AS DOUBLE) END",
    "timestamp": f"epoch_us({_TIMESTAMP})",
}

_NUMBER_USERS = """
CREATE TABLE users AS
SELECT user AS raw, (row_number() OVER (ORDER BY user) - 1)::INTEGER AS id FROM (SELECT DISTINCT user FROM raw)
"""
_NUMBER_ITEMS = """
CREATE TABLE items AS
SELECT item AS raw, (row_number() OVER (ORDER BY item))::INTEGER AS id FROM (SELECT DISTINCT item FROM raw)
"""
_NUMBER_PROVIDERS = """
CREATE TABLE providers AS
SELECT provider AS raw, ($unknown + row_number() OVER (ORDER BY provider))::INTEGER AS id
FROM (SELECT DISTINCT provider FROM raw WHERE provider IS NOT NULL)
"""
# Of the rows that agree in `columns`, the one with the largest (or smallest) time, then row.
_WITHOUT_DUPLICATES = """
CREATE TABLE kept AS
SELECT {extreme}(ROW({time}, row))[2] AS row FROM raw GROUP BY {columns};
CREATE OR REPLACE TABLE raw AS SELECT raw.* FROM raw SEMI JOIN kept USING (row);
DROP TABLE kept;
"""
_WITHIN_BOUNDS = """
CREATE OR REPLACE TABLE raw AS
SELECT raw.* FROM raw
SEMI JOIN (SELECT user FROM raw GROUP BY user HAVING count(*) BETWEEN {users}) AS u ON u.user = raw.user
SEMI JOIN (SELECT item FROM raw GROUP BY item HAVING count(*) BETWEEN {items}) AS i ON i.item = raw.item
"""
# The total order of the toolkit: user, time, source row.
_ORDERED = """
SELECT users.id AS user, items.id AS item, coalesce(providers.id, $unknown)::INTEGER AS provider, {time} AS moment
FROM raw
JOIN users ON users.raw = raw.user
JOIN items ON items.raw = raw.item
LEFT JOIN providers ON providers.raw = raw.provider
ORDER BY users.id, moment, row
"""
MEMORY = "2GB"
"""What DuckDB may hold; what needs more is spilled to the staging folder."""
MOST_INTERACTIONS = 2**62


def prepare(name: str, source: DatasetSpec, data_dir: Path) -> PreparedDataset:
    """Return the prepared form of `source`, building it first where it is not there yet.

    The folder is named by a hash of the source's settings and of its files' sizes and times of change, so a
    changed file is prepared anew. It is built beside its place and renamed into it: what bears the name is
    whole.

    Raises:
        DataError: the source cannot be read, or holds a row without user, item or usable time; the prepared form
            cannot be written.
    """
    target = prepared_path(name, source, data_dir)
    if not target.exists():
        with staged(target) as folder:
            if folder is not None:
                try:
                    _build(source, data_dir, folder)
                except FileNotFoundError as error:
                    raise DataError(f"{error.filename}: the file was taken away while it was read") from None
    return load_prepared(name, target)


def prepared_path(name: str, source: DatasetSpec, data_dir: Path) -> Path:
    """Return the folder that holds, or would hold, the prepared form of `source`.

    Raises:
        DataError: a raw file is missing.
    """
    recipe = {
        "format": PREPARED_FORMAT,
        "source": source.model_dump(mode="json", exclude={"max_length", "origin"}),
        "files": [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source_paths(source, data_dir)],
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]
    return data_dir / "prepared" / f"{safe}-{digest}"


def preparation_state(name: str, source: DatasetSpec, data_dir: Path) -> str:
    """Return `prepared`, `not prepared`, or a sentence on what is missing."""
    try:
        return "prepared" if prepared_path(name, source, data_dir).exists() else "not prepared"
    except DataError as error:
        return f"missing: {error}"


def _build(source: DatasetSpec, data_dir: Path, folder: Path) -> None:
    paths = source_paths(source, data_dir)
    before = _signatures(paths)
    with duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{str(folder / 'spill').replace(chr(39), chr(39) * 2)}'")
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET enable_progress_bar = false")  # it goes to standard output, whoever reads that
        load_raw(connection, source, data_dir)
        _check_rows(connection, source, paths)
        time = _time_expression(connection, source, paths)
        if isinstance(source, TableSource) and source.duplicates is not None:
            extreme = {"newest": "max", "oldest": "min"}[source.duplicates.keep]
            same = ", ".join(f"same{i}" for i in range(len(source.duplicates.columns)))
            connection.execute(_WITHOUT_DUPLICATES.format(extreme=extreme, time=time, columns=same))
        _filter(connection, source.filter, _place(paths))
        connection.execute(_NUMBER_USERS)
        connection.execute(_NUMBER_ITEMS)
        connection.execute(_NUMBER_PROVIDERS, {"unknown": UNKNOWN_PROVIDER})
        columns = connection.execute(_ORDERED.format(time=time), {"unknown": UNKNOWN_PROVIDER}).fetchnumpy()
        for table in ("users", "items", "providers"):
            path = str(folder / f"{table}.parquet")
            connection.table(table).order("id").write_parquet(path, compression="zstd")
        users, items, providers = (
            int(_only_row(connection, f"SELECT count(*) FROM {table}")[0]) for table in ("users", "items", "providers")
        )
        (stand_in,) = _only_row(connection, f"SELECT bool_and(regexp_full_match(raw, '{MARK}\\d+')) FROM users")
    shutil.rmtree(folder / "spill", ignore_errors=True)
    lengths = np.bincount(columns["user"], minlength=users)
    arrays = {
        "items": np.ascontiguousarray(columns["item"], dtype=np.int32),
        "providers": np.ascontiguousarray(columns["provider"], dtype=np.int32),
        "times": np.ascontiguousarray(columns["moment"]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    }
    del columns
    fingerprint = hashlib.sha256()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        fingerprint.update(array.data)
    names = [path.name for path in paths]
    files = {path.name if names.count(path.name) == 1 else str(path): _sha256(path) for path in paths}
    if _signatures(paths) != before:
        raise DataError(f"{_place(paths)}: the file changed while it was read; prepare it again when it is whole")
    meta = {
        "format": PREPARED_FORMAT,
        "fingerprint": fingerprint.hexdigest(),
        "num_items": items,
        "num_providers": providers + UNKNOWN_PROVIDER,
        "stand_in": bool(stand_in),
        "filter": str(source.filter or Filter()),
        "statistics": asdict(describe(**arrays, unknown_provider=UNKNOWN_PROVIDER)),
        "source": source.model_dump(mode="json"),
        "files": files,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")


def _place(paths: Sequence[Path]) -> str:
    return str(paths[0]) if paths else "synthetic data"


def _signatures(paths: Iterable[Path]) -> list[tuple[int, int]]:
    return [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _row_place(source: DatasetSpec, paths: Sequence[Path], row: int) -> str:
    if not isinstance(source, TableSource):
        return f"synthetic data: row {row}"
    return place_of(paths[0], row, header=not source.columns, delimiter=source.delimiter)


def _check_rows(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, paths: Sequence[Path]) -> None:
    """Refuse an empty source and rows that lack what every row must have."""
    roles = ("user", "item", "time")
    ids = ("user", "item", "provider")
    rows, *found = _only_row(
        connection,
        "SELECT count(*), "
        + ", ".join(f"min(row) FILTER ({column} IS NULL OR {column} = '')" for column in roles)
        + ", "
        + ", ".join(f"min(row) FILTER (length({column}) > {MAX_ID})" for column in ids)
        + " FROM raw",
    )
    if not rows:
        used = {"`where`": bool(getattr(source, "where", "")), "`scale`": source.scale not in (None, 1)}
        chosen = " and ".join(name for name, is_used in used.items() if is_used)
        kept = f" that {chosen} leaves" if chosen else ""
        raise DataError(f"{_place(paths)}: the dataset is empty: there is no row of data{kept}")
    missing, long = found[: len(roles)], found[len(roles) :]
    for column, row in zip(roles, missing, strict=True):
        if row is not None:
            raise DataError(f"{_row_place(source, paths, row)}: there is no {column}; fill it in or remove the row")
    for column, row in zip(ids, long, strict=True):
        if row is not None:
            raise DataError(
                f"{_row_place(source, paths, row)}: the {column} has more than {MAX_ID:,} characters; is a quote not"
                " closed?"
            )


def _filter(connection: duckdb.DuckDBPyConnection, wanted: Filter | None, place: str) -> None:
    """Drop the rows of users and items out of bounds, until none is left or in one pass."""
    if wanted is None or not wanted.active:
        return
    users, items = (f"{b.min} AND {b.max or MOST_INTERACTIONS}" for b in (wanted.users, wanted.items))
    left = _only_row(connection, "SELECT count(*) FROM raw")[0]
    while True:
        connection.execute(_WITHIN_BOUNDS.format(users=users, items=items))
        before, left = left, _only_row(connection, "SELECT count(*) FROM raw")[0]
        if not left:
            raise DataError(f"{place}: the filter ({wanted}) leaves nothing; give it wider bounds")
        if wanted.passes == "one" or left == before:
            return


def _time_expression(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, paths: Sequence[Path]) -> str:
    """Return the SQL that turns `time` into int64, float64 or microseconds, whichever fits every row."""
    for kind, expression in _TIME_TYPES.items():
        unfit = "" if kind == "timestamp" else f" OR ({expression}) < 0"
        if not _only_row(connection, f"SELECT count(*) FILTER (({expression}) IS NULL{unfit}) FROM raw")[0]:
            return f"({expression})"
    number, timestamp = _TIME_TYPES["number"], _TIME_TYPES["timestamp"]
    row, value = _only_row(
        connection,
        f"SELECT min(row), arg_min(time, row) FROM raw WHERE coalesce(({number}) < 0, ({timestamp}) IS NULL)",
    )
    if row is None:
        raise DataError(f"{_place(paths)}: the time column mixes numbers and timestamps; use one of them")
    raise DataError(
        f"{_row_place(source, paths, row)}: the time is '{shorten(value, 50)}', which is neither a finite number from"
        " 0 on nor a timestamp such as 2019-10-01 00:00:00"
    )


def _only_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
