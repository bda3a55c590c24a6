"""What provider information brings: each row beside its twin, which was trained on data with other providers.

A twin has the same users, items, times and targets as its row, and the same seeds. The difference between the two is
therefore what the providers say; what a twin has over the baseline comes from something else, such as more weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ipsrec_bench.report.comparisons import Pair, compare
from ipsrec_bench.report.content import Comparison, Row
from ipsrec_bench.report.results import Results, row_of
from ipsrec_bench.report.runs import Run
from ipsrec_bench.store.queries import CellSummary, TestRanks
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.cells import TUNED


@dataclass(frozen=True)
class Controls:
    """The comparisons with twins."""

    comparisons: tuple[Comparison, ...] = ()
    """Each row against its twin, per dataset, control and metric."""
    gains: tuple[Comparison, ...] = ()
    """Each twin against the baseline of its row."""
    left_out: tuple[str, ...] = ()
    """A sentence for each twin that cannot be compared."""


def twins_of(run: Run) -> tuple[PlannedCell, ...]:
    """Return the cells of `run` that are trained on changed providers, under the suite's main protocol."""
    return tuple(cell for cell in run.further if cell.control and not cell.protocol)


def compare_controls(results: Results, ranks: dict[str, TestRanks], summaries: Mapping[str, CellSummary]) -> Controls:
    """Compare each row of the main tables with its twins, on the report's metric first.

    The comparisons of rows with twins are one set of families, those of twins with baselines another one.

    Args:
        results: of the main cells; it chooses the baselines.
        ranks: test ranks by key, those of twins included.
        summaries: likewise.
    """
    twins = twins_of(results.run)
    if not twins:
        return Controls()
    renamed = {twin: as_row(twin) for twin in twins}
    both = Results(replace(results.run, cells=(*results.run.cells, *renamed.values())), ranks, summaries)
    others = {cell.key for cell in both.unpaired()}
    left_out = tuple(
        f"{twin.display} on {twin.dataset}, seed {twin.seed}, ranks different users than the row that it controls and"
        " is left out; run the suite again with --force"
        for twin in twins
        if twin.key in others
    )
    kept = {twin: cell for twin, cell in renamed.items() if twin.key not in others}
    both = Results(replace(results.run, cells=(*results.run.cells, *kept.values())), ranks, summaries)
    rows = {row.label: row for row in results.rows}
    pairs = list(
        dict.fromkeys((twin.base, rows[twin.label], row_of(cell)) for twin, cell in kept.items() if twin.label in rows)
    )
    metrics = sorted(results.run.suite.protocol.shown, key=lambda name: name != results.metric)
    return Controls(
        compare(both, (Pair(base, name, row, twin) for base, row, twin in pairs for name in metrics)),
        compare(
            both,
            (
                Pair(base, name, twin, reference)
                for base, row, twin in pairs
                for name in metrics
                if (reference := _baseline(results, base, name, row)) is not None
            ),
        ),
        left_out,
    )


def _baseline(results: Results, dataset: str, name: str, row: Row) -> Row | None:
    reference = results.reference(dataset, name, row)
    return None if reference == row else reference


def as_row(cell: PlannedCell) -> PlannedCell:
    """Return a cell with a control or under a further protocol as a row of its own on its base dataset.

    Its name ends with the condition, like `ipsrec-s, shuffled providers`. A tuned row stays tuned.
    """
    condition = cell.control or cell.protocol
    return replace(
        cell,
        dataset=cell.base,
        model=f"{cell.label}, {condition}",
        title=f"{cell.display}, {condition}",
        variant="",
        tuning=cell.tuning or (TUNED if cell.variant == TUNED else ""),
    )
