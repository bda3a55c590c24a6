"""Typed reads of the store."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.errors import StoreError, SuiteError, did_you_mean, listed
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.records import Environment, PlannedCell
from ipsrec_bench.suite.load import parse_suite
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
    ranks: NDArray[np.int32]


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
    depth: int | None
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
        if suite in known:
            raise StoreError(f"the store holds no run {number} of the suite '{suite}'")
        raise StoreError(
            f"the store holds no run of a suite '{suite}'"
            f"{did_you_mean(suite, known) or f'; it has {listed(sorted(known))}'}"
        )
    run, name, settings, text, overrides, started = row
    columns = "key, dataset, model, title, type, variant, seed"
    own = [
        PlannedCell(*row)
        for row in connection.execute(
            f"SELECT {columns} FROM run_cells WHERE run = ? ORDER BY position", [run]
        ).fetchall()
    ]
    imported = [
        PlannedCell(*row)
        for row in connection.execute(
            f"SELECT {columns} FROM imported_cells WHERE suite = ? ORDER BY ALL", [name]
        ).fetchall()
    ]
    datasets, labels = {cell.dataset for cell in own}, {cell.label for cell in own}
    own += [cell for cell in imported if cell.dataset in datasets and cell.label not in labels]
    return Run(
        run=run,
        suite_name=name,
        suite=Suite.model_validate_json(settings),
        text=text,
        overrides=tuple(overrides),
        started=started,
        cells=tuple(_distinct(own)),
    )


def _distinct(cells: Sequence[PlannedCell]) -> Iterable[PlannedCell]:
    """Yield the cells with titles that no two rows share: tables and charts tell rows apart by them."""
    labels: dict[str, set[str]] = {}
    for cell in cells:
        labels.setdefault(cell.display, set()).add(cell.label)
    for cell in cells:
        shared = len(labels[cell.display]) > 1
        yield replace(cell, title=f"{cell.title} ({cell.model})") if shared else cell


def place_of(file: Path, store: Path) -> str:
    """Return the path of a suite's file as the store keeps it: from its own folder."""
    return os.path.relpath(file.resolve(), store.resolve().parent)


def check_file(connection: Connection, suite: str, file: Path, store: Path) -> None:
    """Check that the store's runs of `suite` are of `file`, and not of another suite of that name.

    Raises:
        SuiteError: they are of another file, which is there and says something else.
    """
    row = connection.execute("SELECT place FROM suites WHERE suite = ?", [suite]).fetchone()
    if row is None or row[0] == place_of(file, store):
        return
    other = store.resolve().parent / row[0]
    if other.is_file() and other.read_bytes() != file.read_bytes():
        raise SuiteError(
            f"{file}: the store {store} has another suite of the name '{suite}', that of"
            f' {os.path.normpath(other)}; give this one a name of its own, like name = "{suite}-2" at its top, or'
            " another --store"
        )


def find_cells(connection: Connection, key: str) -> list[PlannedCell]:
    """Return the complete cells whose keys begin with `key`, under the labels of the newest run that has them."""
    rows = connection.execute(
        """
        SELECT key, dataset, model, title, wanted.type, variant, wanted.seed
        FROM (
            SELECT run, key, dataset, model, title, type, variant, seed FROM run_cells
            UNION ALL
            SELECT 0, key, dataset, model, title, type, variant, seed FROM imported_cells
        ) AS wanted JOIN cells USING (key)
        WHERE status = 'complete' AND starts_with(key, ?)
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY run DESC) = 1
        """,
        [key],
    ).fetchall()
    return [PlannedCell(*row) for row in rows]


def export_ranks(connection: Connection, path: Path, kind: str, suite: str | None) -> int:
    """Write `user_ranks`, of one suite or of all, to a Parquet or CSV file; return the number of rows.

    Raises:
        StoreError: there is nothing to write, or the file cannot be written.
    """
    if suite is not None:
        find_run(connection, suite)
    condition = "WHERE suite = coalesce(?, suite)"
    count = connection.execute(f"SELECT count(*) FROM user_ranks {condition}", [suite]).fetchone()
    if not count or not count[0]:
        raise StoreError("the store holds no ranks yet; run a suite first")
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}[kind]
    target = str(path).replace("'", "''")
    try:
        connection.execute(
            f"COPY (SELECT * EXCLUDE (cell) FROM user_ranks {condition}) TO '{target}' ({options})", [suite]
        )
    except duckdb.Error as error:
        raise StoreError(f"{path}: the ranks cannot be written there: {str(error).splitlines()[0]}") from None
    return int(count[0])


def basis_of(connection: Connection, run: Run, studies: object) -> str:
    """Return a digest of what a report on `run` is made of: suite, cells, how and when each cell ended, and `studies`.

    The number and the start of the run do not enter: if nothing changed between two runs of a suite, their digests are
    equal.
    """
    ended = connection.execute(
        "SELECT key, status, started, seconds FROM cells WHERE key IN (SELECT unnest(?)) ORDER BY key",
        [[cell.key for cell in run.cells]],
    ).fetchall()
    content = (run.suite_name, run.suite.model_dump_json(), run.text, run.overrides, run.cells, ended, studies)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def shown_otherwise(run: Run, overrides: Iterable[str]) -> Run:
    """Return `run` as if its suite had said `overrides` as well, which may change what is shown, not what was run.

    Raises:
        SuiteError: an override is wrong.
        StoreError: it would take another run.
    """
    overrides = tuple(overrides)
    if not overrides:
        return run
    changed = parse_suite(Path(f"{run.suite_name}.toml"), run.text, (*run.overrides, *overrides)).suite
    protocol = run.suite.protocol.model_copy(
        update={"metrics": changed.protocol.metrics, "cutoffs": changed.protocol.cutoffs}
    )
    suite = run.suite.model_copy(update={"protocol": protocol, "statistics": changed.statistics})
    if suite != changed:
        raise StoreError(
            f"--set {' --set '.join(overrides)}: a report can change protocol.metrics, protocol.cutoffs and"
            " statistics.*; anything else takes another run"
        )
    labels = {cell.label for cell in run.cells}
    baseline = suite.statistics.baseline
    if baseline not in {"best", *labels}:
        raise StoreError(
            f"--set statistics.baseline={baseline}: allowed: 'best', {listed(sorted(labels))}"
            f"{did_you_mean(baseline, labels)}"
        )
    return replace(run, suite=suite, overrides=(*run.overrides, *overrides))


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
        " best_epoch, best_valid, environment, depth, settings FROM cells WHERE key IN (SELECT unnest(?))",
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
            'SELECT "user", realistic_rank(higher, ties)::INTEGER AS rank FROM ranks'
            " WHERE cell = ? AND split = 'test'",
            [cell],
        ).fetchnumpy()
        users, ranks = np.asarray(columns["user"]), np.asarray(columns["rank"])
        if (users[1:] < users[:-1]).any():  # they are written in order, and to sort them takes longer than to read
            order = np.argsort(users)
            users, ranks = users[order], ranks[order]
        found[key] = TestRanks(key, users, ranks)
    return found


def target_facts(connection: Connection, fingerprint: str, split: str) -> TargetFacts | None:
    """Return what is known of the test targets of a dataset under a split, users ascending; None if nothing is."""
    columns = connection.execute(
        'SELECT "user" AS users, history, item_count, provider_count, item_seen, provider_seen FROM targets'
        ' WHERE fingerprint = ? AND split = ? ORDER BY "user"',
        [fingerprint, split],
    ).fetchnumpy()
    facts = TargetFacts(**{name: np.asarray(column) for name, column in columns.items()})
    return facts if len(facts.users) else None


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
