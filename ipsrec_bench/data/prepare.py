"""Preparation: DuckDB SQL turns raw rows into the prepared form."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ipsrec_bench.data.controls import popularity, shuffled
from ipsrec_bench.data.ids import ODD, refuse_ids
from ipsrec_bench.data.lifetime_columns import given_lifetimes, read_times
from ipsrec_bench.data.lifetimes import outside_notes
from ipsrec_bench.data.prepared import (
    PREPARED_FORMAT,
    UNKNOWN_PROVIDER,
    PreparedDataset,
    Reading,
    load_prepared,
)
from ipsrec_bench.data.providers import count_providers, is_unknown, join_items, largest_providers, reading_of
from ipsrec_bench.data.raw_files import place_of
from ipsrec_bench.data.sources import confined, load_raw, source_paths
from ipsrec_bench.data.staging import staged
from ipsrec_bench.data.stand_ins import MARK
from ipsrec_bench.data.statistics import describe, stickiness_without
from ipsrec_bench.data.tied_order import sorted_ties
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import AS_GIVEN, IN_FILE_ORDER, DatasetSpec, Filter, ProviderColumn, TableSource

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
FROM provider_counts WHERE NOT is_unknown
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
# The total order of the toolkit: user, time, source row; with a seed, a hash of the row comes before the row.
_ORDERED = """
SELECT users.id AS user, items.id AS item, coalesce(providers.id, $unknown)::INTEGER AS provider, {time} AS moment
FROM raw
JOIN users ON users.raw = raw.user
JOIN items ON items.raw = raw.item
LEFT JOIN providers ON providers.raw = raw.provider
ORDER BY users.id, moment, {ties}row
"""
MOST_INTERACTIONS = 2**62
_PLACEHOLDER = (
    "the {role} is '{value}', a placeholder for a missing one; fill it in, remove the row or, if it is a real name,"
    " remove it from the dataset's key `unknown`"
)


def prepare(name: str, source: DatasetSpec, data_dir: Path) -> PreparedDataset:
    """Return the prepared form of `source`, building it first if it does not exist.

    The folder is named by a hash of the source's settings and of its files' sizes and modification times, so a
    changed file is prepared again. It is built in a temporary sibling folder and renamed at the end, so a folder of
    this name is always complete.

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
                    raise DataError(f"{error.filename}: the file was removed while it was being read") from None
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
    asked, paths = source, source_paths(source, data_dir)
    source = _as_read(source)
    before = _signatures(paths)
    with confined(paths, folder) as connection:
        notes = load_raw(connection, source, data_dir)
        if isinstance(source, TableSource) and source.items is not None:
            join_items(connection, source, paths[1])
        _check_rows(connection, source, paths)
        time = read_times(connection, source, paths, lambda row: _row_place(source, paths, row))
        if isinstance(source, TableSource) and source.duplicates is not None:
            extreme = {"newest": "max", "oldest": "min"}[source.duplicates.keep]
            same = ", ".join(f"same{i}" for i in range(len(source.duplicates.columns)))
            connection.execute(_WITHOUT_DUPLICATES.format(extreme=extreme, time=time.sql, columns=same))
        _filter(connection, source.filter, _place(paths))
        count_providers(connection, getattr(source, "unknown", ()))
        has_items = isinstance(source, TableSource) and source.items is not None
        reading = reading_of(connection, notes, paths[1] if has_items else None)
        connection.execute(_NUMBER_USERS)
        connection.execute(_NUMBER_ITEMS)
        connection.execute(_NUMBER_PROVIDERS, {"unknown": UNKNOWN_PROVIDER})
        columns = connection.execute(
            _ORDERED.format(time=time.sql, ties=_drawn(source)), {"unknown": UNKNOWN_PROVIDER}
        ).fetchnumpy()
        lengths = np.bincount(columns["user"])
        arrays = {
            "items": np.ascontiguousarray(columns["item"], dtype=np.int32),
            "providers": np.ascontiguousarray(columns["provider"], dtype=np.int32),
            "times": np.ascontiguousarray(columns["moment"]),
            "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        }
        del columns
        lifetimes = given_lifetimes(connection, arrays["times"].dtype)
        reading = _with_control(connection, source, arrays, reading, _place(paths))
        if source.tie_order in (None, IN_FILE_ORDER):
            reading = replace(reading, notes=(*reading.notes, *sorted_ties(connection, **_without_providers(arrays))))
        for table in ("users", "items", "providers"):
            path = str((folder / f"{table}.parquet").absolute())
            connection.table(table).order("id").write_parquet(path, compression="zstd")
        items, providers = (
            int(_only_row(connection, f"SELECT count(*) FROM {table}")[0]) for table in ("items", "providers")
        )
        (stand_in,) = _only_row(connection, f"SELECT bool_and(regexp_full_match(raw, '{MARK}\\d+')) FROM users")
    shutil.rmtree(folder / "spill", ignore_errors=True)
    fingerprint = hashlib.sha256()
    for name, array in (arrays | lifetimes).items():
        np.save(folder / f"{name}.npy", array)
        fingerprint.update(array.data if name in arrays else name.encode() + array.data)
    outside = outside_notes(lifetimes, arrays["items"], arrays["times"])
    reading = replace(reading, notes=(*reading.notes, *outside))
    names = [path.name for path in paths]
    files = {path.name if names.count(path.name) == 1 else str(path): _sha256(path) for path in paths}
    if _signatures(paths) != before:
        raise DataError(f"{_place(paths)}: the file changed while it was being read; prepare it again when complete")
    meta = {
        "format": PREPARED_FORMAT,
        "fingerprint": fingerprint.hexdigest(),
        "times_per_second": time.per_second,
        "num_items": items,
        "num_providers": providers + UNKNOWN_PROVIDER,
        "stand_in": bool(stand_in),
        "filter": str(source.filter or Filter()),
        "statistics": asdict(describe(**arrays, unknown_provider=UNKNOWN_PROVIDER)),
        "reading": asdict(reading),
        "source": asked.model_dump(mode="json"),
        "files": files,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")


def _as_read(source: DatasetSpec) -> DatasetSpec:
    """Return `source` with the column that its choice of providers reads; without one, if it reads none."""
    wanted = source.providers_as
    if not isinstance(source, TableSource) or wanted in (AS_GIVEN, "shuffled"):
        return source
    if not isinstance(wanted, ProviderColumn):
        if source.items is not None and (source.available_from or source.available_until):
            return source  # the item table may say when items exist
        return source.model_copy(update={"provider": "", "items": None})
    if source.items is None:
        return source.model_copy(update={"provider": wanted.column})
    return source.model_copy(update={"items": source.items.model_copy(update={"provider": wanted.column})})


def _drawn(source: DatasetSpec) -> str:
    """Return what SQL orders equal times by, before the row of the source."""
    if source.tie_order in (None, IN_FILE_ORDER):
        return ""
    return f"md5_number_lower('tie {source.tie_order} ' || row), "


def _with_control(
    connection: duckdb.DuckDBPyConnection,
    source: DatasetSpec,
    arrays: dict[str, Any],
    reading: Reading,
    place: str,
) -> Reading:
    """Put the providers that `source` wants into `arrays` and the table `providers`.

    Returns:
        The reading, with the largest providers.

    Raises:
        DataError: there is no provider to shuffle.
    """
    names: list[str] | None = None
    if source.providers_as == "shuffled":
        try:
            arrays["providers"] = shuffled(arrays["items"], arrays["providers"])
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
    elif source.providers_as == "one":
        arrays["providers"], names = np.full_like(arrays["providers"], UNKNOWN_PROVIDER + 1), ["one provider"]
    elif source.providers_as == "popularity":
        arrays["providers"], names = popularity(arrays["offsets"], arrays["items"])
    if names is not None:
        connection.execute("CREATE OR REPLACE TABLE providers (raw VARCHAR, id INTEGER)")
        connection.executemany(
            "INSERT INTO providers VALUES (?, ?)",
            [(name, UNKNOWN_PROVIDER + number) for number, name in enumerate(names, start=1)],
        )
    largest = largest_providers(connection, arrays["providers"])
    if not largest:
        return reading
    rest = stickiness_without(arrays["offsets"], arrays["items"], arrays["providers"], largest[0][1], UNKNOWN_PROVIDER)
    return replace(
        reading,
        largest_providers=tuple((name, count) for name, _, count in largest),
        stickiness_without_largest=rest,
    )


def _without_providers(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if name != "providers"}


def _place(paths: Sequence[Path]) -> str:
    return str(paths[0]) if paths else "synthetic data"


def _signatures(paths: Iterable[Path]) -> list[tuple[int, int]]:
    return [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _row_place(source: DatasetSpec, paths: Sequence[Path], row: int) -> str:
    if not isinstance(source, TableSource):
        return f"synthetic data: row {row}"
    return place_of(paths[0], row, source)


def _check_rows(connection: duckdb.DuckDBPyConnection, source: DatasetSpec, paths: Sequence[Path]) -> None:
    """Refuse an empty source, and rows that lack a required value or have an invalid id."""
    (rows,) = _only_row(connection, "SELECT count(*) FROM raw")
    if not rows:
        used = {"`where`": bool(getattr(source, "where", "")), "`scale`": source.scale not in (None, 1)}
        chosen = " and ".join(name for name, is_used in used.items() if is_used)
        kept = f" left by {chosen}" if chosen else ""
        raise DataError(f"{_place(paths)}: the dataset is empty: it has no row of data{kept}")
    if not isinstance(source, TableSource):
        return
    (untimed,) = _only_row(connection, "SELECT min(row) FILTER (time IS NULL OR time = '') FROM raw")
    if untimed is not None:
        raise DataError(f"{_row_place(source, paths, untimed)}: the time is missing; fill it in or remove the row")
    for role in ("user", "item", "provider"):
        if role == "provider" and source.items is not None:
            continue  # its rows are those of another file, which `join_items` has checked
        checks = [*ODD]
        if role != "provider":
            checks = [
                (is_unknown("id", ()), "the {role} is missing; fill it in or remove the row"),
                *checks,
                (is_unknown("id", source.unknown), _PLACEHOLDER),
            ]
        refuse_ids(connection, "raw", role, checks, lambda row: _row_place(source, paths, row))


def _filter(connection: duckdb.DuckDBPyConnection, wanted: Filter | None, place: str) -> None:
    """Drop the rows of users and items out of bounds, in one pass or until all that remain are within them."""
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


def _only_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
