"""The result table and the ablation."""

from collections.abc import Iterator

from ipsrec_bench.report.comparisons import TESTS
from ipsrec_bench.report.content import (
    AblationCell,
    AblationLine,
    AblationTable,
    Report,
    ResultCell,
    ResultLine,
    ResultTable,
    Row,
)
from ipsrec_bench.report.sentences import between, percent, signed
from ipsrec_bench.report.table import (
    NONE,
    Cell,
    Column,
    Table,
    exact,
    number,
    rows_of,
    text,
)
from ipsrec_bench.report.tables.shared import (
    corrected_by,
    interval_of,
    is_corrected,
    metric_name,
    model_cell,
)
from ipsrec_bench.suite.cells import TUNED

FAMILY = "this table's comparisons of one family"


def results(report: Report) -> Iterator[Table]:
    """Yield the result table, in several parts if it has many models."""
    note = (
        "Best value bold, second underlined; mean over seeds ± standard deviation over seeds, which one seed and"
        f" deterministic models do not have. Improv.: relative to {report.baseline_rule}. {_marks(report)}"
    )
    if report.chosen_on_test:
        names = ", ".join(report.chosen_on_test)
        note += f" The best baseline of {names} is chosen on the test targets, which favours it."
    if report.all_pairs:
        note += (
            " Letters: models that share one are not shown to differ as trained models (all pairs at once, maxT over"
            f" {report.all_pairs[0].resamples:,} resamples of the users)."
        )
    if report.results.unequal:
        note += " †: only one of the model and its baseline is tuned."
    yield from result_tables(report.results, "results", "Results", note, "results", report.seeds)


def _marks(report: Report) -> str:
    """Return what the marks of improvements mean."""
    over, p = corrected_by(report), _p(report)
    if report.test == "auto":
        return (
            f"*: as a method, better with {p} < {report.alpha} ({TESTS['method']}; {over}). °: only these"
            f" trained models are shown to differ, likewise ({TESTS['paired-t']}); the methods are not, or have fewer"
            " than three seeds."
        )
    words = f"*: better with {p} < {report.alpha} ({report.test_rule}; {over})."
    if report.test == "method":
        words += f" °: only these trained models are shown to differ, likewise ({TESTS['paired-t']})."
    return words


def _p(report: Report) -> str:
    return "adjusted p" if is_corrected(report) else "p"


def result_tables(
    table: ResultTable, name: str, caption: str, note: str, latex: str, seeds: int | None = None, section: str = ""
) -> Iterator[Table]:
    """Yield one table with models across or, where they are many, one with models down for each dataset.

    Args:
        table: what is shown.
        name: for links.
        caption: of the table.
        note: how to read it.
        latex: name of the LaTeX file.
        seeds: expected number of seeds; scores of fewer say so. None for printed numbers, which have none.
        section: of the page, if not named like the table.
    """
    common = {"section": section or name, "note": note, "latex": latex, "collapse": "never"}
    if not table.models_down:
        columns = [
            Column("Dataset", lambda line: text(line.dataset), "left", key=True),
            Column("Metric", lambda line: text(metric_name(line.metric)), "left"),
            *(_of_model(table, place, row, seeds) for place, row in enumerate(table.columns)),
        ]
        rows = rows_of(columns, table.lines, dataset=lambda line: line.dataset, metric=lambda line: line.metric)
        yield Table(name, caption=caption, columns=tuple(columns), rows=rows, **common)  # type: ignore[arg-type]
        return
    datasets = dict.fromkeys(line.dataset for line in table.lines)
    first = next((i for i, row in enumerate(table.columns) if row.model in table.proposed), None)

    def begins(place: int) -> bool:
        return place == first

    for part, dataset in enumerate(datasets, start=1):
        lines = [line for line in table.lines if line.dataset == dataset]
        columns = [
            Column("Model", lambda place: model_cell(table.columns[place]), "left"),
            *(_of_metric(table, line, seeds) for line in lines),
        ]
        rows = rows_of(columns, range(len(table.columns)), begins=begins)
        yield Table(
            f"{name}-{part}" if part > 1 else name,
            caption=f"{caption} on {dataset}" if len(datasets) > 1 else caption,
            columns=tuple(columns),
            rows=rows,
            dataset=dataset,
            **common,  # type: ignore[arg-type]
        )


