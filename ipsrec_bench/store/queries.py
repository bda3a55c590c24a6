"""Typed reads of the store."""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.errors import MissingRunError, StoreError, SuiteError, did_you_mean, listed
from ipsrec_bench.models.stages import MAIN
from ipsrec_bench.ranking.metrics import expected_histogram, expected_metric, higher_of, metric, of_users
from ipsrec_bench.store.connect import Connection
from ipsrec_bench.store.records import EXTERNAL, DatasetRow, Environment, PlannedCell, RunDataset, columns_of
from ipsrec_bench.suite.schema import Ties


@dataclass(frozen=True)
class StoredRun:
    """One start of a suite, with its planned cells in the suite's order."""

    run: int
    suite_name: str
    settings: str
    """The suite as parsed, in JSON."""
    text: str
    overrides: tuple[str, ...]
    started: datetime
    cells: tuple[PlannedCell, ...]
    """Planned cells, and imports for the suite."""
    stale: tuple[PlannedCell, ...] = ()
    """Cells that are left out: other targets or candidates than `cells`, or imports with the label of a suite's row."""


@dataclass(frozen=True)
class Basis:
    """Targets and candidates of a cell's test ranks, as its settings give them; None where they do not."""

    fingerprint: str
    filter: str | None
    split: str | None
    mask_history: str | None
    candidates: str | None

    def differences(self, other: "Basis") -> list[str]:
        """Return the differences between two bases that are not comparable, with both values, this one's first."""
        names = ("filter", "split", "mask_history", "candidates")
        parts = [
            (name, getattr(self, name), getattr(other, name)) for name in names
        ]  # another filter makes other data, and explains the difference
        found = [f"{name} ({mine} and {theirs})" for name, mine, theirs in parts if mine != theirs]
        if self.fingerprint != other.fingerprint and self.filter == other.filter:
            found.insert(0, f"data (fingerprints {self.fingerprint[:12]} and {other.fingerprint[:12]})")
        return found or ["set of targets under the same settings"]


@dataclass(frozen=True)
class RankedUsers:
    """For how many users a cell ranks targets in a split, and how many users the mask leaves out."""

    users: int
    left_out: int


