"""Typed reads of the store."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.errors import StoreError, did_you_mean, listed
from ipsrec_bench.ranking.metrics import realistic_rank
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.records import Environment, PlannedCell
from ipsrec_bench.suite.schema import Suite


@dataclass(frozen=True)
class Run:
    """One start of a suite, with the cells that it wanted, in the suite's order."""

    run: int
    suite_name: str
    suite: Suite
    text: str
    overrides: tuple[str, ...]
    started: datetime
    cells: tuple[PlannedCell, ...]


@dataclass(frozen=True, eq=False)
class TestRanks:
    """Realistic ranks of a complete cell on the test targets, users ascending."""

    key: str
    users: NDArray[np.int32]
    ranks: NDArray[np.int64]


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of one cell's learning curve."""

    key: str
    epoch: int
    loss: float
    valid: float


@dataclass(frozen=True)
class CellSummary:
    """What a complete or failed cell cost and reached."""

    key: str
    status: str
    error: str | None
    fingerprint: str
    seconds: float
    train_seconds: float | None
    peak_memory: int | None
    parameters: int | None
    stop_metric: str | None
    best_epoch: int | None
    best_valid: float | None
    environment: str
    settings: Mapping[str, Mapping[str, Any]]
    """`config`, `training` and `protocol` as the cell was run with them."""


@dataclass(frozen=True)
class DatasetRow:
    """One row of `datasets`."""

    fingerprint: str
    name: str
    users: int
    items: int
    providers: int
    actions: int
    known_provider_actions: int
    mean_length: float
    repeat_share: float | None
    tie_share: float | None
    stickiness: float | None
    shuffled_stickiness: float | None
    test_users: int
    valid_users: int
    tied_targets: float | None
    leaked_targets: float | None
    stand_in: bool
    scale: float
    filter: str


@dataclass(frozen=True)
class SuiteSummary:
    """How far the newest run of a suite is."""

    suite: str
    started: datetime
    cells: int
    complete: int
    failed: int


def complete_keys(connection: Connection, keys: Collection[str]) -> set[str]:
    """Return those of `keys` that the store holds complete."""
    rows = connection.execute(
        "SELECT key FROM cells WHERE status = 'complete' AND key IN (SELECT unnest(?))", [list(keys)]
    ).fetchall()
    return {row[0] for row in rows}


def find_run(connection: Connection, suite: str | None = None, number: int | None = None) -> Run:
    """Return the newest run, of all, of the named suite, or the one of this number.

    Raises:
        StoreError: there is no such run.
    """
    row = connection.execute(
        "SELECT run, suite, settings, text, overrides, started FROM runs"
        " WHERE suite = coalesce(?, suite) AND run = coalesce(?, run) ORDER BY run DESC LIMIT 1",
        [suite, number],
    ).fetchone()
    if row is None:
        known = [name for (name,) in connection.execute("SELECT DISTINCT suite FROM runs").fetchall()]
        if suite is None:
            raise StoreError("the store holds no run yet; run a suite first")
        raise StoreError(
            f"the store holds no run of a suite '{suite}'"
            f"{did_you_mean(suite, known) or f'; it has {listed(sorted(known))}'}"
        )
    run, name, settings, text, overrides, started = row
    cells = connection.execute(
        "SELECT key, dataset, model, title, type, variant, seed FROM run_cells WHERE run = ? ORDER BY position",
        [run],
    ).fetchall()
    return Run(
        run=run,
        suite_name=name,
        suite=Suite.model_validate_json(settings),
        text=text,
        overrides=tuple(overrides),
        started=started,
        cells=tuple(PlannedCell(*cell) for cell in cells),
    )


def suite_summaries(connection: Connection) -> list[SuiteSummary]:
    """Return the newest run of every suite, newest first, with the state of its cells."""
    rows = connection.execute(
        """
        SELECT suite, latest.started, count(*), count(*) FILTER (status = 'complete'),
               count(*) FILTER (status = 'failed')
        FROM (SELECT * FROM runs QUALIFY row_number() OVER (PARTITION BY suite ORDER BY run DESC) = 1) AS latest
        JOIN run_cells USING (run) LEFT JOIN cells USING (key)
        GROUP BY run, suite, latest.started ORDER BY run DESC
        """
    ).fetchall()
    return [SuiteSummary(*row) for row in rows]


def cell_summaries(connection: Connection, keys: Sequence[str]) -> dict[str, CellSummary]:
    """Return what the store knows of the cells with these keys."""
    rows = connection.execute(
        "SELECT key, status, error, fingerprint, seconds, train_seconds, peak_memory, parameters, stop_metric,"
        " best_epoch, best_valid, environment, settings FROM cells WHERE key IN (SELECT unnest(?))",
        [list(keys)],
    ).fetchall()
    return {row[0]: CellSummary(*(*row[:-1], json.loads(row[-1]))) for row in rows}


def test_ranks(connection: Connection, keys: Sequence[str]) -> dict[str, TestRanks]:
    """Return the test ranks of the complete cells among `keys`."""
    numbers = connection.execute(
        "SELECT cell, key FROM cells WHERE status = 'complete' AND key IN (SELECT unnest(?))", [list(keys)]
    ).fetchall()
    found = {}
    for cell, key in numbers:
        columns = connection.execute(
            'SELECT "user", higher, ties FROM ranks WHERE cell = ? AND split = \'test\' ORDER BY "user"',
            [cell],
        ).fetchnumpy()
        found[key] = TestRanks(key, np.asarray(columns["user"]), realistic_rank(columns["higher"], columns["ties"]))
    return found


def learning_curves(connection: Connection, keys: Sequence[str]) -> list[CurvePoint]:
    """Return the epochs of the cells with these keys, in order."""
    rows = connection.execute(
        "SELECT key, epoch, loss, valid FROM epochs JOIN cells USING (cell)"
        " WHERE key IN (SELECT unnest(?)) ORDER BY key, epoch",
        [list(keys)],
    ).fetchall()
    return [CurvePoint(*row) for row in rows]


def datasets(connection: Connection, fingerprints: Collection[str]) -> dict[str, DatasetRow]:
    """Return the datasets with these fingerprints."""
    rows = connection.execute(
        "SELECT * FROM datasets WHERE fingerprint IN (SELECT unnest(?))", [list(fingerprints)]
    ).fetchall()
    return {row[0]: DatasetRow(*row) for row in rows}


def environments(connection: Connection, names: Collection[str]) -> dict[str, Environment]:
    """Return the environments with these names."""
    rows = connection.execute(
        "SELECT * FROM environments WHERE environment IN (SELECT unnest(?)) ORDER BY environment",
        [list(names)],
    ).fetchall()
    return {row[0]: Environment(*row[1:]) for row in rows}


@dataclass(frozen=True)
class QueryResult:
    """Rows of a free query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def free_query(connection: Connection, sql: str) -> QueryResult:
    """Run a reader's own SQL, which can reach nothing but the store.

    Raises:
        StoreError: DuckDB refuses it.
    """
    try:
        connection.execute("SET enable_external_access = false")
        cursor = connection.execute(sql)
        rows = tuple(cursor.fetchall())
    except duckdb.Error as error:
        raise StoreError(f"the query failed: {error}") from None
    return QueryResult(tuple(column[0] for column in cursor.description or ()), rows)