def _of_model(table: ResultTable, place: int, row: Row, seeds: int | None) -> Column:
    proposed = row.model in table.proposed

    def cell(line: ResultLine) -> Cell:
        return _result_cell(line.cells[place], seeds, proposed=proposed)

    heading = (row.display, f"({row.tuning})") if row.tuning else row.display
    return Column(heading, cell, below="Improv." if proposed else "")


def _of_metric(table: ResultTable, line: ResultLine, seeds: int | None) -> Column:
    def cell(place: int) -> Cell:
        return _result_cell(line.cells[place], seeds, proposed=table.columns[place].model in table.proposed)

    return Column(
        (line.dataset, metric_name(line.metric)), cell, below="Improv.", dataset=line.dataset, metric=line.metric
    )


def _result_cell(cell: ResultCell, seeds: int | None, *, proposed: bool) -> Cell:
    improvement = ""
    if proposed:
        marks = cell.mark + ("†" if cell.unequal else "")
        improvement = NONE if cell.gain is None else percent(cell.gain) + marks
    if cell.score is None:
        return Cell(NONE, below=improvement, value="")
    score, spread = cell.score, []
    if score.deviation is not None:
        spread.append(f"± {score.deviation:.4f}")
    if seeds is not None and score.seeds < seeds:
        spread.append(f"({score.seeds}/{seeds} seeds)")
    if cell.letters:
        spread.append(cell.letters)
    tone = "best" if cell.best else "second" if cell.second else ""
    return Cell(f"{score.mean:.4f}", " ".join(spread), improvement, exact(score.mean), tone)


def ablation(report: Report) -> Iterator[Table]:
    """Yield the ablation table, if there are variants."""
    if report.ablation is None:
        return
    first, variants = report.ablation.lines[0], [line for line in report.ablation.lines if line.is_variant]
    of_tuned = " (of a tuned model, to the untuned one)" if any(line.row.variant == TUNED for line in variants) else ""
    note = (
        f"Beside a variant: its difference to the whole model{of_tuned}, then the {interval_of(report)}"
        f" ({report.interval_rule}); *: {_p(report)} < {report.alpha}, same test,"
        f" {corrected_by(report, FAMILY)}."
    )
    if report.test in {"auto", "method"}:
        note += " °: only these trained models are shown to differ."
    if first.row.model not in {line.row.model for line in variants}:
        note += f" {first.row.display} is shown above them for reference."
    yield ablation_table(report.ablation, "ablation", report.ablation.title, note, "ablation")


def ablation_table(table: AblationTable, name: str, caption: str, note: str, latex: str, section: str = "") -> Table:
    columns = [
        Column("Method", lambda line: model_cell(line.row, line.row.variant if line.is_variant else ""), "left"),
        *(_of_ablation(place, *column) for place, column in enumerate(table.columns)),
    ]
    rows = rows_of(columns, table.lines, begins=lambda line: not line.is_variant, indent=lambda line: line.is_variant)
    return Table(
        name, section or name, caption, tuple(columns), rows, note, "methods", "never", sortable=False, latex=latex
    )


def _of_ablation(place: int, dataset: str, metric: str) -> Column:
    def cell(line: AblationLine) -> Cell:
        return _ablation_cell(line.cells[place])

    return Column((dataset, metric_name(metric)), cell, dataset=dataset, metric=metric)


def _ablation_cell(cell: AblationCell) -> Cell:
    score = number(cell.score.mean if cell.score else None)
    c = cell.comparison
    if c is None:
        return score
    return Cell(score.text, signed(c.difference) + c.mark, between(c.low, c.high), score.value, c.direction)
