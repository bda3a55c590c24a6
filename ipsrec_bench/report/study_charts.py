"""Charts of tuning studies."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import altair as alt
import numpy as np

from ipsrec_bench.report.drawing import WIDTH, Chart, draw, inline, whole_ticks
from ipsrec_bench.stats.smoothing import smoothed
from ipsrec_bench.tuning.results import StudyResult, TrialResult
from ipsrec_bench.words import visible

CELLS = 48
"""Number of cells along each side of the smoothed surface."""
BANDS = 10
"""Number of levels of the smoothed surface, between its least and its greatest value."""
MIN_SMOOTHED = 8
"""Minimum number of complete trials for a smoothed surface."""
PANEL = 190
PANEL_TICKS = 5
NAME_LETTER = 8
"""Pixels for a letter of a name below a chart."""
STATES = {"complete": "#0072B2", "pruned": "#7F7F7F"}


def study_charts(study: StudyResult) -> Iterator[Chart]:
    """Yield the charts of a study: its history, its results by setting, and the importance of settings."""
    name = study.name
    metric = _title(f"validation {study.metric.upper()}")
    yield draw(
        f"tuning-history-{name}",
        "tuning",
        study.dataset,
        f"Study {name}: {metric} of every trial, and the best so far",
        _history(study, metric),
    )
    both = {"lambda", "tau"} <= study.default.keys() and all(_is_number(study, name) for name in ("lambda", "tau"))
    if both and study.complete:
        yield draw(
            f"tuning-surface-{name}",
            "tuning",
            study.dataset,
            f"Study {name}: {metric} over lambda and tau, smoothed between the complete trials",
            _surface(study, metric),
        )
    yield draw(
        f"tuning-settings-{name}",
        "tuning",
        study.dataset,
        f"Study {name}: {metric} by each setting",
        _settings(study, metric),
    )
    if study.complete:
        yield draw(
            f"tuning-parallel-{name}",
            "tuning",
            study.dataset,
            f"Study {name}: the settings of the complete trials, one line each",
            _parallel(study, metric),
        )
    if study.importance:
        yield draw(
            f"tuning-importance-{name}",
            "tuning",
            study.dataset,
            f"Study {name}: what sets the best quarter of its trials apart (PED-ANOVA)",
            _importance(study),
        )


def _history(study: StudyResult, metric: str) -> Any:  # noqa: ANN401 (as altair has it)
    values = [_of_trial(study, trial) for trial in study.trials]
    complete = [trial for trial in study.trials if not trial.pruned]
    best = accumulate((trial.value for trial in complete), max)
    steps = [{"trial": t.number, "value": value} for t, value in zip(complete, best, strict=True)]
    x = alt.X("trial:Q", axis=whole_ticks(trial.number for trial in study.trials))
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    line = alt.Chart(inline(steps)).mark_line(interpolate="step-after", strokeWidth=1.6, color="#D55E00")
    points = alt.Chart(inline(values)).mark_point(size=50)
    return (
        line.encode(x=x, y=y) + points.encode(x=x, y=y, color=_state(), shape=_shape(), tooltip=_tooltip(study))
    ).properties(width=WIDTH, height=240)


def _surface(study: StudyResult, metric: str) -> Any:  # noqa: ANN401 (as altair has it)
    complete = study.complete
    x, y = _Axis(study, "lambda"), _Axis(study, "tau")
    points = np.array([[axis.place(trial.settings[axis.name]) for axis in (x, y)] for trial in complete])
    colour = alt.Color("value:Q", title=metric, scale=alt.Scale(scheme="viridis", zero=False))
    layers = []
    if len(complete) >= MIN_SMOOTHED and (points.max(axis=0) > points.min(axis=0)).all():
        layers.append(
            alt.Chart(inline(_bands(points, complete, x, y)))
            .mark_rect(clip=True)
            .encode(x=x.encoded(alt.X, "from"), x2="to:Q", y=y.encoded(alt.Y, "below"), y2="above:Q", color=colour)
        )
    layers.append(
        alt.Chart(inline([_of_trial(study, trial) for trial in complete]))
        .mark_point(filled=True, size=90, opacity=1, stroke="white", strokeWidth=1.5)
        .encode(
            x=x.encoded(alt.X, _field(study, "lambda")),
            y=y.encoded(alt.Y, _field(study, "tau")),
            color=colour,
            tooltip=_tooltip(study),
        )
    )
    return alt.layer(*layers).properties(width=WIDTH - 60, height=WIDTH - 180)


class _Axis:
    """A setting along a side of the surface, scaled to 0 to 1 over the values that were tried."""

    def __init__(self, study: StudyResult, name: str) -> None:
        self.name, self._log = name, name in study.logarithmic
        self._tried = [float(trial.settings[name]) for trial in study.trials]
        self._low, self._high = (self._scaled(end) for end in (min(self._tried), max(self._tried)))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value

    def place(self, value: float) -> float:
        """Return where a value lies."""
        return (self._scaled(value) - self._low) / (self._high - self._low or 1.0)

    def value(self, place: float) -> float:
        """Return the value at a place."""
        found = self._low + place * (self._high - self._low)
        return math.exp(found) if self._log else found

    def encoded(self, channel: type[alt.X] | type[alt.Y], field: str) -> alt.X | alt.Y:
        """Return it as a channel of a chart."""
        scale = alt.Scale(
            type="log" if self._log else "linear",
            nice=False,
            zero=False,
            domain=[min(self._tried), max(self._tried)],
        )
        return channel(f"{field}:Q", scale=scale, title=self.name, axis=alt.Axis(tickCount=4, format="~g", grid=False))


def _bands(points: np.ndarray, complete: Sequence[TrialResult], x: _Axis, y: _Axis) -> Iterator[dict[str, float]]:
    """Yield rectangles of the smoothed surface, each as wide as its band: few, so that the page stays small.

    The surface covers the range of the complete trials.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    centres, edges = ((np.arange(CELLS + more) + shift) / CELLS for more, shift in ((0, 0.5), (1, 0.0)))
    at = np.stack(np.meshgrid(centres, centres), axis=2).reshape(-1, 2)
    values = np.array([trial.value for trial in complete])
    surface = smoothed((points - low) / (high - low), values, at).reshape(CELLS, CELLS)
    least, most = float(surface.min()), float(surface.max())
    size = (most - least) / BANDS or 1.0
    bands = np.minimum((surface - least) // size, BANDS - 1)
    across = [x.value(low[0] + edge * (high[0] - low[0])) for edge in edges]
    up = [y.value(low[1] + edge * (high[1] - low[1])) for edge in edges]
    for row, (below, above) in zip(bands, pairwise(up), strict=True):
        changes = np.flatnonzero(np.diff(row)) + 1
        for begin, end in pairwise([0, *changes, CELLS]):
            yield {
                "from": across[begin],
                "to": across[end],
                "below": below,
                "above": above,
                "value": least + (row[begin] + 0.5) * size,
            }


def _settings(study: StudyResult, metric: str) -> Any:  # noqa: ANN401 (as altair has it)
    values = [_of_trial(study, trial) for trial in study.trials]
    panels = []
    for name in study.default:
        kind = ":Q" if _is_number(study, name) else ":N"
        scale: Any = alt.Undefined
        axis: Any = alt.Undefined
        if kind == ":Q":
            scale = alt.Scale(type="log") if name in study.logarithmic else alt.Scale(zero=False)
            tried = [trial.settings[name] for trial in study.trials]
            if name not in study.logarithmic and all(isinstance(value, int) for value in tried):
                axis = whole_ticks(tried, PANEL_TICKS)
        panels.append(
            alt.Chart(inline(values))
            .mark_point(size=40)
            .encode(
                x=alt.X(f"{_field(study, name)}{kind}", title=_title(name), scale=scale, axis=axis),
                y=alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False)),
                color=_state(),
                shape=_shape(),
                tooltip=_tooltip(study),
            )
            .properties(width=PANEL, height=PANEL)
        )
    return alt.concat(*panels, columns=3).resolve_scale(y="shared")


