"""The forest plot of the first screen: the gain of each row on each dataset, over all of them, and on a new one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from ipsrec_bench.report.content import AcrossDatasets, RelativeGain, Report, RowAcross
from ipsrec_bench.report.drawing import Chart, draw, inline
from ipsrec_bench.report.sentences import percent

PLOT_WIDTH = 250
"""Narrow, so that its letters stay readable on a small screen."""
LINE = 19
"""Height of a line."""
FIRST_LINES = 20
"""Maximum number of lines on the first screen; with more, it shows each row over all datasets alone."""
REACH = 1.5
"""Pooled intervals are cut where they reach further beyond those of single datasets than this many times their span."""
METHODS, MODELS = "users and seeds", "users alone"
ALL, NEW = "all datasets", "a new dataset"
KINDS = {
    METHODS: ("#0072B2", "circle"),
    MODELS: ("#7F7F7F", "square"),
    ALL: ("#D55E00", "diamond"),
    NEW: ("#E69F00", "stroke"),
}
"""Colour and shape of each kind of line; the first two are single datasets, by what their error is over."""

_Line = dict[str, Any]


def forests(report: Report) -> Iterator[Chart]:
    """Yield the forest plot of the first screen and, if it leaves lines out, that of the section on datasets."""
    content = report.across
    if not any(row.gains for row in content.rows):
        return
    panels = [(row.row.display, [*_lines(row)]) for row in content.rows if row.gains]
    first = panels
    if not content.several:
        first = [("", [line | {"line": name} for name, lines in panels for line in lines])]
    elif sum(len(lines) for _, lines in panels) > FIRST_LINES:
        first = [("", [line for row in content.rows if row.gains for line in _over_all(row)])]
    yield draw("summary", "first", _only(content), _title(report), _chart(first, report))
    if content.several and first is not panels:
        yield draw("across", "across", "", f"{_title(report)}, on each dataset", _chart(panels, report))


def _only(content: AcrossDatasets) -> str:
    return "" if content.several else content.datasets[0]


def _title(report: Report) -> str:
    references = {gain.reference.display for row in report.across.rows for gain in row.gains}
    against = references.pop() if len(references) == 1 else "the baseline of each row"
    where = f" on {report.across.datasets[0]}" if not report.across.several else ""
    cut = " cut at -100%" if report.across.cut else ""
    return f"Gain of {report.metric.upper()} over {against}{where}, {100 * report.confidence:g}% intervals{cut}"


def _lines(row: RowAcross) -> Iterator[_Line]:
    for gain in row.gains:
        yield _on_dataset(row, gain, gain.dataset)
    yield from _together(row, None)


def _over_all(row: RowAcross) -> Iterator[_Line]:
    """Yield the lines of a row over all datasets, or its only dataset, under the row's name."""
    if row.pooled is None:
        yield from (_on_dataset(row, gain, row.row.display) for gain in row.gains[:1])
    yield from _together(row, row.row.display)


def _together(row: RowAcross, name: str | None) -> Iterator[_Line]:
    if row.pooled is None:
        return
    test = row.pooled.test
    if len(row.pooled.weights) > 2:  # noqa: PLR2004 (fewer have no prediction interval)
        yield _line(row, name or NEW, NEW, None, row.pooled.low, row.pooled.high)
    yield _line(row, name or row.over, ALL, test.mean, test.low, test.high)


def _on_dataset(row: RowAcross, gain: RelativeGain, name: str) -> _Line:
    test = gain.difference.test
    kind = METHODS if gain.difference.of_method else MODELS
    return _line(row, name, kind, test.mean, test.low, test.high) | {"dataset": gain.dataset}


def _line(row: RowAcross, name: str, kind: str, value: float | None, low: float, high: float) -> _Line:
    return {
        "row": row.row.display,
        "line": name,
        "kind": kind,
        "gain": None if value is None else 100 * value,
        "low": 100 * low,
        "high": 100 * high,
        "shown": "" if value is None else percent(value),
        "interval": f"{percent(low)} to {percent(high)}" if low < high else "nothing varies",
    }


