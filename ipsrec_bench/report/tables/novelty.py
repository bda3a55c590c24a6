"""New and repeated targets."""

from collections.abc import Callable

from ipsrec_bench.report.content import NoveltyLine, Report
from ipsrec_bench.report.table import Cell, Column, Table, number, rows_of, text
from ipsrec_bench.report.tables.shared import metric_name, model_cell

_PARTS = ("All", "New provider", "Repeated provider", "Repeated item")


def _mean(place: int) -> Callable[[NoveltyLine], Cell]:
    return lambda line: number(line.means[place])


def novelty(report: Report) -> Table:
    """Return the table of every model on new and on repeated targets."""
    columns = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        *(Column(name, _mean(place)) for place, name in enumerate(_PARTS)),
    )
    users = {line.dataset: line.users for line in report.novelty}
    counts = "; ".join(
        f"{dataset}: " + ", ".join(f"{name.lower()} {number:,}" for name, number in zip(_PARTS, numbers, strict=True))
        for dataset, numbers in users.items()
    )
    note = (
        f"{metric_name(report.metric)}, mean over seeds and the users of each column. Repeated: the user's history has"
        f" the target's provider, or the target itself. New: the provider is known and not in the history. Users:"
        f" {counts}."
    )
    caption = f"{metric_name(report.metric)} on new and on repeated targets"
    rows = rows_of(columns, report.novelty, dataset=lambda line: line.dataset)
    return Table("novelty", "slices", caption, columns, rows, note, latex="novelty")