def _parallel(study: StudyResult, metric: str) -> Any:  # noqa: ANN401 (as altair has it)
    axes = [*study.default, metric]
    places: dict[str, dict[Any, float]] = {}
    for axis in axes:
        found = sorted({_on(axis, trial, metric) for trial in study.complete}, key=_order)
        if axis == metric or _is_number(study, axis):
            scale: Callable[[float], float] = math.log if axis in study.logarithmic else float
            low, high = scale(found[0]), scale(found[-1])
            places[axis] = {v: (scale(v) - low) / (high - low) if high > low else 0.5 for v in found}
        else:
            places[axis] = {v: i / (len(found) - 1) if len(found) > 1 else 0.5 for i, v in enumerate(found)}
    lines = [
        _of_trial(study, trial) | {"axis": axis, "place": places[axis][_on(axis, trial, metric)]}
        for trial in reversed(study.complete)  # the best on top
        for axis in axes
    ]
    ends = [
        {"axis": axis, "place": place, "shown": f"{v:.3g}" if isinstance(v, float) else str(v)}
        for axis in axes
        for v, place in places[axis].items()
        if place in {0.0, 1.0} or not (axis == metric or _is_number(study, axis))
    ]
    x = alt.X("axis:N", sort=axes, title=None, axis=alt.Axis(labelAngle=0, grid=True, domain=False))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.05, 1.05]))
    drawn = alt.Chart(inline(lines)).mark_line(strokeWidth=1.6, opacity=0.8)
    named = alt.Chart(inline(ends)).mark_text(align="left", dx=5, fontSize=10)
    return (
        drawn.encode(
            x=x,
            y=y,
            detail="trial:N",
            color=alt.Color("value:Q", title=metric, scale=alt.Scale(scheme="viridis", zero=False)),
            tooltip=_tooltip(study),
        )
        + named.encode(x=x, y=y, text="shown:N")
    ).properties(width=max(WIDTH - 60, NAME_LETTER * max(map(len, axes)) * len(axes)), height=240)


