"""The tables of a report, as the browser shows them; imported when one is opened, for the statistics take long."""

import math
from collections.abc import Iterator

from rich.text import Text

from ipsrec_bench.report.content import AblationTable, Comparison, Report, ResultTable, Score
from ipsrec_bench.report.sentences import p_value, percent, signed
from ipsrec_bench.report.tables.shared import p_heading
from ipsrec_bench.tui.lines import clock
from ipsrec_bench.ui.listings import Line, Listing, right, text

VERDICTS = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": ""}


def results_listing(report: Report) -> Listing:
    """Return every metric of every row of the report, the main metric first: whole models, then variants."""
    table = report.results
    metrics = sorted(dict.fromkeys(one.metric for one in table.lines), key=lambda name: name != report.metric)
    found = _compared(report) | (dict(_variants(report.ablation)) if report.ablation else {}) | dict(_scores(table))
    names = {row.label: row.named for row in table.columns}
    names |= {c.row.label: c.row.named for c in report.comparisons}
    main = {(c.dataset, c.row.label): c for c in report.comparisons if c.metric == report.metric}
    lines = []
    for dataset in dict.fromkeys(one.dataset for one in table.lines):
        for label, display in names.items():
            values = [found.get((dataset, label, metric), (None, "")) for metric in metrics]
            scores = [score for score, _ in values if score is not None]
            if not scores:
                continue
            against = main.get((dataset, label))
            gain = (
                percent(against.gain.value) + against.mark if against is not None and against.gain is not None else ""
            )
            cells = (
                text(dataset),
                text(display, "bold"),
                _score(values[0]),
                right(gain, VERDICTS[against.direction] if against is not None else ""),
                right(str(max(score.seeds for score in scores))),
                *(_score(value) for value in values[1:]),
            )
            lines.append(Line(f"{dataset}\0{label}", cells, against, label))
    first, *others = (name.upper() for name in metrics or [report.metric])
    heads = ("dataset", "model", first, "gain", "seeds", *others)
    return Listing(heads, tuple(lines), "No cell of this run is complete yet.", fixed=2)


_Place = tuple[str, str, str]
"""Dataset, label and metric."""
_Value = tuple[Score | None, str]
"""A score, and the style it is shown in."""


def _scores(table: ResultTable) -> Iterator[tuple[_Place, _Value]]:
    for one in table.lines:
        for row, cell in zip(table.columns, one.cells, strict=True):
            style = "bold green" if cell.best else "underline" if cell.second else ""
            yield (one.dataset, row.label, one.metric), (cell.score, style)


def _variants(table: AblationTable) -> Iterator[tuple[_Place, _Value]]:
    for one in table.lines:
        if one.is_variant:
            for (dataset, metric), cell in zip(table.columns, one.cells, strict=True):
                yield (dataset, one.row.label, metric), (cell.score, "")


def _compared(report: Report) -> dict[_Place, _Value]:
    """Return the means of all rows that are compared; the report has tables of some metrics of variants only."""
    return {(c.dataset, c.row.label, c.metric): (Score(c.mean, None, c.seeds), "") for c in report.comparisons}


def _score(value: _Value) -> Text:
    score, style = value
    if score is None:
        return right("–")
    made = right(f"{score.mean:.4f}", style)
    if score.deviation is not None:
        made.append(f" ±{score.deviation:.4f}", "dim")
    return made


def costs_listing(report: Report) -> Listing:
    """Return what the rows cost."""
    lines = tuple(
        Line(
            f"{one.dataset}\0{one.row.label}",
            (
                text(one.dataset),
                text(one.row.named, "bold"),
                right(f"{one.parameters:,}"),
                right(clock(one.train_seconds)),
                right(clock(one.seconds)),
                right(f"{one.peak_memory / 2**20:,.0f} MiB"),
                right(f"{one.value:.4f}"),
            ),
            name=one.row.label,
        )
        for one in report.costs
    )
    heads = ("dataset", "model", "parameters", "training", "in all", "memory", report.metric.upper())
    return Listing(heads, lines, "No cell of this run is complete yet.", fixed=2)


def datasets_listing(report: Report) -> Listing:
    """Return the sizes of the datasets."""
    lines = tuple(
        Line(
            one.label,
            (
                text(one.label, "bold"),
                *(right(f"{n:,}") for n in (s.users, s.items, s.providers, s.actions)),
                right(f"{s.mean_length:.1f}"),
                right(one.tested),
                text(s.filter),
            ),
        )
        for one in report.datasets
        for s in (one.statistics,)
    )
    heads = ("dataset", "users", "items", "providers", "interactions", "length", "tested", "filter")
    return Listing(heads, lines, "No cell of this run is complete yet.")


def comparisons_listing(report: Report) -> Listing:
    """Return every row against its baseline."""
    lines = tuple(
        Line(
            f"{c.dataset}\0{c.metric}\0{c.row.label}",
            (
                text(c.row.named, "bold"),
                text(c.reference.named),
                text(c.dataset),
                Text(c.metric.upper()),
                Text(c.verdict, VERDICTS[c.direction]),
                right(signed(c.difference)),
                right("–" if math.isnan(c.low) else f"{signed(c.low)} to {signed(c.high)}"),
                right(percent(c.gain.value) if c.gain else "–"),
                right(p_value(c.adjusted_p)),
            ),
            c,
            c.row.label,
        )
        for c in report.comparisons
    )
    interval = f"{100 * report.confidence:g}% interval"
    p = p_heading(report).lower()
    heads = ("model", "against", "dataset", "metric", "verdict", "difference", interval, "gain", p)
    reason = " ".join(f"{note}." for note in report.notes) or "Nothing is compared."
    return Listing(heads, lines, reason)


def of_row(report: Report, comparison: Comparison) -> list[Comparison]:
    """Return the comparisons of the same row on the same dataset, one for each metric, in the suite's order."""
    order = list(dict.fromkeys(line.metric for line in report.results.lines))
    found = (c for c in report.comparisons if (c.dataset, c.row) == (comparison.dataset, comparison.row))
    return sorted(found, key=lambda c: order.index(c.metric))


TABLES = {"Results": results_listing, "Costs": costs_listing, "Datasets": datasets_listing}
