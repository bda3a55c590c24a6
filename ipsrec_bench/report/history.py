"""The runs of a suite so far: what each changed, and what the rows of the tables were then."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ipsrec_bench.report.content import History, PastRun, Row
from ipsrec_bench.report.results import row_of
from ipsrec_bench.report.runs import Run
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import Connection

WORDS = {"name", "title", "description"}
"""Keys of a suite that change no number."""


def history_of(connection: Connection, run: Run) -> History:
    """Return all runs of a run's suite, newest first, with their values of the report's metric on the test targets.

    A run's values are of the cells that it planned, as the store has them now. A cell that failed then and was
    repeated later counts as complete.
    """
    name = run.suite.main_metric
    means: dict[str, float] = {}
    versions = queries.run_versions(connection, run.suite_name)
    past: list[PastRun] = []
    before: dict[str, str] | None = None
    for summary in reversed(queries.run_summaries(connection, run.suite_name)):
        stored = queries.find_run(connection, run.suite_name, summary.run)
        for cell in stored.cells:
            if cell.key not in means:  # one cell's ranks at a time: all of a long history would not fit in memory
                ranks = queries.test_ranks(connection, [cell.key], run.suite.protocol.ties)
                means |= {key: float(found.metric(name).mean()) for key, found in ranks.items()}
        by_row: dict[tuple[str, Row], dict[int, float]] = {}
        for cell in stored.cells:
            if cell.key in means:
                by_row.setdefault((cell.dataset, row_of(cell)), {})[cell.seed] = means[cell.key]
        settings = dict(_flat(json.loads(stored.settings)))
        past.append(
            PastRun(
                summary.run,
                summary.started,
                versions.get(summary.run, ()),
                summary.cells,
                summary.complete,
                summary.failed,
                None if before is None else tuple(_changes(before, settings)),
                {place: sum(values.values()) / len(values) for place, values in by_row.items()},
            )
        )
        before = settings
    return History(name, tuple(reversed(past)))


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting of a suite by its key, like `training.epochs`, as JSON."""
    for key, part in value.items():
        if isinstance(part, Mapping) and part:
            yield from _flat(part, f"{path}{key}.")
        elif path or key not in WORDS:
            yield f"{path}{key}", json.dumps(part, ensure_ascii=False)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """Yield a clause for every setting that differs, like `training.epochs: 20, before 10`."""
    for key in dict.fromkeys([*after, *before]):
        if key not in after:
            yield f"{key}: left out, before {before[key]}"
        elif key not in before:
            yield f"{key}: {after[key]}, new"
        elif before[key] != after[key]:
            yield f"{key}: {after[key]}, before {before[key]}"
