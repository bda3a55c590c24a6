"""Writes of runs and imports to the store.

Rows are written by the names of their columns, which are the fields of the dataclasses that hold them: a new column
is a field there and a line in `schema.sql`.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.errors import StoreError
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.queries import check_file, complete_keys, place_of, unlike
from ipsrec_bench.store.records import (
    BESIDE_CELLS,
    CellRecord,
    DatasetRow,
    Environment,
    PlannedCell,
    RunDataset,
    columns_of,
)
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import Protocol


def claim_name(connection: Connection, file: SuiteFile, store: Path) -> None:
    """Record the path of a suite's file, so that no other suite takes its name in this store.

    If the recorded file no longer exists, it was moved, and its name is free.

    Raises:
        SuiteError: another file has the name.
    """
    if not file.path.is_file():  # a suite that the store itself has kept
        return
    check_file(connection, file.name, file.path, store)
    _insert(connection, "suites", [{"suite": file.name, "place": place_of(file.path, store)}], how="INSERT OR REPLACE")


def begin_run(
    connection: Connection,
    file: SuiteFile,
    datasets: Sequence[PreparedDataset],
    cells: Sequence[PlannedCell],
) -> int:
    """Record the start of a suite and its planned cells; return the run's number."""
    begun = {
        "suite": file.name,
        "settings": file.suite.model_dump_json(),
        "text": file.text,
        "overrides": list(file.overrides),
        "started": datetime.now(UTC).replace(tzinfo=None),
    }
    run = _insert_numbered(connection, "runs", begun, "run")
    _insert(connection, "run_cells", ({"run": run, "position": i, **vars(cell)} for i, cell in enumerate(cells)))
    for data in datasets:
        _record_dataset(connection, data)
        made_of = {name: getattr(data, name) for name in columns_of(RunDataset)}
        _insert(connection, "run_datasets", [{"run": run, "dataset": data.name, **made_of}])
    return run


def _record_dataset(connection: Connection, data: PreparedDataset) -> None:
    of_statistics = vars(data.statistics)
    row = {
        name: of_statistics[name] if name in of_statistics else getattr(data, name) for name in columns_of(DatasetRow)
    }
    _insert(connection, "datasets", [row], how="INSERT OR IGNORE")


def record_split(connection: Connection, fingerprint: str, protocol: Protocol, statistics: SplitStatistics) -> None:
    """Write the statistics of a dataset's split by `protocol`; older versions left some of them out."""
    row = {"fingerprint": fingerprint, "split": protocol.split_name, **vars(statistics)}
    _insert(connection, "splits", [row], how="INSERT OR REPLACE")


def record_targets(connection: Connection, fingerprint: str, protocol: Protocol, facts: TargetFacts) -> None:
    """Write the facts about the test targets of a dataset under `protocol`, unless the store has all of them."""
    place = [fingerprint, protocol.split_name]
    of_split = "FROM targets WHERE fingerprint = ? AND split = ?"
    if connection.execute(f"SELECT 1 {of_split} AND candidates IS NOT NULL LIMIT 1", place).fetchone():
        return
    connection.execute(f"DELETE {of_split}", place)  # an older version left a column out
    known = {name: column for name, column in vars(facts).items() if column is not None}
    with _as_table(connection, known) as arrays:
        connection.execute(
            "INSERT INTO targets BY NAME"
            f' SELECT ? AS fingerprint, ? AS split, * EXCLUDE (users), users AS "user" FROM {arrays}',
            place,
        )