def _chart(panels: Sequence[tuple[str, Sequence[_Line]]], report: Report) -> Any:  # noqa: ANN401 (as altair has it)
    every = [line for _, lines in panels for line in lines]
    low, high = _domain(every)
    title = f"gain of {report.metric.upper()}, %"
    charts = [
        _panel(lines, name, (low, high), title if place == len(panels) else None, [line["kind"] for line in every])
        for place, (name, lines) in enumerate(panels, start=1)
    ]
    return charts[0] if len(charts) == 1 else alt.vconcat(*charts, spacing=6)


def _domain(lines: Sequence[_Line]) -> tuple[float, float]:
    """Return the ends of the axis: all of single datasets, and 0; pooled intervals as far as they are not far away."""
    single = [line for line in lines if line["kind"] in {METHODS, MODELS}]
    means = [line["gain"] for line in lines if line["gain"] is not None]
    inner = [0.0, *means, *(line[end] for line in single for end in ("low", "high"))]
    if not single:  # the first screen shows pooled lines alone
        inner += [line[end] for line in lines if line["kind"] == ALL for end in ("low", "high")]
    low, high = min(inner), max(inner)
    reach = REACH * (high - low) or 1.0
    outer = [line[end] for line in lines for end in ("low", "high")]
    low, high = max(min([low, *outer]), low - reach), min(max([high, *outer]), high + reach)
    edge = 0.04 * (high - low) or 1.0
    return low - edge, high + edge


def _panel(
    lines: Sequence[_Line], name: str, domain: tuple[float, float], title: str | None, kinds: Sequence[str]
) -> Any:  # noqa: ANN401 (as altair has it)
    there = [kind for kind in KINDS if kind in kinds]
    key = alt.Legend(columns=2)
    colours, shapes = ([KINDS[kind][which] for kind in there] for which in (0, 1))
    colour = alt.Color("kind:N", title=None, legend=key, scale=alt.Scale(domain=there, range=colours))
    shape = alt.Shape("kind:N", title=None, legend=key, scale=alt.Scale(domain=there, range=shapes))
    axis = (
        alt.Axis(tickCount=5, format="+~r") if title else alt.Axis(tickCount=5, labels=False, ticks=False, domain=False)
    )
    x = alt.X("from:Q", title=title, axis=axis, scale=alt.Scale(domain=list(domain), nice=False, zero=False))
    names = list(dict.fromkeys(line["line"] for line in lines))
    names.sort(key=lambda one: one == NEW)  # below the line of all datasets
    y = alt.Y("line:N", title=None, sort=names, axis=alt.Axis(labelLimit=0, grid=False, ticks=False, domain=False))
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("line:N", title="on"),
        alt.Tooltip("shown:N", title="gain"),
        alt.Tooltip("interval:N", title="interval"),
        alt.Tooltip("kind:N", title="about"),
    ]
    base = alt.Chart(inline([_cut(line, domain) for line in lines])).encode(y=y, color=colour, tooltip=tooltip)
    zero = alt.Chart(inline([{"zero": 0}])).mark_rule(strokeDash=[2, 2], color="gray").encode(x="zero:Q")
    rules = base.mark_rule().encode(
        x=x,
        x2="to:Q",
        strokeWidth=alt.condition(f"datum.kind === '{ALL}'", alt.value(3.5), alt.value(2)),
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        x="gain:Q", shape=shape, size=alt.condition(f"datum.kind === '{ALL}'", alt.value(150), alt.value(70))
    )
    chart = zero + rules + points
    for end, sign in (("from", "◂"), ("to", "▸")):
        chart += (
            base.transform_filter(f"datum.cut_{end}")
            .mark_text(text=sign, fontSize=13, baseline="middle")
            .encode(x=f"{end}:Q")
        )
    sized = chart.properties(width=PLOT_WIDTH, height=alt.Step(LINE))
    if not name:
        return sized
    return sized.properties(
        title=alt.Title(name, anchor="start", fontSize=12, fontWeight="bold", frame="group", offset=2)
    )


def _cut(line: Mapping[str, Any], domain: tuple[float, float]) -> _Line:
    """Return the values of a line with the ends that fit the axis; null where nothing varied."""
    varies = line["low"] < line["high"]
    start, end = max(line["low"], domain[0]), min(line["high"], domain[1])
    return dict(line) | {
        "from": start if varies else None,
        "to": end if varies else None,
        "cut_from": varies and line["low"] < domain[0],
        "cut_to": varies and line["high"] > domain[1],
    }
