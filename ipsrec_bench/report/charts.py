"""The charts of a report, as Vega-Lite specifications."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from ipsrec_bench.models.stages import MAIN
from ipsrec_bench.report.content import Comparison, Report, Row, SliceTable, Surface, SurfacePoint
from ipsrec_bench.report.drawing import WIDTH, Chart, draw, inline, whole_ticks
from ipsrec_bench.report.forest import forests
from ipsrec_bench.report.sentences import between, signed
from ipsrec_bench.report.study_charts import study_charts

# Okabe and Ito's palette, safe for colour-blind readers; the eighth, yellow, is too light for thin lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ((1, 0), (5, 3), (2, 2), (8, 3, 2, 3))
SHAPES = ("circle", "square", "diamond", "triangle-up")
VERDICTS = {"better": "#0072B2", "undecided": "#7F7F7F", "equivalent": "#009E73", "worse": "#D55E00"}
VERDICT_SHAPES = {"better": "triangle-right", "undecided": "circle", "equivalent": "square", "worse": "triangle-left"}
FOREST_TICKS = 6
WRITTEN = 5
"""Maximum number of values of lambda at which each square of a surface has room for its numbers."""

Style = Mapping[str, tuple[str, Sequence[int], str]]
"""Colour, dash and shape of every row, by its name in tables."""


@debug_mode(False)  # each part would be validated, and then the whole chart again, which `draw` does
def charts_of(report: Report) -> list[Chart]:
    """Return the charts of a report, in the order of the page."""
    rows = dict.fromkeys(line.row for line in report.settings)
    style = _styles([*rows])
    charts = [
        *forests(report),
        *_forests(report),
        *_slice_charts(report, style),
        *_hit_curves(report, style),
        *_seed_scatters(report, style),
        *_costs(report, style),
        *(_surface(surface, report.confidence) for surface in report.surfaces),
        *(chart for tuned in report.tuned for chart in study_charts(tuned.study)),
        *_learning_curves(report, style),
        *_losses(report, style),
    ]
    return [
        replace(chart, name=f"chart-{number:02}-{chart.name}", link=link)
        for number, (chart, link) in enumerate(zip(charts, _links(charts), strict=True), start=1)
    ]


def _links(charts: Iterable[Chart]) -> Iterator[str]:
    """Yield an id for each chart, which stays the same when other charts come and go."""
    seen: dict[str, int] = defaultdict(int)
    for chart in charts:
        seen[chart.name] += 1
        yield f"chart-{chart.name}" + (f"-{seen[chart.name]}" if seen[chart.name] > 1 else "")


def _styles(rows: Sequence[Row]) -> Style:
    """Return a colour for each model; its variants, and models beyond the palette, differ in dash and shape."""
    models = list(dict.fromkeys(row.model for row in rows))
    seen: dict[str, int] = defaultdict(int)
    styles = {}
    for row in rows:
        colour = models.index(row.model)
        turn = seen[row.model] + colour // len(PALETTE)
        styles[row.display] = (PALETTE[colour % len(PALETTE)], DASHES[turn % len(DASHES)], SHAPES[turn % len(SHAPES)])
        seen[row.model] += 1
    return styles


def _forests(report: Report) -> Iterator[Chart]:
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)  # tuned rows may have another baseline
    for c in report.comparisons:
        if c.metric == report.metric:
            groups[c.dataset, c.reference.display].append(c)
    for (dataset, reference), comparisons in groups.items():
        title = (
            f"{report.metric.upper()} on {dataset}: difference to {reference}, {100 * report.confidence:g}% intervals"
        )
        values = [{"row": c.row.display} | _difference(c) for c in comparisons]
        chart = _intervals(
            values, "row", [c.row.display for c in comparisons], f"difference in {report.metric.upper()}"
        )
        yield draw(f"forest-{dataset}", "comparisons", dataset, title, chart)


def _slice_charts(report: Report, style: Style) -> Iterator[Chart]:
    groups: dict[tuple[str, str], list[SliceTable]] = defaultdict(list)
    for table in report.slices:
        if table.slices:
            groups[table.dataset, table.reference.display].append(table)
    for (dataset, reference), tables in groups.items():
        values: list[dict[str, Any]] = [
            {"slice": f"{s.dimension}: {s.name}", "row": table.row.display} | _difference(s.comparison)
            for table in tables
            for s in table.slices
        ]
        names = [table.row.display for table in tables]
        base = alt.Chart(inline(values)).encode(
            y=alt.Y(
                "slice:N",
                title=None,
                sort=list(dict.fromkeys(value["slice"] for value in values)),
                axis=alt.Axis(labelLimit=0),
            ),
            yOffset=alt.YOffset("row:N", sort=names),
            color=_colour("row", names, style),
        )
        x = alt.X("low:Q", title=f"difference in {report.metric.upper()}")
        marks = base.mark_rule(strokeWidth=1.6).encode(x=x, x2="high:Q") + base.mark_point(filled=True, size=45).encode(
            x="difference:Q", shape=_shape("row", names, style), tooltip=["row:N", "slice:N", *_TOOLTIP]
        )
        title = (
            f"{report.metric.upper()} on {dataset}, by slice of users: difference to"
            f" {reference}, {100 * report.confidence:g}% intervals"
        )
        step = alt.Step(11 * len(names) + 8, **{"for": "position"})
        yield draw(
            f"slices-{dataset}", "slices", dataset, title, (_zero() + marks).properties(width=WIDTH - 160, height=step)
        )


def _hit_curves(report: Report, style: Style) -> Iterator[Chart]:
    for dataset, group in groupby(report.hits, key=lambda curve: curve.dataset):
        curves = list(group)
        names = [curve.row.display for curve in curves]
        values = [{"row": c.row.display, "N": n, "HR@N": hits} for c in curves for n, hits in c.points]
        chart = (
            alt.Chart(inline(values))
            .mark_line(strokeWidth=1.6)
            .encode(
                opacity=alt.condition(chosen := _legend_choice(), alt.value(0.9), alt.value(0.1)),
                x=alt.X("N:Q", title="cutoff N", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s")),
                y=alt.Y("HR@N:Q", title="share of users with a hit in the first N"),
                color=_colour("row", names, style),
                strokeDash=_dash("row", names, style),
                tooltip=["row:N", "N:Q", alt.Tooltip("HR@N:Q", format=".4f")],
            )
            .add_params(chosen)
            .properties(width=WIDTH, height=300)
        )
        yield draw(
            f"hit-rate-{dataset}", "curves", dataset, f"HR@N on {dataset} at every cutoff N, mean over seeds", chart
        )


def _learning_curves(report: Report, style: Style) -> Iterator[Chart]:
    for curves in report.curves:
        names = list(dict.fromkeys(row.display for row, _, _ in curves.points))
        values: list[dict[str, Any]] = [
            {"row": row.display, "seed": seed, "epoch": point.epoch, "valid": point.valid}
            for row, seed, point in curves.points
            if point.valid is not None  # it is None before the main stage
        ]
        metric = curves.stop_metric.upper()
        chart = (
            alt.Chart(inline(values))
            .mark_line(strokeWidth=1.4)
            .encode(
                opacity=alt.condition(chosen := _legend_choice(), alt.value(0.85), alt.value(0.1)),
                x=alt.X("epoch:Q", axis=whole_ticks(value["epoch"] for value in values)),
                y=alt.Y("valid:Q", title=f"validation {metric}", scale=alt.Scale(zero=False)),
                color=_colour("row", names, style),
                strokeDash=_dash("row", names, style),
                detail="seed:N",
                tooltip=["row:N", "seed:N", "epoch:Q", alt.Tooltip("valid:Q", format=".4f")],
            )
            .add_params(chosen)
            .properties(width=WIDTH, height=300)
        )
        title = f"Validation {metric} on {curves.dataset} after each epoch, one line per seed"
        yield draw(f"learning-curves-{curves.dataset}", "learning", curves.dataset, title, chart)


def _losses(report: Report, style: Style) -> Iterator[Chart]:
    """Yield a chart for each dataset, with a panel for the loss of each task in each stage: their scales differ."""
    for curves in report.curves:
        names = list(dict.fromkeys(row.display for row, _, _ in curves.points))
        panels: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row, seed, point in curves.points:
            for name, value in point.losses.items():
                panels[point.stage, name].append(
                    {"row": row.display, "seed": seed, "epoch": point.epoch, "loss": value}
                )
        if not panels:
            continue
        charts = [
            alt.Chart(inline(values))
            .mark_line(strokeWidth=1.4)
            .encode(
                opacity=alt.value(0.85),
                x=alt.X(
                    "epoch:Q",
                    title="epoch" if stage == MAIN else f"epoch of {stage}",
                    axis=whole_ticks((value["epoch"] for value in values), 6),
                ),
                y=alt.Y("loss:Q", title=f"loss of {name}", scale=alt.Scale(zero=False)),
                color=_colour("row", names, style),
                strokeDash=_dash("row", names, style),
                detail="seed:N",
                tooltip=["row:N", "seed:N", "epoch:Q", alt.Tooltip("loss:Q", format=".4f")],
            )
            .properties(width=WIDTH if len(panels) == 1 else WIDTH // 2, height=220)
            for (stage, name), values in panels.items()
        ]
        chart = alt.concat(*charts, columns=2) if len(charts) > 1 else charts[0]
        title = f"Losses on {curves.dataset} by epoch, stage and task, before their weights, one line per seed"
        yield draw(f"losses-{curves.dataset}", "learning", curves.dataset, title, chart)


def _seed_scatters(report: Report, style: Style) -> Iterator[Chart]:
    for dataset, group in groupby(report.seed_scores, key=lambda score: score.dataset):
        values: list[dict[str, Any]] = [{"row": s.row.display, "seed": s.seed, "value": s.value} for s in group]
        names = list(dict.fromkeys(v["row"] for v in values))
        base = alt.Chart(inline(values)).encode(
            y=alt.Y("row:N", title=None, sort=names, axis=alt.Axis(labelLimit=0)),
            color=_colour("row", names, style, legend=False),
        )
        x = alt.X("value:Q", title=f"test {report.metric.upper()}", scale=alt.Scale(zero=False))
        chart = base.mark_tick(thickness=2, size=18).encode(x=alt.X("mean(value):Q")) + base.mark_point(
            size=50, opacity=0.8
        ).encode(
            x=x,
            shape=_shape("row", names, style, legend=False),
            tooltip=["row:N", "seed:N", alt.Tooltip("value:Q", format=".4f")],
        )
        title = f"Test {report.metric.upper()} on {dataset}: a point per seed, a tick at their mean"
        yield draw(f"seeds-{dataset}", "seeds", dataset, title, chart.properties(width=WIDTH - 60, height=alt.Step(24)))


_COSTS = {
    "train_seconds": ("~g", "seconds of training"),
    "parameters": ("~s", "parameters"),
    "peak_memory": ("~s", "peak memory, bytes"),
}
"""Format and title of each axis; `~s` would write 10 milliseconds as 10m."""


def _costs(report: Report, style: Style) -> Iterator[Chart]:
    metric = report.metric.upper()
    for dataset, group in groupby(report.costs, key=lambda line: line.dataset):
        lines = list(group)
        names = [line.row.display for line in lines]
        values: list[dict[str, Any]] = [
            {"row": line.row.display, "value": line.value} | {cost: getattr(line, cost) for cost in _COSTS}
            for line in lines
        ]
        panels = []
        for cost, (form, title) in _COSTS.items():
            there = [value for value in values if value[cost] > 0]  # a counting model has no parameters
            panels.append(
                alt.Chart(inline(there))
                .mark_point(filled=True, size=80)
                .encode(
                    x=alt.X(
                        f"{cost}:Q", title=title, scale=alt.Scale(type="log"), axis=alt.Axis(format=form, tickCount=4)
                    ),
                    y=alt.Y("value:Q", title=f"test {metric}", scale=alt.Scale(zero=False)),
                    color=_colour("row", names, style),
                    shape=_shape("row", names, style),
                    tooltip=["row:N", alt.Tooltip("value:Q", format=".4f"), alt.Tooltip(f"{cost}:Q", format=".3s")],
                )
                .properties(width=190, height=210)
            )
        title = f"What {metric} on {dataset} costs: time, parameters, memory"
        yield draw(f"cost-{dataset}", "cost", dataset, title, alt.hconcat(*panels).resolve_scale(y="shared"))


def _surface(surface: Surface, confidence: float) -> Chart:
    values = [_of_point(point) for point in surface.points]
    base = alt.Chart(inline(values)).encode(
        x=alt.X("lambda:O", title="lambda", axis=alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=6)),
        y=alt.Y("tau:O", title="tau", sort="descending"),
    )
    tooltip = ["lambda:Q", "tau:Q", alt.Tooltip("value:Q", format=".4f"), "difference:N", "interval:N"]
    chart = base.mark_rect().encode(
        color=alt.Color("value:Q", title=surface.metric.upper(), scale=alt.Scale(scheme="viridis", zero=False)),
        tooltip=tooltip,
    )
    title = f"{surface.metric.upper()} of {surface.model} on {surface.dataset} ({surface.split}) over lambda and tau"
    if len({value["lambda"] for value in values}) <= WRITTEN:
        low, high = min(value["value"] for value in values), max(value["value"] for value in values)
        ink = alt.condition(f"datum.value > {(low + high) / 2}", alt.value("black"), alt.value("white"))
        for dy, size, field in ((-12, 13, "shown"), (5, 11, "difference"), (20, 10, "interval")):
            chart += base.mark_text(dy=dy, fontSize=size).encode(text=f"{field}:N", color=ink)
        title += f"; below each value its difference to the whole model, with its {100 * confidence:g}% interval"
    return draw(
        f"surface-{surface.split}-{surface.model}-{surface.dataset}",
        "surface",
        surface.dataset,
        title,
        chart.properties(width=WIDTH - 60, height=WIDTH - 160),
    )


def _of_point(point: SurfacePoint) -> dict[str, Any]:
    c = point.comparison
    return {
        "lambda": point.lambda_,
        "tau": point.tau,
        "value": point.value,
        "shown": f"{point.value:.4f}",
        "difference": signed(c.difference) if c else "the whole model",
        "interval": between(c.low, c.high) if c else "",
    }


_TOOLTIP = [
    alt.Tooltip("difference:Q", format="+.4f"),
    alt.Tooltip("low:Q", format="+.4f"),
    alt.Tooltip("high:Q", format="+.4f"),
    "verdict:N",
]


def _difference(c: Comparison) -> dict[str, Any]:
    """Return the values of a mark; without ends, which are null where nothing varied, its rule is not drawn."""
    low, high = (None if math.isnan(end) else end for end in (c.low, c.high))
    return {"difference": c.difference, "low": low, "high": high, "verdict": c.direction}


def _intervals(values: Sequence[Mapping[str, Any]], label: str, names: Sequence[str], title: str) -> Any:  # noqa: ANN401 (as altair has it)
    verdicts = [verdict for verdict in VERDICTS if any(value["verdict"] == verdict for value in values)]
    base = alt.Chart(inline(values)).encode(
        y=alt.Y(f"{label}:N", title=None, sort=list(names), axis=alt.Axis(labelLimit=0)),
        color=alt.Color(
            "verdict:N", title=None, scale=alt.Scale(domain=verdicts, range=[VERDICTS[v] for v in verdicts])
        ),
    )
    return (
        _zero()
        + base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=FOREST_TICKS)), x2="high:Q"
        )
        + base.mark_point(filled=True, size=80, opacity=1).encode(
            x="difference:Q",
            shape=alt.Shape(
                "verdict:N",
                title=None,
                scale=alt.Scale(domain=verdicts, range=[VERDICT_SHAPES[v] for v in verdicts]),
            ),
            tooltip=[f"{label}:N", *_TOOLTIP],
        )
    ).properties(width=WIDTH - 60, height=alt.Step(24))


def _legend_choice() -> alt.Parameter:
    """Return the choice of lines by a click in the legend, which highlights them."""
    return alt.selection_point(fields=["row"], bind="legend")


def _zero() -> Any:  # noqa: ANN401 (as altair has it)
    return alt.Chart(inline([{"zero": 0}])).mark_rule(strokeDash=[2, 2], color="gray").encode(x="zero:Q")


def _scale(names: Sequence[str], values: Callable[[str], Any]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[values(name) for name in names])


def _colour(field: str, names: Sequence[str], style: Style, *, legend: bool = True) -> alt.Color:
    shown = alt.Undefined if legend else None
    return alt.Color(f"{field}:N", title=None, legend=shown, scale=_scale(names, lambda name: style[name][0]))


def _dash(field: str, names: Sequence[str], style: Style) -> alt.StrokeDash:
    return alt.StrokeDash(f"{field}:N", title=None, scale=_scale(names, lambda name: list(style[name][1])))


def _shape(field: str, names: Sequence[str], style: Style, *, legend: bool = True) -> alt.Shape:
    shown = alt.Undefined if legend else None
    return alt.Shape(f"{field}:N", title=None, legend=shown, scale=_scale(names, lambda name: style[name][2]))