@dataclass(frozen=True, eq=False)
class TestRanks:
    """Realistic ranks of a complete cell on the test targets, users ascending.

    A user has several targets only if the protocol takes all interactions after a cut.
    """

    key: str
    users: NDArray[np.int32]
    """The user of each target, `[targets]`."""
    ranks: NDArray[np.int32]
    ties: NDArray[np.int32] | None = None
    """Other items with the score of each target, if its metric is the mean over all orders of these ties; None if the
    realistic rank counts."""

    @cached_property
    def distinct(self) -> NDArray[np.int32]:
        """The users with a target, ascending, `[users]`."""
        return np.unique(self.users) if (self.users[1:] == self.users[:-1]).any() else self.users

    def metric(self, name: str) -> NDArray[np.float64]:
        """Return the metric `name`, like `ndcg@10`, of each user: the mean over the user's targets, `[users]`."""
        if self.ties is None:
            return of_users(self.users, metric(name, self.ranks))
        return of_users(self.users, expected_metric(name, higher_of(self.ranks, self.ties), self.ties))

    @property
    def weights(self) -> NDArray[np.float64]:
        """What each target counts, `[targets]`: each of a user's n targets counts 1 / n."""
        places = np.searchsorted(self.distinct, self.users)
        return np.asarray(1 / np.bincount(places)[places])

    def histogram(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return how many users have each rank, from rank 0 (none) on; each of a user's n targets counts 1 / n.

        With ties, each target is spread evenly over their ranks.
        """
        if self.ties is None and len(self.distinct) == len(self.users):
            return np.bincount(self.ranks)
        if self.ties is None:
            return np.bincount(self.ranks, weights=self.weights)
        return expected_histogram(higher_of(self.ranks, self.ties), self.ties, self.weights)


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of one cell's learning curve."""

    key: str
    epoch: int
    """Number within its stage, from 1."""
    loss: float
    """The loss that was minimised."""
    valid: float | None
    """The stopping metric; None in any stage but the main one."""
    stage: str = MAIN
    losses: Mapping[str, float] = field(default_factory=dict)
    """The loss of each task by name, before its weight."""


@dataclass(frozen=True)
class CellSummary:
    """Costs and results of a complete or failed cell."""

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
    deterministic: bool
    """Whether no seed changes its ranks."""

    @property
    def refit(self) -> bool:
        """Whether the model was trained again on training and validation interactions."""
        return "refit" in self.settings or bool(self.settings.get("training", {}).get("refit"))

    @property
    def cut_off(self) -> bool:
        """Whether training was still getting better when its last allowed epoch ended."""
        return self.best_epoch is not None and self.best_epoch == self.settings.get("training", {}).get("epochs")


@dataclass(frozen=True)
class SuiteSummary:
    """Progress of the newest run of a suite."""

    suite: str
    started: datetime
    cells: int
    complete: int
    failed: int


@dataclass(frozen=True)
class RunSummary:
    """One start of a suite, and how many of the cells that it wanted have ended since."""

    run: int
    started: datetime
    overrides: tuple[str, ...]
    cells: int
    complete: int
    failed: int


def complete_keys(connection: Connection, keys: Collection[str]) -> set[str]:
    """Return those of `keys` whose cells are complete in the store."""
    rows = connection.execute(
        "SELECT key FROM cells WHERE status = 'complete' AND key IN (SELECT unnest(?))", [list(keys)]
    ).fetchall()
    return {row[0] for row in rows}


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended last."""

    error: str | None
    """The traceback of a failed cell."""
    started: datetime


def outcome_of(connection: Connection, key: str) -> CellOutcome | None:
    """Return how the cell `key` ended, or None if the store does not have it."""
    row = connection.execute("SELECT error, started FROM cells WHERE key = ?", [key]).fetchone()
    return CellOutcome(*row) if row is not None else None


def best_epoch_of(connection: Connection, key: str) -> tuple[int, float] | None:
    """Return the best epoch of the complete cell `key` and its validation metric; None if there is no such cell."""
    row = connection.execute(
        "SELECT best_epoch, best_valid FROM cells WHERE status = 'complete' AND key = ? AND best_valid IS NOT NULL",
        [key],
    ).fetchone()
    return (int(row[0]), float(row[1])) if row is not None else None


def outcomes(connection: Connection) -> dict[str, CellOutcome]:
    """Return how every cell of the store ended, by its key."""
    rows = connection.execute("SELECT key, error, started FROM cells").fetchall()
    return {key: CellOutcome(*rest) for key, *rest in rows}


def _metric(name: str, ties: Ties) -> str:
    """Return the expression for the metric `name`, like `ndcg@10`, of one row of `ranks`."""
    kind, cutoff = name.split("@")
    if ties == "expected":
        return f"expected_{kind}(higher, ties, {cutoff})"
    return f"{kind}(realistic_rank(higher, ties), {cutoff})"


def metrics_of(
    connection: Connection, keys: Collection[str], names: Collection[str], ties: Ties = "realistic"
) -> dict[str, tuple[dict[str, float], float]]:
    """Return, by key of complete cells, metrics like `ndcg@10` of the test targets and the seconds that they took."""
    means = ", ".join(f"avg(m{place})" for place in range(len(names)))
    of_users = ", ".join(f"avg({_metric(name, ties)}) AS m{place}" for place, name in enumerate(names))
    rows = connection.execute(
        f"""
        SELECT key, any_value(seconds), {means}
        FROM (SELECT key, any_value(seconds) AS seconds, {of_users}
              FROM (SELECT key, seconds, "user", higher, ties
                    FROM ranks JOIN cells USING (cell) WHERE split = 'test' AND key IN (SELECT unnest(?)))
              GROUP BY key, "user")
        GROUP BY key
        """,
        [list(keys)],
    ).fetchall()
    return {key: (dict(zip(names, values, strict=True)), seconds) for key, seconds, *values in rows}


def _zeros(size: int, *, whole: bool) -> NDArray[np.int64] | NDArray[np.float64]:
    return np.zeros(size, dtype=np.int64) if whole else np.zeros(size)


_RANKS_OF = """
    (FROM ranks WHERE split = ? AND cell IN
        (SELECT cell FROM cells WHERE status = 'complete' AND key IN (SELECT unnest(?))))
"""
"""Ranks of a split, of complete cells."""


def means_of(
    connection: Connection, keys: Collection[str], name: str, split: str, ties: Ties = "realistic"
) -> dict[str, float]:
    """Return, by key of complete cells, the mean over users of a metric like `ndcg@10` in a split, valid or test."""
    values = f"SELECT cell, avg({_metric(name, ties)}) AS value FROM {_RANKS_OF} GROUP BY cell"
    if _several_targets(connection, keys, split):  # rarely: grouping by user takes four times as long
        values = f'{values}, "user"'
    rows = connection.execute(
        f"SELECT key, avg(value) FROM ({values}) JOIN cells USING (cell) GROUP BY key", [split, list(keys)]
    ).fetchall()
    return dict(rows)


def _several_targets(connection: Connection, keys: Collection[str], split: str) -> bool:
    """Return whether a user has several targets in a split of any of the complete cells among `keys`."""
    found = connection.execute(
        f"""
        SELECT count(*) FROM (SELECT cell, count(*) AS ranked FROM {_RANKS_OF} GROUP BY cell)
        JOIN cell_targets USING (cell) WHERE split = ? AND ranked > users
        """,
        [split, list(keys), split],
    ).fetchall()
    return bool(found[0][0])


@dataclass(frozen=True)
class LikeCells:
    """Costs of complete cells that differ only in their seed."""

    seconds: float
    """Median duration of the cells."""
    epoch_seconds: float | None
    """Median of the mean time to train and validate an epoch, of whatever stage; None for models that count."""
    peak_memory: int
    """Maximum over the cells, in bytes."""


def like_cells(
    connection: Connection, kinds: Collection[tuple[str, str]], *, cuda: bool, threads: int
) -> dict[tuple[str, str], LikeCells]:
    """Return the costs of complete cells for each of `kinds` that the store has.

    Args:
        connection: connection to the store.
        kinds: fingerprints of the data, and settings as JSON with sorted keys.
        cuda: whether to use the cells that were trained on a GPU, or those that were not.
        threads: number of torch threads; cells with another number are left out.
    """
    rows = connection.execute(
        """
        WITH curves AS (
            SELECT cell, avg(train_seconds + valid_seconds) AS epoch_seconds FROM epochs GROUP BY cell
        )
        SELECT fingerprint, settings, median(seconds), median(epoch_seconds), max(peak_memory)
        FROM cells JOIN environments USING (environment) LEFT JOIN curves USING (cell)
        WHERE status = 'complete' AND peak_memory IS NOT NULL AND threads = ?
              AND (device = 'cpu' OR starts_with(device, 'cpu,')) = ?
              AND fingerprint IN (SELECT unnest(?)) AND settings IN (SELECT unnest(?))
        GROUP BY fingerprint, settings
        """,
        [threads, not cuda, *(list({kind[i] for kind in kinds}) for i in range(2))],
    ).fetchall()
    found = {(fingerprint, settings): LikeCells(*facts) for fingerprint, settings, *facts in rows}
    return {kind: found[kind] for kind in kinds if kind in found}


def find_run(connection: Connection, suite: str | None = None, number: int | None = None) -> StoredRun:
    """Return the newest run of all suites or of `suite`, or the run `number`.

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
        raise MissingRunError(
            f"the store holds no run of a suite '{suite}'"
            f"{did_you_mean(suite, known) or f'; it has {listed(sorted(known))}'}"
        )
    run, name, settings, text, overrides, started = row
    rows = connection.execute(
        f"SELECT fits, {', '.join(columns_of(PlannedCell))} FROM table_cells WHERE run = ?"
        ' ORDER BY imported, "position", dataset, model, variant, seed',
        [run],
    ).fetchall()
    fitting, stale = ([PlannedCell(*row) for fits, *row in rows if fits == wanted] for wanted in (True, False))
    return StoredRun(
        run, name, settings, text, tuple(overrides), started, cells=tuple(_distinct(fitting)), stale=tuple(stale)
    )


def _distinct(cells: Sequence[PlannedCell]) -> Iterable[PlannedCell]:
    """Yield the cells with titles that no two rows share: tables and charts distinguish rows by them."""
    labels: dict[str, set[str]] = {}
    for cell in cells:
        labels.setdefault(cell.display, set()).add(cell.label)
    for cell in cells:
        shared = len(labels[cell.display]) > 1
        yield replace(cell, title=f"{cell.title} ({cell.model})") if shared else cell


def place_of(file: Path, store: Path) -> str:
    """Return the path of a suite's file as the store keeps it: relative to the store's folder."""
    return os.path.relpath(file.resolve(), store.resolve().parent)


def check_file(connection: Connection, suite: str, file: Path, store: Path) -> None:
    """Check that the store's runs of `suite` are of `file`, and not of another suite of that name.

    Raises:
        SuiteError: they are of another file, which exists and has other content.
    """
    if other := other_file(connection, suite, file, store):
        raise SuiteError(
            f"{file}: the store {store} has another suite of the name '{suite}', that of {other}; give this one another"
            f' name, like name = "{suite}-2" at its top, or another --store'
        )


def other_file(connection: Connection, suite: str, file: Path, store: Path) -> str | None:
    """Return the file of the store's suite of this name, if it is not `file` and has other content."""
    row = connection.execute("SELECT place FROM suites WHERE suite = ?", [suite]).fetchone()
    if row is None or row[0] == place_of(file, store):
        return None
    other = store.resolve().parent / row[0]
    return os.path.normpath(other) if other.is_file() and other.read_bytes() != file.read_bytes() else None


def unlike(connection: Connection, keys: Sequence[str]) -> str | None:
    """Return the first complete cell among `keys` that is not comparable with the first of all; None if all are."""
    row = connection.execute(
        """
        WITH wanted AS (
            SELECT cell_bases.*, list_position(?, key) AS place FROM cell_bases WHERE key IN (SELECT unnest(?))
        )
        SELECT other.key FROM wanted AS other, (SELECT * FROM wanted ORDER BY place LIMIT 1) AS beside
        WHERE NOT comparable(beside.said, beside.digest, other.said, other.digest) ORDER BY other.place LIMIT 1
        """,
        [list(keys), list(keys)],
    ).fetchone()
    return None if row is None else row[0]


def fits(connection: Connection, suite: str, key: str) -> bool:
    """Return whether an import fits the tables of the suite's newest run; True if there is no run."""
    row = connection.execute(
        "SELECT fits FROM table_cells WHERE key = ? AND run = (SELECT max(run) FROM runs WHERE suite = ?)", [key, suite]
    ).fetchone()
    return row is None or bool(row[0])


def bases(connection: Connection, keys: Collection[str]) -> dict[str, Basis]:
    """Return the basis of each complete cell among `keys`."""
    rows = connection.execute(
        """
        SELECT key, fingerprint, filter, concat_ws(' ', "split", valid_share, test_share), mask_history,
               coalesce(json_extract_string(settings, '$.protocol.candidates'), 'all')
        FROM cell_bases JOIN (SELECT key, settings FROM cells) USING (key) LEFT JOIN datasets USING (fingerprint)
        WHERE key IN (SELECT unnest(?))
        """,
        [list(keys)],
    ).fetchall()
    return {key: Basis(*basis) for key, *basis in rows}


def ranked_users(connection: Connection, keys: Collection[str]) -> dict[str, dict[str, RankedUsers]]:
    """Return, by key and split, how many users complete cells among `keys` rank; not for cells of older versions."""
    rows = connection.execute(
        'SELECT key, "split"::VARCHAR, users, left_out FROM cell_targets JOIN cells USING (cell)'
        " WHERE status = 'complete' AND key IN (SELECT unnest(?))",
        [list(keys)],
    ).fetchall()
    found: dict[str, dict[str, RankedUsers]] = {}
    for key, split, users, left_out in rows:
        found.setdefault(key, {})[split] = RankedUsers(users, left_out)
    return found


def find_cells(connection: Connection, key: str) -> list[PlannedCell]:
    """Return the complete cells whose keys begin with `key`, with the labels of the newest run that has them."""
    names = columns_of(PlannedCell)
    columns = ", ".join(names)
    rows = connection.execute(
        f"""
        SELECT {", ".join(f"wanted.{name}" for name in names)}
        FROM (
            SELECT run, {columns} FROM run_cells
            UNION ALL
            SELECT 0, {columns} FROM imported_cells
        ) AS wanted JOIN cells USING (key)
        WHERE status = 'complete' AND starts_with(key, ?)
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY run DESC) = 1
        """,
        [key],
    ).fetchall()
    return [PlannedCell(*row) for row in rows]


def suite_summaries(connection: Connection) -> list[SuiteSummary]:
    """Return the newest run of every suite, newest first, with the state of its cells."""
    rows = connection.execute(
        """
        SELECT suite, latest.started, count(DISTINCT key), count(DISTINCT key) FILTER (status = 'complete'),
               count(DISTINCT key) FILTER (status = 'failed')
        FROM (SELECT * FROM runs QUALIFY row_number() OVER (PARTITION BY suite ORDER BY run DESC) = 1) AS latest
        JOIN run_cells USING (run) LEFT JOIN cells USING (key)
        GROUP BY run, suite, latest.started ORDER BY run DESC
        """
    ).fetchall()
    return [SuiteSummary(*row) for row in rows]


def run_summaries(connection: Connection, suite: str) -> list[RunSummary]:
    """Return every run of a suite, newest first."""
    rows = connection.execute(
        """
        SELECT run, any_value(runs.started), any_value(overrides), count(DISTINCT key),
               count(DISTINCT key) FILTER (status = 'complete'), count(DISTINCT key) FILTER (status = 'failed')
        FROM runs LEFT JOIN run_cells USING (run) LEFT JOIN cells USING (key)
        WHERE suite = ? GROUP BY run ORDER BY run DESC
        """,
        [suite],
    ).fetchall()
    return [RunSummary(run, started, tuple(overrides), *counts) for run, started, overrides, *counts in rows]


def run_versions(connection: Connection, suite: str) -> dict[int, tuple[str, ...]]:
    """Return, for each run of a suite, the versions of ipsrec-bench that trained its cells."""
    rows = connection.execute(
        """
        SELECT run, list_sort(list(DISTINCT package)) FROM runs JOIN run_cells USING (run)
        JOIN cells USING (key) JOIN environments USING (environment) WHERE suite = ? GROUP BY run
        """,
        [suite],
    ).fetchall()
    return {run: tuple(versions) for run, versions in rows}


def cell_summaries(connection: Connection, keys: Sequence[str]) -> dict[str, CellSummary]:
    """Return summaries of the cells with these keys."""
    *columns, _, _ = columns_of(CellSummary)
    rows = connection.execute(
        f"SELECT settings, deterministic, type, {', '.join(columns)} FROM cells WHERE key IN (SELECT unnest(?))",
        [list(keys)],
    ).fetchall()
    found = {}
    for text, deterministic, kind, *facts in rows:
        settings = json.loads(text)
        counted = kind != EXTERNAL and "training" not in settings  # all that older versions recorded
        summary = CellSummary(
            **dict(zip(columns, facts, strict=True)),
            settings=settings,
            deterministic=counted if deterministic is None else deterministic,
        )
        found[summary.key] = summary
    return found


def test_ranks(
    connection: Connection,
    keys: Sequence[str],
    ties: Ties = "realistic",  # noqa: PT028 (it is no test)
) -> dict[str, TestRanks]:
    """Return the test ranks of the complete cells among `keys`, whose metrics count ties as `ties` says."""
    numbers = connection.execute(
        "SELECT cell, key FROM cells WHERE status = 'complete' AND key IN (SELECT unnest(?))", [list(keys)]
    ).fetchall()
    found = {}
    for cell, key in numbers:
        columns = connection.execute(
            'SELECT "user", realistic_rank(higher, ties)::INTEGER AS rank, ties FROM ranks'
            " WHERE cell = ? AND split = 'test'",
            [cell],
        ).fetchnumpy()
        users, ranks, equal = (np.asarray(columns[name]) for name in ("user", "rank", "ties"))
        if (users[1:] < users[:-1]).any():  # they are written in order, and sorting takes longer than reading
            order = np.argsort(users, kind="stable")
            users, ranks, equal = users[order], ranks[order], equal[order]
        found[key] = TestRanks(key, users, ranks, equal if ties == "expected" else None)
    return found


def valid_counts(
    connection: Connection, keys: Sequence[str], cutoff: int, ties: Ties = "realistic"
) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """Return, by key of complete cells, how many validation users have each rank; each of n targets counts 1 / n.

    Each array is `[cutoff + 2]`: rank 0, which no user has, then ranks 1 to `cutoff`, then all ranks beyond.
    With expected ties, each target is spread evenly over their ranks. Cells without validation ranks, like imports,
    are left out.
    """
    several = _several_targets(connection, keys, "valid")
    share = '1 / count(*) OVER (PARTITION BY cell, "user")' if several else "1"
    beyond = cutoff + 1
    ranked = f"SELECT cell, least(realistic_rank(higher, ties), {beyond}) AS rank, share FROM targets_of"
    if ties == "expected":
        within = f"range(least(higher, {cutoff}) + 1, least(higher + ties + 1, {cutoff}) + 1)"
        ranked = f"""
            SELECT cell, unnest({within}) AS rank, share / (ties + 1) AS share FROM targets_of
            UNION ALL SELECT cell, {beyond}, share * (1 - expected_hr(higher, ties, {cutoff})) FROM targets_of
        """
    rows = connection.execute(
        f"""
        WITH targets_of AS (SELECT cell, higher, ties, {share} AS share FROM {_RANKS_OF})
        SELECT cell, rank, sum(share) AS users FROM ({ranked}) GROUP BY ALL
        """,
        ["valid", list(keys)],
    ).fetchnumpy()
    found: dict[str, NDArray[np.int64] | NDArray[np.float64]]
    names = dict(
        connection.execute("SELECT cell, key FROM cells WHERE key IN (SELECT unnest(?))", [list(keys)]).fetchall()
    )
    whole = ties == "realistic" and not several
    found = {names[cell]: _zeros(cutoff + 2, whole=whole) for cell in np.unique(rows["cell"]).tolist()}
    for cell, rank, users in zip(*(np.asarray(rows[name]).tolist() for name in ("cell", "rank", "users")), strict=True):
        found[names[cell]][rank] = users
    return found


def target_facts(connection: Connection, fingerprint: str, split: str) -> TargetFacts | None:
    """Return the facts about the test targets of a dataset under a split, users ascending; None if there are none."""
    columns = connection.execute(
        'SELECT "user" AS users, history, item_count, provider_count, item_seen, provider_seen, candidates FROM targets'
        ' WHERE fingerprint = ? AND split = ? ORDER BY "user", rowid',
        [fingerprint, split],
    ).fetchnumpy()
    candidates = columns.pop("candidates")
    is_known = not np.ma.getmaskarray(candidates).any()  # an older version may have recorded the other columns
    facts = TargetFacts(
        **{name: np.asarray(column) for name, column in columns.items()},
        candidates=np.asarray(candidates) if is_known else None,
    )
    return facts if len(facts.users) else None


def learning_curves(connection: Connection, keys: Sequence[str]) -> list[CurvePoint]:
    """Return the epochs of the cells with these keys, in the order of their training."""
    rows = connection.execute(
        """
        WITH wanted AS (
            SELECT cell, key FROM cells WHERE key IN (SELECT unnest(?))
        ), parts AS (
            SELECT cell, stage, epoch, list({'name': name, 'value': value} ORDER BY losses.rowid) AS found
            FROM losses JOIN wanted USING (cell) GROUP BY cell, stage, epoch
        )
        SELECT key, epoch, loss, valid, stage, coalesce(found, [])
        FROM epochs JOIN wanted USING (cell) LEFT JOIN parts USING (cell, stage, epoch)
        ORDER BY key, epochs.rowid
        """,
        [list(keys)],
    ).fetchall()
    return [
        CurvePoint(key, epoch, loss, valid, stage, {part["name"]: part["value"] for part in found})
        for key, epoch, loss, valid, stage, found in rows
    ]


def datasets(connection: Connection, fingerprints: Collection[str]) -> dict[str, DatasetRow]:
    """Return the datasets with these fingerprints."""
    rows = connection.execute(
        f"SELECT {', '.join(columns_of(DatasetRow))} FROM datasets WHERE fingerprint IN (SELECT unnest(?))",
        [list(fingerprints)],
    ).fetchall()
    return {row[0]: DatasetRow(*row) for row in rows}


def run_datasets(connection: Connection, run: int) -> dict[str, RunDataset]:
    """Return what the datasets of a run were made of, by label; runs of older versions recorded nothing."""
    *columns, _, _ = columns_of(RunDataset)
    rows = connection.execute(
        f"SELECT dataset, source, files, {', '.join(columns)} FROM run_datasets WHERE run = ?", [run]
    ).fetchall()
    return {
        label: RunDataset(**dict(zip(columns, facts, strict=True)), source=json.loads(source), files=json.loads(files))
        for label, source, files, *facts in rows
    }


def split_statistics(connection: Connection, fingerprint: str, split: str) -> SplitStatistics | None:
    """Return the statistics of a dataset's split; None if the store has none."""
    row = connection.execute(
        f"SELECT {', '.join(columns_of(SplitStatistics))} FROM splits WHERE fingerprint = ? AND split = ?",
        [fingerprint, split],
    ).fetchone()
    return SplitStatistics(*row) if row else None


def environments(connection: Connection, names: Collection[str]) -> dict[str, Environment]:
    """Return the environments with these names."""
    rows = connection.execute(
        f"SELECT environment, {', '.join(columns_of(Environment))} FROM environments"
        " WHERE environment IN (SELECT unnest(?)) ORDER BY environment",
        [list(names)],
    ).fetchall()
    return {row[0]: Environment(*row[1:]) for row in rows}


@dataclass(frozen=True)
class QueryResult:
    """Rows of a free query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    """Numbers, truth values, lists and dictionaries as Python has them; anything else as DuckDB writes it."""
    cut: bool
    """Whether there are more rows."""


def free_query(connection: Connection, sql: str, most: int) -> QueryResult:
    """Run one statement of user-written SQL, which can reach only the store; return its first `most` rows.

    Times with a zone are shown in UTC.

    Raises:
        StoreError: there is no statement, or more than one, or DuckDB refuses it.
    """
    try:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(_one_statement(connection, sql))
        if found is None:  # a statement that gives no table
            return QueryResult((), (), cut=False)
        columns, types = tuple(found.columns), [str(kind) for kind in found.types]
        nested = [kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")) for kind in types]
        if not all(_is_plain(kind) for kind in types):
            found = found.project(
                ", ".join(
                    f"#{i}" if _is_plain(kind) else f"to_json(#{i})::VARCHAR" if inner else f"#{i}::VARCHAR"
                    for i, (kind, inner) in enumerate(zip(types, nested, strict=True), start=1)
                )
            )
        rows = found.limit(most + 1).fetchall()
    except duckdb.Error as error:
        raise StoreError(f"the query failed: {_explained(error)}") from None
    return QueryResult(
        columns,
        tuple(
            tuple(
                json.loads(value) if inner and value is not None else value
                for value, inner in zip(row, nested, strict=True)
            )
            for row in rows[:most]
        ),
        cut=len(rows) > most,
    )


def _is_plain(kind: str) -> bool:
    """Return whether Python has the values of a DuckDB type as numbers, truth values or text."""
    return kind in _PLAIN or (kind.startswith("DECIMAL(") and kind.endswith(")"))


_PLAIN = {
    *("BOOLEAN", "VARCHAR", "FLOAT", "DOUBLE"),
    *(sign + kind for sign in ("", "U") for kind in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")),
}


def _one_statement(connection: Connection, sql: str) -> str:
    """Return the only statement in `sql`, without the semicolon at its end.

    Raises:
        StoreError: there is none, or more than one.
    """
    for end in (match.start() for match in re.finditer(";", sql)):
        try:
            here, after = (len(connection.extract_statements(part)) for part in (sql[:end], sql[end + 1 :]))
        except duckdb.Error:  # the semicolon is part of a text or a comment, or there is a mistake that is found later
            continue
        if here and after:
            raise StoreError("the query has more than one statement; give one at a time")
        if here:
            return sql[:end]
    if not connection.extract_statements(sql):
        raise StoreError('the query is empty; give a statement, for example "SELECT * FROM metrics"')
    return sql


def _explained(error: duckdb.Error) -> str:
    """Return DuckDB's message and suggestions in one line, without the excerpt that marks the place."""
    text = re.split(r"\n\s*\n?LINE \d+:|\n\s*Candidate functions:", str(error))[0]
    return " ".join(text.split())