def record_import(
    connection: Connection,
    suite: str,
    data: PreparedDataset,
    cell: PlannedCell,
    record: CellRecord,
    *,
    replace: bool = False,
) -> str | None:
    """Write ranks that were computed elsewhere, as row `cell` of the suite's tables.

    An import for other targets under the same label and seed is replaced; one for the same targets only with `replace`.

    Returns:
        The name of the file whose ranks were replaced; None if there were none, or the same ones.

    Raises:
        StoreError: the store has other ranks of the same targets there, and `replace` is not set.
    """
    _record_dataset(connection, data)
    record_cell(connection, record)
    before = connection.execute(
        "SELECT key, json_extract_string(settings, '$.config.file')"
        " FROM imported_cells JOIN cells USING (key)"
        " WHERE suite = ? AND dataset = ? AND trim(model || ' ' || variant) = ? AND imported_cells.seed = ?"
        " AND key <> ?",
        [suite, cell.dataset, cell.label, cell.seed, cell.key],
    ).fetchall()
    for key, name in before:
        if not replace and unlike(connection, [cell.key, key]) is None:
            raise StoreError(
                f"'{cell.label}' on '{cell.dataset}', seed {cell.seed}, was imported before, from {name}; import it"
                " with --replace, or under another --model, --variant or --seed"
            )
    connection.execute(
        "DELETE FROM imported_cells WHERE suite = ? AND dataset = ? AND trim(model || ' ' || variant) = ? AND seed = ?",
        [suite, cell.dataset, cell.label, cell.seed],
    )
    _insert(connection, "imported_cells", [{"suite": suite, **vars(cell)}])
    replaced = "SELECT cell FROM cells WHERE type = ? AND key NOT IN (SELECT key FROM imported_cells)"
    for table in ("ranks", "cell_targets", "cells"):
        connection.execute(f"DELETE FROM {table} WHERE cell IN ({replaced})", [cell.type])
    return before[0][1] if before else None


def record_cell(connection: Connection, record: CellRecord) -> None:
    """Write a cell with all its rows, replacing the stored one with its key; a failure never replaces a result."""
    if record.error is not None and complete_keys(connection, [record.key]):
        return
    remove_cell(connection, record.key)
    row = {name: value for name, value in vars(record).items() if name not in BESIDE_CELLS} | {
        "status": "failed" if record.error else "complete",
        "environment": _environment(connection, record.environment),
        "started": record.started.replace(tzinfo=None),
    }
    cell = _insert_numbered(connection, "cells", row, "cell")
    _insert(
        connection,
        "epochs",
        (
            {"cell": cell, **{name: value for name, value in vars(epoch).items() if name != "losses"}}
            for epoch in record.epochs
        ),
    )
    _insert(
        connection,
        "losses",
        (
            {"cell": cell, "stage": epoch.stage, "epoch": epoch.epoch, "name": name, "value": value}
            for epoch in record.epochs
            for name, value in epoch.losses.items()
        ),
    )
    for split, ranks in (record.ranks or {}).items():
        columns = {"user": ranks.users.astype(np.int32), "higher": ranks.higher, "ties": ranks.ties}
        with _as_table(connection, columns) as arrays:
            connection.execute(
                f"INSERT INTO ranks BY NAME SELECT ? AS cell, ? AS split, * FROM {arrays}", [cell, split]
            )
    for split, found in record.target_sets.items():
        if split in (record.ranks or {}):
            _insert(connection, "cell_targets", [{"cell": cell, "split": split, **vars(found)}])


def remove_cell(connection: Connection, key: str) -> None:
    """Remove a cell with all its rows, if the store has it."""
    for table in ("ranks", "epochs", "losses", "cell_targets", "cells"):
        connection.execute(f"DELETE FROM {table} WHERE cell IN (SELECT cell FROM cells WHERE key = ?)", [key])


def _insert(connection: Connection, table: str, rows: Iterable[Mapping[str, object]], *, how: str = "INSERT") -> None:
    """Write `rows`, all with the same columns, to `table` by the columns' names; mappings are written as JSON."""
    rows = list(rows)
    if rows:
        connection.executemany(_insertion(table, rows[0], how), [_values(row) for row in rows])


def _insert_numbered(connection: Connection, table: str, row: Mapping[str, object], number: str) -> int:
    """Write `row` to `table`; return the `number` that the table gives it."""
    given = connection.execute(f"{_insertion(table, row)} RETURNING {number}", _values(row)).fetchall()
    return int(given[0][0])


def _insertion(table: str, row: Mapping[str, object], how: str = "INSERT") -> str:
    columns = ", ".join(f'"{name}"' for name in row)
    return f"{how} INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})"


def _values(row: Mapping[str, object]) -> list[object]:
    return [json.dumps(value) if isinstance(value, Mapping) else value for value in row.values()]


@contextlib.contextmanager
def _as_table(connection: Connection, arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Let SQL read `arrays` as columns; yield the table's name."""
    connection.register("arrays", arrays)  # DuckDB finds no Python variable without external access
    yield "arrays"
    connection.unregister("arrays")  # not after an error, which ends the transaction and so the connection


def _environment(connection: Connection, environment: Environment) -> str:
    row = asdict(environment)
    name = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]
    _insert(connection, "environments", [{"environment": name, **row}], how="INSERT OR IGNORE")
    return name
