"""What the browser reads: each function opens the store for a moment, so that a running suite can write.

They block for as long as another process writes, and belong in a thread. Each raises a `BenchError` where the store is
missing, locked or damaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.errors import MissingStoreError
from ipsrec_bench.events import RunOpened
from ipsrec_bench.report.runs import Run, read_run
from ipsrec_bench.run.journal import header, is_live, journals
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import CellSummary, CurvePoint, RunSummary
from ipsrec_bench.suite.schema import Statistics

if TYPE_CHECKING:
    from ipsrec_bench.report.content import Comparison, Report

PATIENCE_SECONDS = 2.0
"""How long a store that another process has open is waited for."""


@dataclass(frozen=True)
class SuiteLine:
    """A suite of the store, or one whose first run is going on."""

    suite: str
    started: datetime | None
    cells: int
    complete: int
    failed: int
    live: bool


@dataclass(frozen=True)
class JournalLine:
    """The journal of a run."""

    path: Path
    opened: RunOpened
    live: bool


@dataclass(frozen=True)
class SuitePage:
    """A run of a suite, and what the store has of its cells."""

    run: Run
    metric: str
    """The suite's main metric, like `ndcg@10`."""
    newest: bool
    """Whether it is the newest run of the suite."""
    summaries: Mapping[str, CellSummary]
    values: Mapping[str, float]
    """The metric of complete cells by key."""
    curves: Mapping[str, tuple[CurvePoint, ...]]
    """Epochs by key, in order."""
    runs: tuple[RunSummary, ...]


def read_suites(store: Path) -> list[SuiteLine]:
    """Return the suites of a store, newest first; those that only a live run knows stand before them."""
    live = {line.opened.suite for line in read_journals(store) if line.live}
    try:
        with reading(store, PATIENCE_SECONDS) as connection:
            found = queries.suite_summaries(connection)
    except MissingStoreError:
        if not live:
            raise
        found = []
    known = {one.suite for one in found}
    return [
        *(SuiteLine(name, None, 0, 0, 0, live=True) for name in sorted(live - known)),
        *(SuiteLine(one.suite, one.started, one.cells, one.complete, one.failed, one.suite in live) for one in found),
    ]


def read_journals(store: Path, suite: str | None = None) -> list[JournalLine]:
    """Return the journals of a store's runs, or of one suite's, newest first; the store itself is not opened."""
    found = []
    for path in reversed(journals(store)):
        opened = header(path)
        if opened is not None and suite in {None, opened.suite}:
            found.append(JournalLine(path, opened, is_live(path)))
    return found


def read_suite(store: Path, suite: str, number: int | None) -> SuitePage:
    """Return the run of this number, or the newest run of the suite."""
    with reading(store, PATIENCE_SECONDS) as connection:
        run = read_run(connection, suite, number)
        keys = list(dict.fromkeys(cell.key for cell in run.cells))
        metric = run.suite.main_metric
        runs = queries.run_summaries(connection, suite)
        values = queries.metrics_of(connection, keys, [metric], run.suite.protocol.ties)
        summaries = queries.cell_summaries(connection, keys)
        points = queries.learning_curves(connection, keys)
    curves: dict[str, list[CurvePoint]] = {}
    for point in points:
        curves.setdefault(point.key, []).append(point)
    return SuitePage(
        run,
        metric,
        runs[0].run == run.run,
        summaries,
        {key: metrics[metric] for key, (metrics, _) in values.items()},
        {key: tuple(of_cell) for key, of_cell in curves.items()},
        tuple(runs),
    )


def read_content(store: Path, suite: str, number: int) -> "Report":
    """Return what a report on a run says, without tuning studies."""
    from ipsrec_bench.report.build import build_report  # the statistics take long to import
    from ipsrec_bench.report.material import read_material

    with reading(store, PATIENCE_SECONDS) as connection:
        material = read_material(connection, read_run(connection, suite, number))
    return build_report(material)


def read_comparison(
    store: Path, suite: str, number: int | None, a: str, b: str
) -> "tuple[list[Comparison], Statistics]":
    """Compare what two names mean, as `ipsrec-bench compare` does, with the statistics of a run."""
    from ipsrec_bench.report.selections import compare_named, read_named

    with reading(store, PATIENCE_SECONDS) as connection:
        run = read_run(connection, suite, number)
        named = read_named(connection, run, a, b)
    return compare_named(named), run.suite.statistics
