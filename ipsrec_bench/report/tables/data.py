"""Data, cost, protocol and provenance."""

from collections.abc import Callable

from ipsrec_bench.report.content import (
    CellLine,
    CostLine,
    DatasetLine,
    Report,
)
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    count,
    mebibytes,
    number,
    rows_of,
    seconds,
    share,
    text,
)
from ipsrec_bench.report.tables.shared import (
    metric_name,
    model_cell,
)
from ipsrec_bench.store.records import DatasetRow
from ipsrec_bench.words import joined


def datasets(report: Report) -> Table:
    """Return the table of the datasets."""

    def of(make: Callable[[DatasetRow], Cell]) -> Callable[[DatasetLine], Cell]:
        return lambda line: make(line.statistics)

    def of_split(name: str) -> Callable[[DatasetLine], Cell]:
        return lambda line: share(getattr(line.split, name) if line.split else None)

    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.label), "left"),
        Column("#Users", of(lambda s: count(s.users))),
        Column("#Items", of(lambda s: count(s.items))),
        Column("#I-Actions", of(lambda s: count(s.actions))),
        Column("#Providers", of(lambda s: count(s.providers))),
        Column("#P-Actions", of(lambda s: count(s.known_provider_actions))),
        Column("Test users", lambda line: text(line.tested)),
        Column("Mean length", of(lambda s: number(s.mean_length, ".1f")), latex=False),
        Column("Repeat share", of(lambda s: share(s.repeat_share))),
        Column("Stickiness", of(lambda s: share(s.stickiness))),
        Column("Shuffled", of(lambda s: share(s.shuffled_stickiness)), folded=True, latex=False),
        Column("Validation users", lambda line: text(line.validated if line.split else NONE), folded=True, latex=False),
        Column("Tied targets", of_split("tied_targets"), folded=True),
        Column("Leaked targets", of_split("leaked_targets"), folded=True),
        Column("Repeated targets", of_split("repeated_targets"), folded=True),
        Column("Unseen targets", of_split("unseen_targets"), folded=True),
        Column("Unknown users", lambda line: count(line.split.unknown_users if line.split else None), folded=True),
    )
    note = (
        "#P-Actions counts interactions with a known provider. Stickiness: share of neighbouring, different items with"
        " the same known provider; shuffled: its expected value after a shuffle of each user's order. Test users and"
        f" targets: {report.targets_of}; {NONE} where the store has no record. Tied targets: those with the time of the"
        " interaction before them, so the order of equal times decides. Leaked: those older than the newest training"
        " interaction, so the model may know what others did later. Repeated: those with an item of the user's"
        " history. Unseen: those with an item that no training interaction has. Unknown users: test users without a"
        " training interaction. Padding ids are not counted."
    )
    without = [line.label for line in report.datasets if not line.statistics.providers]
    if without:
        note += (
            f" {joined(without)}: no provider is known, so models that use providers see one unknown provider for all"
            " interactions."
        )
    rows = rows_of(columns, report.datasets, dataset=lambda line: line.label)
    return Table("datasets", "datasets", "Datasets", columns, rows, note, "datasets", sortable=False, latex="datasets")


def costs(report: Report) -> Table:
    """Return the table of what rows cost."""
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column(metric_name(report.metric), lambda line: number(line.value)),
        Column("Parameters", lambda line: count(line.parameters)),
        Column("Training", lambda line: seconds(line.train_seconds)),
        Column("Whole cell", lambda line: seconds(line.seconds)),
        Column("Peak memory", lambda line: mebibytes(line.peak_memory)),
        Column("Best epochs", _best_epochs),
    )
    note = "Times are means over seeds; memory is the largest resident size of the process while the cell ran."
    rows = rows_of(columns, report.costs, dataset=lambda line: line.dataset)
    return Table("cost", "cost", "Cost", columns, rows, note, "models", latex="cost")


def _best_epochs(line: CostLine) -> Cell:
    return text(", ".join(map(str, line.best_epochs)) or NONE)


def protocol(report: Report) -> Table:
    """Return the table of the protocol."""
    columns = (
        Column("Setting", lambda line: text(line[0]), "left"),
        Column("Value", lambda line: text(line[1]), "left", long=True),
    )
    return Table(
        "protocol", "protocol", "Protocol and data", columns, rows_of(columns, report.protocol), "", "settings",
        "never", sortable=False, latex="protocol", page=20,
    )  # fmt: skip


def settings(report: Report) -> Table:
    """Return the table of the models' settings."""
    columns: tuple[Column, ...] = (
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column("Settings", lambda line: text(line.settings or "nothing to set"), "left", long=True),
    )
    if any(line.dataset for line in report.settings):
        columns = (columns[0], Column("Dataset", lambda line: text(line.dataset or "all"), "left"), columns[1])
    rows = rows_of(columns, report.settings, dataset=lambda line: line.dataset)
    return Table(
        "settings", "protocol", "Settings of the models", columns, rows, lines="models",
        collapse="always", sortable=False,
    )  # fmt: skip


def provenance(report: Report) -> Table:
    """Return the table of the cells."""
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: text(line.row.display), "left"),
        Column("Seed", _seed),
        Column("Key", lambda line: text(line.key), "left", code=True),
        Column("Fingerprint of the data", lambda line: text(line.fingerprint[:16]), "left", code=True),
        Column("Environment", lambda line: count(line.environment)),
        Column("Time", lambda line: seconds(line.seconds)),
        Column("Peak memory", lambda line: mebibytes(line.peak_memory)),
    )
    rows = rows_of(columns, report.provenance, dataset=lambda line: line.dataset)
    return Table("cells", "provenance", "Cells", columns, rows, lines="cells", collapse="always")


def _seed(line: CellLine) -> Cell:
    return text("all" if line.seed is None else line.seed)
