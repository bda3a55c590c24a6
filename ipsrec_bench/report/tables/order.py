"""The protocols side by side, the stability of the order of rows, and what sampled negatives would have said."""

from collections.abc import Iterator

from ipsrec_bench.report.content import (
    Agreement,
    OrderLine,
    ProtocolCell,
    ProtocolLine,
    ProtocolTable,
    Report,
    of_one_training,
)
from ipsrec_bench.report.table import NONE, Cell, Column, Table, exact, number, rows_of, share, text
from ipsrec_bench.report.tables.shared import metric_name, model_cell, percent_of
from ipsrec_bench.words import joined


def protocols(report: Report) -> Iterator[Table]:
    """Yield the table of the protocols side by side and that of the agreement of their orders, if there are several."""
    table = report.protocols
    if table is None:
        return
    columns: list[Column] = [
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        *(_of_protocol(place, name) for place, name in enumerate(table.protocols)),
    ]
    named = zip(table.protocols[1:], table.differences[1:], strict=True)
    changes = "; ".join(f"{name}: {changed}" for name, changed in named if changed)
    changes = f" What differs from the main protocol: {changes}." if changes else ""
    note = (
        f"{metric_name(table.metric)}, mean over seeds, and in brackets the rank among the rows.{changes} Where only"
        " the ranking differs, the same trained models are ranked again (with training.refit, they are trained again),"
        " and their best epochs are those of the protocol that they were trained under. A fold is an earlier test"
        f" period, in which later interactions do not exist.{_sizes(table)}"
    )
    yield Table(
        "protocols", "protocols", "Protocols side by side", tuple(columns),
        rows_of(columns, table.lines, dataset=lambda line: line.dataset), note, "models", latex="protocols",
    )  # fmt: skip
    orders: tuple[Column, ...] = (
        Column("Dataset", lambda order: text(order.dataset), "left", key=True),
        Column("Protocol", lambda order: text(order.protocol), "left"),
        Column("Kendall's tau-b", lambda order: number(order.tau, ".2f")),
        Column("Models", lambda order: text(order.rows)),
        Column("Best", lambda order: text(order.best.display if order.best else NONE), "left"),
        Column("Best, main", lambda order: text(order.main_best.display if order.main_best else NONE), "left"),
    )
    yield Table(
        "protocol-orders", "protocols", "Order of the models under each protocol and under the main one", orders,
        rows_of(orders, table.orders, dataset=lambda order: order.dataset),
        "All columns are about the models that have a result under both protocols. 1: the same order; 0: no relation;"
        " -1: the reverse order.", "orders", latex="protocols",
    )  # fmt: skip


def _sizes(table: ProtocolTable) -> str:
    """Return which protocols have values of another kind than the main one, after a space; empty if none has."""
    if not table.other:
        return ""
    all_others = len(table.other) == len(table.protocols) - 1
    which = "two protocols" if all_others else f"the main protocol and {joined(table.other)}"
    return f" Values of {which} are of other targets or candidates: compare their orders, not their sizes."


def _of_protocol(place: int, name: str) -> Column:
    def cell(line: ProtocolLine) -> Cell:
        found: ProtocolCell = line.cells[place]
        if found.score is None:
            return Cell(NONE, value="")
        tone = "best" if found.rank == 1 else ""
        return Cell(f"{found.score.mean:.4f}", f"({found.rank})", value=exact(found.score.mean), tone=tone)

    return Column(name, cell)


def order(report: Report) -> Iterator[Table]:
    """Yield the tables on the stability of the order of rows."""
    found = report.order
    if found is None:
        return
    interval = f"{percent_of(found.confidence)} interval"
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Rank", lambda line: text(line.rank)),
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column(metric_name(found.metric), lambda line: number(line.value)),
        Column("Ranks", _ranks, explained=f"{interval} of the rank"),
        Column("Above the next", lambda line: share(line.above)),
    )
    note = (
        f"{metric_name(found.metric)}. Ranks: {interval} of the rank, from {found.resamples:,} resamples of the users"
        " and, within each model, of its seeds; models whose intervals overlap may change places. Above the next: share"
        " of the resamples in which the model is above the one below it in this table."
        f"{of_one_training(line.row for line in found.lines if line.one_training)}"
    )
    yield Table(
        "order", "order", "How stable is the order", columns,
        rows_of(columns, found.lines, dataset=lambda line: line.dataset), note, "models", latex="order",
    )  # fmt: skip
    agreements: tuple[Column, ...] = (
        Column("Dataset", lambda one: text(one.dataset or "all"), "left", key=True),
        Column("Between", _between, "left"),
        Column("Kendall's tau-b", lambda one: number(one.tau, ".2f")),
        Column("Lowest", lambda one: number(one.lowest, ".2f")),
        Column("Models", lambda one: text(one.rows)),
    )
    yield Table(
        "agreement", "order", "Agreement of orders", agreements,
        rows_of(agreements, found.agreements, dataset=lambda one: one.dataset),
        f"Kendall's tau-b of the orders of the models by {metric_name(found.metric)}; of several pairs, the mean and"
        " the lowest. 1: the same order; 0: no relation; -1: the reverse order.", "pairs", latex="order",
    )  # fmt: skip


def _ranks(line: OrderLine) -> Cell:
    return Cell(str(line.low) if line.low == line.high else f"{line.low} to {line.high}", value=str(line.low))


def _between(one: Agreement) -> Cell:
    return text(one.between + (f", {one.pairs} pairs" if one.pairs > 1 else ""))


def sampled(report: Report) -> Iterator[Table]:
    """Yield the table of what sampled negatives would have said."""
    found = report.sampled
    if found is None or not found.lines:
        return
    columns: tuple[Column, ...] = (
        Column("Dataset", lambda line: text(line.dataset), "left", key=True),
        Column("Model", lambda line: model_cell(line.row), "left"),
        Column("All candidates", lambda line: _value(line.full, line.full_rank)),
        Column(f"{found.draws} sampled", lambda line: _value(line.sampled, line.sampled_rank)),
    )
    taus = ", ".join(f"{tau:.2f} on {dataset}" for dataset, tau in found.taus)
    note = (
        f"{metric_name(found.metric)}, and in brackets the rank among the models. Sampled: the expected value if each"
        f" target were ranked among {found.draws} negatives, drawn uniformly without replacement, in closed form"
        " (Krichene and Rendle, 2020). It is not comparable with the metric over all candidates, and may order models"
        " otherwise. A target that ties with others has its realistic rank in both, whatever protocol.ties says."
        f" Kendall's tau-b of the two orders: {taus}."
    )
    note += "".join(f" {sentence}" for sentence in found.left_out)
    yield Table(
        "sampled", "order", "What sampled negatives would have said", columns,
        rows_of(columns, found.lines, dataset=lambda line: line.dataset), note, "models", latex="sampled",
    )  # fmt: skip


def _value(value: float, rank: int) -> Cell:
    return Cell(f"{value:.4f}", f"({rank})", value=exact(value))
