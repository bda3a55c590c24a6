"""What runs and imports write to the store."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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
from ipsrec_bench.store.records import CellRecord, Environment, PlannedCell
from ipsrec_bench.suite.load import SuiteFile
from ipsrec_bench.suite.schema import Protocol


def claim_name(connection: Connection, file: SuiteFile, store: Path) -> None:
    """Record where the file of a suite lies, so that no other suite takes its name in this store.

    A file that is no longer where it was has been moved, and its name is free.

    Raises:
        SuiteError: another file has the name.
    """
    if not file.path.is_file():  # a suite that the store itself has kept
        return
    check_file(connection, file.name, file.path, store)
    connection.execute("INSERT OR REPLACE INTO suites VALUES (?, ?)", [file.name, place_of(file.path, store)])


def begin_run(
    connection: Connection,
    file: SuiteFile,
    datasets: Sequence[PreparedDataset],
    cells: Sequence[PlannedCell],
) -> int:
    """Record the start of a suite and what it wants; return the run's number."""
    row = connection.execute(
        "INSERT INTO runs (suite, settings, text, overrides, started) VALUES (?, ?, ?, ?, ?) RETURNING run",
        [
            file.name,
            file.suite.model_dump_json(),
            file.text,
            list(file.overrides),
            datetime.now(UTC).replace(tzinfo=None),
        ],
    ).fetchone()
    assert row is not None
    run: int = row[0]
    connection.executemany(
        "INSERT INTO run_cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (run, position, c.key, c.dataset, c.model, c.title, c.type, c.variant, c.seed)
            for position, c in enumerate(cells)
        ],
    )
    for data in datasets:
        _record_dataset(connection, data)
        connection.execute(
            "INSERT INTO run_datasets (run, dataset, fingerprint, filter, scale, stand_in, source, files)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                run, data.name, data.fingerprint, data.filter, data.scale, data.stand_in, json.dumps(data.source),
                json.dumps(data.files),
            ],
        )  # fmt: skip
    return run


def _record_dataset(connection: Connection, data: PreparedDataset) -> None:
    s = data.statistics
    connection.execute(
        "INSERT OR IGNORE INTO datasets (fingerprint, name, users, items, providers, actions, known_provider_actions,"
        " mean_length, repeat_share, tie_share, stickiness, shuffled_stickiness, stand_in, scale, filter)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            data.fingerprint, data.name, s.users, s.items, s.providers, s.actions,
            s.known_provider_actions, s.mean_length, s.repeat_share, s.tie_share, s.stickiness,
            s.shuffled_stickiness, data.stand_in, data.scale, data.filter,
        ],
    )  # fmt: skip


def record_split(connection: Connection, fingerprint: str, protocol: Protocol, statistics: SplitStatistics) -> None:
    """Write the statistics of a dataset's split by `protocol`; older versions left some of them out."""
    s = statistics
    connection.execute(
        "INSERT OR REPLACE INTO splits (fingerprint, split, test_users, valid_users, tied_targets, leaked_targets,"
        " repeated_targets, unseen_targets) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            fingerprint, protocol.split_name, s.test_users, s.valid_users, s.tied_targets, s.leaked_targets,
            s.repeated_targets, s.unseen_targets,
        ],
    )  # fmt: skip


def record_targets(connection: Connection, fingerprint: str, protocol: Protocol, facts: TargetFacts) -> None:
    """Write what is to be known of the test targets of a dataset under `protocol`, unless it is there."""
    place = [fingerprint, protocol.split_name]
    if connection.execute("SELECT 1 FROM targets WHERE fingerprint = ? AND split = ? LIMIT 1", place).fetchone():
        return
    with _as_table(connection, vars(facts)) as arrays:
        connection.execute(
            f"INSERT INTO targets SELECT ?, ?, users, history, item_count, provider_count, item_seen, provider_seen"
            f" FROM {arrays}",
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
    """Write ranks made elsewhere, as row `cell` of the suite's tables.

    What was imported under the same label and seed for other targets gives way; what ranks the same targets does so
    only with `replace`.

    Returns:
        The name of the file whose ranks gave way, None if there were none, or the same.

    Raises:
        StoreError: other ranks of the same targets stand there.
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
    connection.execute(
        "INSERT INTO imported_cells (suite, key, dataset, model, title, type, variant, seed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [suite, cell.key, cell.dataset, cell.model, cell.title, cell.type, cell.variant, cell.seed],
    )
    replaced = "SELECT cell FROM cells WHERE type = ? AND key NOT IN (SELECT key FROM imported_cells)"
    for table in ("ranks", "cell_targets", "cells"):
        connection.execute(f"DELETE FROM {table} WHERE cell IN ({replaced})", [cell.type])
    return before[0][1] if before else None


def record_cell(connection: Connection, record: CellRecord) -> None:
    """Write a cell with all its rows, in place of what the store has under its key; a failure replaces no result."""
    if record.error is not None and complete_keys(connection, [record.key]):
        return
    remove_cell(connection, record.key)
    row = connection.execute(
        """
        INSERT INTO cells (key, status, error, fingerprint, type, seed, settings, environment, started, seconds,
                           train_seconds, peak_memory, parameters, stop_metric, best_epoch, best_valid, depth,
                           deterministic)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING cell
        """,
        [
            record.key, "failed" if record.error else "complete", record.error, record.fingerprint,
            record.type, record.seed, record.settings, _environment(connection, record.environment),
            record.started.replace(tzinfo=None), record.seconds, record.train_seconds, record.peak_memory,
            record.parameters, record.stop_metric, record.best_epoch, record.best_valid, record.depth,
            record.deterministic,
        ],
    ).fetchone()  # fmt: skip
    assert row is not None
    cell: int = row[0]
    if record.epochs:
        connection.executemany(
            "INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (cell, e.epoch, e.loss, e.cross_entropy, e.contrastive, e.valid, e.train_seconds,
                 e.valid_seconds, e.targets)
                for e in record.epochs
            ],
        )  # fmt: skip
    for split, ranks in (record.ranks or {}).items():
        columns = {"user": ranks.users.astype(np.int32), "higher": ranks.higher, "ties": ranks.ties}
        with _as_table(connection, columns) as arrays:
            connection.execute(f'INSERT INTO ranks SELECT ?, ?, "user", higher, ties FROM {arrays}', [cell, split])
    for split, found in record.target_sets.items():
        if split in (record.ranks or {}):
            connection.execute(
                "INSERT INTO cell_targets (cell, split, users, left_out, targets, candidates)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [cell, split, found.users, found.left_out, found.targets, found.candidates],
            )


def remove_cell(connection: Connection, key: str) -> None:
    """Remove a cell with all its rows, if the store has it."""
    for table in ("ranks", "epochs", "cell_targets", "cells"):
        connection.execute(f"DELETE FROM {table} WHERE cell IN (SELECT cell FROM cells WHERE key = ?)", [key])


@contextlib.contextmanager
def _as_table(connection: Connection, arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Let SQL read `arrays` as columns; yield the table's name."""
    connection.register("arrays", arrays)  # DuckDB finds no Python variable without external access
    yield "arrays"
    connection.unregister("arrays")  # not after an error, which ends the transaction and so the connection


def _environment(connection: Connection, environment: Environment) -> str:
    row = asdict(environment)
    name = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]
    connection.execute(
        "INSERT OR IGNORE INTO environments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [name, *row.values()],
    )
    return name
