"""What papers printed, and ours beside it."""

from collections.abc import Callable, Iterator, Sequence

from ipsrec_bench.report.content import (
    AgainstPaper,
    PublishedLine,
    Report,
)
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
)

INSIDE = {True: "inside our interval", False: "outside our interval", None: "unknown (no interval)"}


def published(report: Report, against: AgainstPaper, place: int) -> Iterator[Table]:
    """Yield the tables of a paper: ours beside it, and its own as printed."""
    paper, tail = against.paper, f"-{place}" if place > 1 else ""
    section = f"published{tail}"
    yield _beside_paper(report, against.lines, f"published{tail}", f"Ours beside {paper.short}", section)
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
        Column("Model", lambda line: text(line.row.display), "left"),
        Column("Published", lambda line: number(line.theirs)),
        Column("Ours", _ours, below=f"{interval_of(report)} of ours"),
        Column("Difference", lambda line: change(line.difference)),
        Column("Published value is", lambda line: text(INSIDE[line.inside]), "left"),
    )
    note = (
        f"Our interval: prediction interval for one more training of ours on the same users (mean ± t {TIMES} standard"
        f" deviation over seeds {TIMES} √(1 + 1 / seeds)). The listed differences may explain a published value outside"
        " of it."
    )
    rows = rows_of(columns, lines, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
    return Table(name, section, caption, columns, rows, note, lines="published values", latex=name)


def _ours(line: PublishedLine) -> Cell:
    if line.low is None or line.high is None:
        return Cell(f"{line.ours:.4f}", "", NONE, exact(line.ours))
    return Cell(f"{line.ours:.4f}", "", f"{line.low:.4f} to {line.high:.4f}", exact(line.ours))
