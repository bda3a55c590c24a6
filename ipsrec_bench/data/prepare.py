"""Raw rows into the prepared form, by DuckDB SQL."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import (
    PREPARED_FORMAT,
    UNKNOWN_PROVIDER,
    PreparedDataset,
    load_prepared,
)
from ipsrec_bench.data.sources import load_raw, source_paths
from ipsrec_bench.data.statistics import describe
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import DatasetSpec

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
SELECT user AS raw, row_number() OVER (ORDER BY user) - 1 AS id FROM (SELECT DISTINCT user FROM raw)
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
# The total order of the toolkit: user, time, source row.
_ORDERED = """
SELECT users.id AS user, items.id AS item, coalesce(providers.id, $unknown)::INTEGER AS provider, {time} AS moment,
       coalesce({time} = lag({time}) OVER (PARTITION BY users.id ORDER BY {time}, row), false) AS tied
FROM raw
JOIN users ON users.raw = raw.user
JOIN items ON items.raw = raw.item
LEFT JOIN providers ON providers.raw = raw.provider
ORDER BY users.id, {time}, row
"""


def prepare(name: str, source: DatasetSpec, data_dir: Path) -> PreparedDataset:
    """Return the prepared form of `source`, building it first where it is not there yet.

    The folder is named by a hash of the source's settings and of its files' sizes and times of change, so a
    changed file is prepared anew. It is built beside its place and renamed into it: what bears the name is
    whole.

    Raises:
        DataError: the source cannot be read, or holds a row without user, item or usable time.
    """
    target = prepared_path(name, source, data_dir)
    if not target.exists():
        with _staging(target) as folder:
            _build(source, data_dir, folder)
    return load_prepared(name, target)


def prepared_path(name: str, source: DatasetSpec, data_dir: Path) -> Path:
    """Return the folder that holds, or would hold, the prepared form of `source`.

    Raises:
        DataError: a raw file is missing.
    """
    recipe = {
        "format": PREPARED_FORMAT,
        "source": source.model_dump(mode="json", exclude={"max_length"}),
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


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be written: {error.strerror}") from None
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():  # another process was first: its folder has the same content
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(source: DatasetSpec, data_dir: Path, folder: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{str(folder / 'spill').replace(chr(39), chr(39) * 2)}'")
        load_raw(connection, source, data_dir)
        place = str(getattr(source, "path", "synthetic data"))
        _check_rows(connection, place)
        time = _time_expression(connection, place)
        connection.execute(_NUMBER_USERS)
        connection.execute(_NUMBER_ITEMS)
        connection.execute(_NUMBER_PROVIDERS, {"unknown": UNKNOWN_PROVIDER})
        columns = connection.execute(_ORDERED.format(time=time), {"unknown": UNKNOWN_PROVIDER}).fetchnumpy()
        for table in ("users", "items", "providers"):
            path = str(folder / f"{table}.parquet")
            connection.table(table).order("id").write_parquet(path, compression="zstd")
        counts = {
            table: int(connection.table(table).count("*").fetchall()[0][0]) for table in ("users", "items", "providers")
        }
    shutil.rmtree(folder / "spill", ignore_errors=True)

    items: NDArray[np.int32] = np.ascontiguousarray(columns["item"], dtype=np.int32)
    providers: NDArray[np.int32] = np.ascontiguousarray(columns["provider"], dtype=np.int32)
    times = np.ascontiguousarray(columns["moment"])
    lengths = np.bincount(columns["user"], minlength=counts["users"])
    offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    fingerprint = hashlib.sha256()
    for name, array in (("items", items), ("providers", providers), ("times", times), ("offsets", offsets)):
        np.save(folder / f"{name}.npy", array)
        fingerprint.update(array.tobytes())
    meta = {
        "format": PREPARED_FORMAT,
        "fingerprint": fingerprint.hexdigest(),
        "num_items": counts["items"],
        "num_providers": counts["providers"] + UNKNOWN_PROVIDER,
        "statistics": asdict(
            describe(offsets, items, providers, np.asarray(columns["tied"], dtype=bool), UNKNOWN_PROVIDER)
        ),
        "source": source.model_dump(mode="json"),
        "files": {path.name: _sha256(path) for path in source_paths(source, data_dir)},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")


def _check_rows(connection: duckdb.DuckDBPyConnection, place: str) -> None:
    """Refuse an empty source and rows that lack what every row must have."""
    rows, *missing = _only_row(
        connection,
        "SELECT count(*), "
        + ", ".join(f"min(row) FILTER ({column} IS NULL OR {column} = '')" for column in ("user", "item", "time"))
        + " FROM raw",
    )
    if not rows:
        raise DataError(f"{place}: the dataset is empty: there is a header but no row of data")
    for column, row in zip(("user", "item", "time"), missing, strict=True):
        if row is not None:
            raise DataError(f"{place}: data row {row} has no {column}; fill it in or remove the row")


def _time_expression(connection: duckdb.DuckDBPyConnection, place: str) -> str:
    """Return the SQL that turns `time` into int64, float64 or microseconds, whichever fits every row."""
    for expression in _TIME_TYPES.values():
        if not _only_row(connection, f"SELECT count(*) FILTER (({expression}) IS NULL) FROM raw")[0]:
            return f"({expression})"
    row, value = _only_row(
        connection,
        "SELECT min(row), arg_min(time, row) FROM raw WHERE "
        + " AND ".join(f"({expression}) IS NULL" for expression in _TIME_TYPES.values()),
    )
    if row is None:
        raise DataError(f"{place}: the time column mixes numbers and timestamps; use one of them")
    raise DataError(
        f"{place}: data row {row} has the time '{value}', which is neither a finite number nor a timestamp such"
        " as 2019-10-01 00:00:00"
    )


def _only_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
