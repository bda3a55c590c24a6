"""What each row was given."""

from ipsrec_bench.report.content import FairnessLine, Report
from ipsrec_bench.report.table import NONE, Cell, Column, Table, count, number, rows_of, share, text


def fairness(report: Report) -> Table:
    """Return the table of what each row was given."""
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: text(line.row.display), "left"),
        Column("Settings", lambda line: text(line.row.tuning or "not known"), "left"),
        Column("Complete", lambda line: count(line.complete), explained="trials that were trained to their end"),
        Column("Pruned", lambda line: count(line.pruned), explained="trials that were stopped early"),
        Column("Failed", lambda line: count(line.failed), explained="settings given up", folded=True, latex=False),
        Column("Search", lambda line: number(line.search_seconds, ",.0f", " s"), explained="training of all trials"),
        Column("Settings searched", lambda line: count(line.searched)),
        Column("Space seen", lambda line: share(line.seen)),
        Column("Training", lambda line: number(line.train_seconds, ",.1f", " s")),
        Column("Epochs", lambda line: count(line.epochs), explained="that a training may take"),
        Column("Best epochs", _best_epochs),
        Column("Still improving", _rising, folded=True),
    )
    note = (
        "Space seen: for each searched setting, the share of its listed values, or of ten equal parts of its range,"
        " that at least one trial has; then the mean over the settings. Training: mean over seeds. Still improving:"
        " trainings whose best epoch was the last that they were allowed."
    )
    rows = rows_of(columns, report.fairness.lines, dataset=lambda line: line.dataset)
    return Table("fairness", "fairness", "What each row was given", columns, rows, note, latex="fairness")


def _best_epochs(line: FairnessLine) -> Cell:
    return text(", ".join(map(str, line.best_epochs)) or NONE)


def _rising(line: FairnessLine) -> Cell:
    return text(f"{line.rising} of {len(line.best_epochs)}" if line.best_epochs else NONE)
