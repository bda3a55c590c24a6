"""The origin of every number, and warnings where numbers of one table differ in origin."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields

from ipsrec_bench.report.comparisons import smallest_adjusted_p
from ipsrec_bench.report.content import CellLine, Comparison, CutOff, DatasetLine, Row
from ipsrec_bench.report.results import row_of
from ipsrec_bench.report.runs import Run
from ipsrec_bench.store.queries import Basis, CellSummary
from ipsrec_bench.store.records import EXTERNAL, Environment, PlannedCell
from ipsrec_bench.suite.schema import OF_RANKING

SHOWN = 3
"""Maximum number of cells that a warning names for each value."""


def cell_lines(run: Run, summaries: Mapping[str, CellSummary], numbers: Mapping[str, int]) -> Iterator[CellLine]:
    """Yield a line for every complete cell; `numbers` are those of the environments in the report's list."""
    seen = set()
    for cell in run.cells:
        summary = summaries.get(cell.key)
        place = (cell.dataset, cell.label, cell.key)
        if summary is not None and summary.status == "complete" and place not in seen:
            seen.add(place)
            yield CellLine(
                cell.dataset,
                row_of(cell),
                None if summary.deterministic else cell.seed,
                cell.key,
                summary.fingerprint,
                numbers[summary.environment],
                summary.seconds,
                summary.peak_memory,
            )


def cut_off_rows(run: Run, summaries: Mapping[str, CellSummary]) -> Iterator[CutOff]:
    """Yield every row with a training that was still improving when its last allowed epoch ended.

    Rows with a control and under further protocols are among them, on the dataset that names the condition. A training
    whose model is ranked under several protocols counts for the first of them.
    """
    trained: dict[tuple[str, Row], dict[str, CellSummary]] = defaultdict(dict)
    counted_for: dict[tuple[str, int, str, str], str] = {}
    for cell in (*run.cells, *run.further):
        if cell.key in summaries and summaries[cell.key].status == "complete":
            found = summaries[cell.key]
            training = (found.fingerprint, cell.seed, cell.label, _training_of(found))
            if counted_for.setdefault(training, cell.dataset) == cell.dataset:
                trained[cell.dataset, row_of(cell)][cell.key] = found
    for (dataset, row), cells in trained.items():
        epochs = [cell.best_epoch or 0 for cell in cells.values() if cell.cut_off]
        if epochs:
            yield CutOff(dataset, row, len(epochs), len(cells), max(epochs))


def _training_of(summary: CellSummary) -> str:
    """Return the settings of a cell that training depends on, as text; not those of the ranking."""
    settings = dict(summary.settings)
    protocol = settings.get("protocol", {})
    settings["protocol"] = {name: value for name, value in protocol.items() if name not in OF_RANKING}
    return json.dumps(settings, sort_keys=True)


def left_out(run: Run, bases: Mapping[str, Basis]) -> Iterator[str]:
    """Yield a sentence for every cell that is left out.

    Such a cell ranks other targets than the tables do, or was imported under the name of a row of the suite.
    """
    beside = {cell.dataset: bases[cell.key] for cell in run.cells if cell.key in bases}
    own = {cell.label for cell in (*run.cells, *run.stale) if cell.type != EXTERNAL}
    for cell in run.stale:
        if cell.type == EXTERNAL and cell.label in own:
            yield (
                f"{cell.display} on {cell.dataset}, seed {cell.seed}, was imported, but the suite now has a row"
                f" '{cell.label}': the import is left out; import it under another name"
            )
            continue
        words, remedy = stale(cell, bases[cell.key], beside[cell.dataset])
        yield f"{words} and is left out; {remedy}"


def of_other_users(cell: PlannedCell) -> str:
    """Return the sentence on a cell that is left out because it ranks other users than the first of its dataset."""
    remedy = "import it again" if cell.type == EXTERNAL else "run the suite again with --force"
    return (
        f"{cell.display} on {cell.dataset}, seed {cell.seed}, ranks different users than the cells beside it and is"
        f" left out; {remedy}"
    )


def stale(cell: PlannedCell, its: Basis, wanted: Basis) -> tuple[str, str]:
    """Return a clause that says how the basis of `cell` differs from the wanted one, and the remedy."""
    name = f"{cell.display} on {cell.dataset}, seed {cell.seed}"
    other = " and another ".join(its.differences(wanted))
    if cell.type == EXTERNAL:
        return f"{name}, was imported for another {other}", "import it again"
    return f"{name}, was run with another {other}", "run the suite again with --force"


def not_taken(run: Run) -> Iterator[str]:
    """Yield a sentence if the suite was stored with settings that this version of the toolkit does not accept."""
    if run.not_taken:
        yield (
            "The suite was stored by another version of ipsrec-bench. This one does not accept these of its settings"
            f" and shows its defaults instead: {'; '.join(run.not_taken)}"
        )


def too_few_resamples(run: Run, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Yield a sentence if random sign flips are too few to reject anything in the largest family."""
    statistics = run.suite.statistics
    largest = max((c.family for c in comparisons), default=0)
    least = smallest_adjusted_p(statistics, largest)
    if least >= statistics.alpha:
        lowest = f"an adjusted p below {least:.4f} in a family of {largest}"
        lowest = lowest if largest > 1 else f"a p below {least:.4f}"
        yield (
            f"{statistics.resamples:,} sign flips cannot give {lowest}, so nothing can be significant at"
            f" {statistics.alpha:g}; set statistics.resamples to"
            f" {round(2 * largest / statistics.alpha):,} or more"
        )


def warnings(
    run: Run,
    summaries: Mapping[str, CellSummary],
    environments: Mapping[str, Environment],
    datasets: Iterable[DatasetLine],
) -> Iterator[str]:
    """Yield a sentence for every difference between cells of one table that should be alike."""
    cells = [cell for cell in run.cells if cell.key in summaries and summaries[cell.key].status == "complete"]
    trained = [cell for cell in cells if cell.type != EXTERNAL]
    for field in fields(Environment):
        places: dict[str, list[str]] = defaultdict(list)
        for cell in trained:
            value = str(getattr(environments[summaries[cell.key].environment], field.name))
            places[value].append(f"{cell.display} on {cell.dataset}, seed {cell.seed}")
        if len(places) > 1:
            yield f"{NAMES.get(field.name, field.name)} differs between cells: {_listed(places)}"
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        versions: dict[str, list[str]] = defaultdict(list)
        for cell in cells:
            if cell.dataset == dataset:
                versions[summaries[cell.key].fingerprint[:12]].append(f"{cell.display}, seed {cell.seed}")
        if len(versions) > 1:
            yield f"the data of {dataset} differ between cells: fingerprint {_listed(versions)}"
    items = {line.label: line.statistics.items for line in datasets}
    for cell in cells:
        depth = summaries[cell.key].depth
        if depth is not None:
            yield (
                f"{cell.display} on {cell.dataset}, seed {cell.seed}, was imported as lists; the shortest has {depth}"
                f" items. Lists are assumed to be the top of all {items[cell.dataset]:,}: ranks are too good if only a"
                f" selection was ranked, and values at cutoffs above {depth} are lower bounds"
            )


NAMES = {
    "package": "the version of ipsrec-bench",
    "revision": "the revision of ipsrec-bench",
    "cores": "number of cores",
}


def _listed(places: Mapping[str, list[str]]) -> str:
    parts = []
    for value, where in sorted(places.items(), key=lambda item: -len(item[1])):
        rest = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
        parts.append(f"{value or 'none'} ({'; '.join(where[:SHOWN])}{rest})")
    return ", ".join(parts)
