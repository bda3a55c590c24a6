"""Line charts as text: each character holds a grid of two by four dots (Braille)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rich.text import Text

from ipsrec_bench.models.stages import MAIN
from ipsrec_bench.store.queries import CurvePoint

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a Braille character by row and column of the dot."""
ACROSS, DOWN = 2, 4
AXIS = 9
"""Columns left of the chart: a value and the axis."""
LEAST_WIDTH, LEAST_HEIGHT = 24, 5
"""Below this many columns or lines, no chart is drawn."""
SEED_STYLES = ("cyan", "green", "yellow", "magenta", "blue", "red")
"""Of the curves of one row, in the order of their seeds."""


@dataclass(frozen=True)
class Series:
    """A line of a chart."""

    points: tuple[tuple[float, float], ...]
    """x and y, x ascending."""
    style: str
    """How Rich draws it; a later series is drawn over an earlier one."""


@dataclass(frozen=True)
class Kind:
    """What a learning curve shows: the validation metric, the loss that was minimised, or that of one task."""

    stage: str = MAIN
    of: Literal["validation", "loss", "task"] = "validation"
    task: str = ""
    """Name of the task's loss."""

    def named(self, metric: str) -> str:
        """Return what it shows, in words; `metric` is the stopping metric."""
        if self.of == "validation":
            return f"validation {metric.upper()}".strip()
        before = "" if self.stage == MAIN else f"{self.stage}, "
        return f"{before}training loss" if self.of == "loss" else f"{before}loss of {self.task}"


VALIDATION, LOSS = Kind(), Kind(of="loss")


def kinds_of(points: Iterable[CurvePoint]) -> list[Kind]:
    """Return the curves that a cell has: validation and loss, then the stages and tasks that the loss consists of."""
    parts: dict[str, dict[str, None]] = {}
    for point in points:
        parts.setdefault(point.stage, {}).update(dict.fromkeys(point.losses))
    kinds = [VALIDATION, LOSS]
    for stage, tasks in parts.items():
        if stage != MAIN:
            kinds.append(Kind(stage, "loss"))
        if len(tasks) > 1:
            kinds += [Kind(stage, "task", task) for task in tasks]
    return kinds


def curve(points: Sequence[CurvePoint], kind: Kind) -> tuple[tuple[float, float], ...]:
    """Return the values of a curve by epoch."""
    found = []
    for point in points:
        if point.stage == kind.stage:
            value = {"validation": point.valid, "loss": point.loss}.get(kind.of, point.losses.get(kind.task))
            if value is not None:
                found.append((float(point.epoch), value))
    return tuple(found)


def chart(series: Sequence[Series], width: int, height: int, x_title: str) -> Text:
    """Return the series in `width` columns and `height` lines, axes included.

    An empty text where there are no points, or too little room.
    """
    points = [point for one in series for point in one.points]
    if not points or width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return Text()
    columns, rows = width - AXIS, height - 2
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across = (columns * ACROSS - 1) / ((right - left) or 1.0)
    up = (rows * DOWN - 1) / ((high - low) or 1.0)
    dots: dict[tuple[int, int], int] = {}
    styles: dict[tuple[int, int], str] = {}
    for one in series:
        places = [(round((x - left) * across), round((high - y) * up)) for x, y in one.points]
        for x, y in _joined(places):
            place = x // ACROSS, y // DOWN
            dots[place] = dots.get(place, 0) | _DOTS[y % DOWN][x % ACROSS]
            styles[place] = one.style
    lines = [_line(row, {0: high, rows - 1: low}, columns, dots, styles) if rows > 1 else Text() for row in range(rows)]
    ends = f"{left:g}", f"{right:g}"
    between = columns - len(ends[0]) - len(ends[1])
    below = Text(" " * AXIS + ends[0] + x_title.center(between)[:between] + ends[1], style="dim")
    return Text("\n").join([*lines, Text(" " * (AXIS - 1) + "└" + "─" * columns, style="dim"), below])


def _joined(places: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the dots of the straight lines between neighbouring places."""
    dots = set(places[:1])
    for (x0, y0), (x1, y1) in pairwise(places):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        dots |= {(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)) for i in range(steps + 1)}
    return dots


def _line(
    row: int,
    labels: Mapping[int, float],
    columns: int,
    dots: Mapping[tuple[int, int], int],
    styles: Mapping[tuple[int, int], str],
) -> Text:
    label = f"{labels[row]:.4g}" if row in labels else ""
    line = Text(f"{label:>{AXIS - 2}} │", style="dim")
    for column in range(columns):
        place = column, row
        line.append(chr(_BLANK + dots[place]) if place in dots else " ", style=styles.get(place, ""))
    return line