def _importance(study: StudyResult) -> Any:  # noqa: ANN401 (as altair has it)
    values = [{"setting": name, "share": share} for name, share in study.importance.items()]
    return (
        alt.Chart(inline(values))
        .mark_bar(color=STATES["complete"], height={"band": 0.7})
        .encode(
            x=alt.X("share:Q", title="share", axis=alt.Axis(format="%")),
            y=alt.Y("setting:N", title=None, sort="-x", axis=alt.Axis(labelLimit=0)),
            tooltip=["setting:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width=WIDTH - 160, height=alt.Step(26))
    )


def _is_number(study: StudyResult, name: str) -> bool:
    return all(
        isinstance(t.settings[name], int | float) and not isinstance(t.settings[name], bool) for t in study.trials
    )


def _order(value: Any) -> tuple[bool, Any]:  # noqa: ANN401 (a setting's value)
    """Put numbers before words, so that both fit on one axis."""
    return isinstance(value, str), value


def _on(axis: str, trial: TrialResult, metric: str) -> Any:  # noqa: ANN401 (a setting's value)
    return trial.value if axis == metric else trial.settings[axis]


def _of_trial(study: StudyResult, trial: TrialResult) -> dict[str, Any]:
    state = "pruned" if trial.pruned else "complete"
    return {"trial": trial.number, "value": trial.value, "state": state, "epochs": trial.epochs} | {
        _field(study, name): value for name, value in trial.settings.items()
    }


def _field(study: StudyResult, name: str) -> str:
    """Return a name for a setting that Vega does not read as an expression."""
    return f"setting{list(study.default).index(name)}"


def _title(name: str) -> str:
    """Return a setting's name that is safe as an axis title: Vega-Lite makes expressions of titles, unescaped."""
    return visible(name).replace("\\", "\N{REVERSE SOLIDUS OPERATOR}")


def _tooltip(study: StudyResult) -> list[Any]:
    kinds = {name: "Q" if _is_number(study, name) else "N" for name in study.default}
    settings = [alt.Tooltip(f"{_field(study, name)}:{kind}", title=_title(name)) for name, kind in kinds.items()]
    return ["trial:Q", alt.Tooltip("value:Q", format=".4f"), *settings, "epochs:Q", "state:N"]


def _state() -> alt.Color:
    return alt.Color("state:N", title=None, scale=alt.Scale(domain=list(STATES), range=list(STATES.values())))


def _shape() -> alt.Shape:
    return alt.Shape("state:N", title=None, scale=alt.Scale(domain=list(STATES), range=["circle", "cross"]))
