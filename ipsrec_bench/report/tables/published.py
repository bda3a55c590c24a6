"""What papers printed, and ours beside it."""

import math
from collections.abc import Callable, Iterator, Sequence

from ipsrec_bench.report.content import (
    AgainstPaper,
    PublishedLine,
    Report,
)
from ipsrec_bench.report.sentences import between, percent, signed
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    change,
    count,
    exact,
    number,
    rows_of,
    text,
)
from ipsrec_bench.report.tables.results import ablation_table, result_tables
from ipsrec_bench.report.tables.shared import (
    TIMES,
    interval_of,
    metric_name,
    model_cell,
)
from ipsrec_bench.stats.effect import Estimate

INSIDE = {True: "inside our interval", False: "outside our interval", None: "unknown (no interval)"}


def published(report: Report, against: AgainstPaper, place: int) -> Iterator[Table]:
    """Yield the tables of a paper: ours beside it, and its own as printed."""
    paper, tail = against.paper, f"-{place}" if place > 1 else ""
    section = f"published{tail}"
    yield _beside_paper(report, against.lines, f"published{tail}", f"Ours beside {paper.short}", section)
    yield _effects(report, against, f"effects{tail}", section)
    columns: list[Column] = [Column("Dataset", lambda line: text(line[0]), "left")]
    headings = ("#Users", "#Items", "#I-Actions", "#Providers", "#P-Actions")
    columns += [Column(heading, _nth(place)) for place, heading in enumerate(headings)]
    name = f"Table {{}} of {paper.short}, as printed"
    printed = f"printed{tail}"
    yield Table(
        f"paper-datasets{tail}", printed, name.format(1), tuple(columns), rows_of(columns, paper.datasets),
        collapse="never", sortable=False,
    )  # fmt: skip
    yield from result_tables(
        paper.results, f"paper-results{tail}", name.format(2), "", f"papers{tail}", section=printed
    )
    if paper.ablation is not None:
        yield ablation_table(paper.ablation, f"paper-ablation{tail}", name.format(3), "", f"papers{tail}", printed)


def _nth(place: int) -> Callable[[tuple[str, Sequence[int | None]]], Cell]:
    return lambda line: count(line[1][place])


def _beside_paper(report: Report, lines: Sequence[PublishedLine], name: str, caption: str, section: str) -> Table:
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Metric", lambda line: text(metric_name(line.metric)), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column("Published", lambda line: number(line.theirs)),
        Column("Ours", _ours, below=f"{interval_of(report)} of ours"),
        Column("Difference", lambda line: change(line.difference)),
        Column("Published value is", lambda line: text(INSIDE[line.inside]), "left"),
        Column(
            "Width / gain",
            lambda line: number(line.width, ".1f"),
            explained="width of our interval over the largest gain that the paper prints for this dataset and metric",
        ),
    )
    note = (
        f"Our interval: prediction interval for one more training of ours on the same users (mean ± t {TIMES} standard"
        f" deviation over seeds {TIMES} √(1 + 1 / seeds)). The listed differences may explain a published value outside"
        " it. Width / gain: of our interval, over the largest gain that the paper prints for this dataset and metric;"
        " where it is not far below 1, a value inside confirms little. Few seeds make wide intervals."
    )
    rows = rows_of(columns, lines, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
    return Table(name, section, caption, columns, rows, note, lines="published values", latex=name)


def _effects(report: Report, against: AgainstPaper, name: str, section: str) -> Table:
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Metric", lambda line: text(metric_name(line.metric)), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column("Baseline", lambda line: text(line.reference.display), "left"),
        Column("Published difference", lambda line: change(line.published)),
        Column("Ours", lambda line: change(line.ours.value, _ends(line.ours, signed)), below=interval_of(report)),
        Column(
            "Effect ratio",
            lambda line: _estimate(line.ratio, "{:.2f}".format),
            below="its interval",
            explained="our difference over the published one",
        ),
        Column(
            "Gap of gains",
            lambda line: _estimate(line.gap, percent),
            below="its interval ",
            explained="published relative improvement minus ours",
        ),
    )
    note = (
        "Does the paper's improvement come out here (Breuer et al., 2020)? Baseline: the paper's best one, of those"
        " that this run has. Effect ratio: 1 if ours is as large, 0 if there is none. Gap: above 0 if ours is smaller."
        f" Intervals: ours ({report.interval_rule}; of gains, Fieller's over users) and the rounding of the printed"
        " values."
    )
    rows = rows_of(columns, against.effects, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
    caption = f"Improvements of {against.paper.short}, and ours"
    return Table(name, section, caption, columns, rows, note, lines="improvements", latex=name)


def _estimate(value: Estimate | None, shown: Callable[[float], str]) -> Cell:
    if value is None:
        return Cell(NONE, value="")
    return Cell(shown(value.value), "", _ends(value, shown), exact(value.value))


def _ends(value: Estimate, shown: Callable[[float], str]) -> str:
    if math.isnan(value.low) or math.isnan(value.high):
        return NONE
    return "unbounded" if math.isinf(value.low) or math.isinf(value.high) else between(value.low, value.high, shown)


def _ours(line: PublishedLine) -> Cell:
    if line.low is None or line.high is None:
        return Cell(f"{line.ours:.4f}", "", NONE, exact(line.ours))
    return Cell(f"{line.ours:.4f}", "", f"{line.low:.4f} to {line.high:.4f}", exact(line.ours))
