"""Where every number comes from, and a warning where numbers of one table come from different places."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields

from ipsrec_bench.report.content import CellLine
from ipsrec_bench.report.results import row_of
from ipsrec_bench.store.queries import CellSummary, Run
from ipsrec_bench.store.records import Environment

SHOWN = 3
"""Rows that are named in a warning."""


def cell_lines(run: Run, summaries: Mapping[str, CellSummary], numbers: Mapping[str, int]) -> Iterator[CellLine]:
    """Yield a line for every complete cell; `numbers` are those of the environments in the report's list."""
    for cell in run.cells:
        summary = summaries.get(cell.key)
        if summary is not None and summary.status == "complete":
            yield CellLine(
                cell.dataset,
                row_of(cell),
                cell.seed,
                cell.key,
                summary.fingerprint,
                numbers[summary.environment],
                summary.seconds,
                summary.peak_memory,
            )


def warnings(run: Run, summaries: Mapping[str, CellSummary], environments: Mapping[str, Environment]) -> Iterator[str]:
    """Yield a sentence for everything in which cells differ that stand in one table as if they were alike."""
    cells = [cell for cell in run.cells if cell.key in summaries and summaries[cell.key].status == "complete"]
    trained = [cell for cell in cells if cell.type != "external"]
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
    for cell in cells:
        depth = summaries[cell.key].depth
        deepest = max(run.suite.protocol.cutoffs)
        if depth is not None and depth < deepest:
            yield (
                f"{cell.display} on {cell.dataset}, seed {cell.seed}, was imported as lists of which the shortest has"
                f" {depth} items: its values at cutoffs above {depth} are lower bounds"
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
