"""Every cell and every mean so far: datasets in columns, models in rows, one mark per seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from rich.cells import cell_len
from rich.text import Text

from ipsrec_bench.tui.lines import Part, fit, line, percent
from ipsrec_bench.tui.standings import Standing, main_metric, standings
from ipsrec_bench.tui.state import CellState, Layout, RunState

MARKS: Mapping[CellState, tuple[str, str]] = {
    "done": ("✓", "green"),
    "running": ("▸", "bold cyan"),
    "resumed": ("↻", "bold blue"),
    "stopped": ("‖", "yellow"),
    "failed": ("✗", "bold red"),
    "queued": ("·", "bright_black"),
}
"""Symbol and style of a cell; the symbols alone distinguish the states."""
VALUE = 8
"""Columns of a mean, with the star of the best and a gap before it."""
DIFFERENCE = 7
"""Columns of a difference, with a gap before it."""
LEAST_NAME = 10
LONGEST_NAME = 28
LEAST_ROWS = 3
MANY_ROWS = 8


@dataclass(frozen=True)
class _Shape:
    """Layout of the table."""

    name: int
    seeds: int
    """Columns for the seeds of a row: marks, or a count."""
    has_marks: bool
    across: int
    """Datasets beside each other."""
    gap: int
    """Columns before each dataset."""
    width: int
    """Columns of the screen."""

    @property
    def cell(self) -> int:
        """Columns of a dataset."""
        return self.seeds + VALUE + DIFFERENCE


def result_lines(state: RunState, width: int, room: int) -> list[Text]:
    """Return the table of results in at most `room` lines, with a legend that counts the cells."""
    plan = state.plan
    if not plan.datasets or room < 1:
        return []
    legend = _legend(state, width)
    room -= 1
    metric = main_metric(state)
    found = standings(state, plan, metric)
    order = _order(plan, found)
    shape = _shape(plan, width, room)
    bands, rows = _bands(plan, shape, room)
    if not bands:
        return [legend]
    datasets = _newest(state, plan, bands * shape.across)
    hidden = [dataset for dataset in plan.datasets if dataset not in datasets]
    lines = [_title(state, metric, width)]
    for start in range(0, len(datasets), shape.across):
        band = datasets[start : start + shape.across]
        lines += _band(state, plan, band, order, rows, shape, found)
    spare = room - len(lines)
    apart = plan.datasets if not shape.has_marks and spare >= len(plan.datasets) else hidden
    if apart and spare > 0:
        lines += _compact(state, plan, apart, width, spare)
    return [*lines, legend]


def _shape(plan: Layout, width: int, room: int) -> _Shape:
    """Return the layout that shows most.

    It prefers, in this order: a table that is not cut, or else few bands; marks to counts; few bands; whole names; wide
    gaps.
    """
    longest = min(LONGEST_NAME, max(cell_len(label) for label in plan.labels))
    seeds = len(plan.seeds)
    count = 2 * len(str(seeds)) + 1
    shapes = []
    for columns, has_marks in ((seeds, True), (count, False)):
        for gap in (3, 2, 1):
            cell = columns + VALUE + DIFFERENCE + gap
            across = max(1, min(len(plan.datasets), (width - min(longest, LEAST_NAME)) // cell))
            name = min(longest, max(LEAST_NAME, width - across * cell))
            shape = _Shape(name, columns, has_marks, across, gap, width)
            bands = ceil(len(plan.datasets) / across)
            is_cut = name + across * cell > width or bands * (len(plan.labels) + 1) >= room
            worse = (is_cut, bands if is_cut else 0, not has_marks, bands, name < longest, -gap)
            shapes.append((worse, shape))
    return min(shapes, key=lambda one: one[0])[1]


def _bands(plan: Layout, shape: _Shape, room: int) -> tuple[int, int]:
    """Return the number of bands of datasets, and of rows in each; there are several only if most rows fit."""
    for bands in range(ceil(len(plan.datasets) / shape.across), 0, -1):
        rest = 0 if bands * shape.across >= len(plan.datasets) else 1
        rows = (room - 1 - rest) // bands - 1
        if rows >= min(len(plan.labels), MANY_ROWS if bands > 1 else LEAST_ROWS):
            return bands, min(len(plan.labels), rows)
    return 0, 0


def _order(plan: Layout, found: Mapping[tuple[str, str], Standing]) -> list[str]:
    """Return the rows by the share of others that are better; rows without a comparison follow."""
    numbers = Counter(dataset for (dataset, _), standing in found.items() if standing.rank is not None)

    def share(label: str) -> float:
        ranks = {dataset: rank for dataset in plan.datasets if (rank := found[dataset, label].rank) is not None}
        others = sum(numbers[dataset] - 1 for dataset in ranks)
        return sum(rank - 1 for rank in ranks.values()) / others if others else 2.0 - bool(ranks)

    return sorted(plan.labels, key=share)


def _newest(state: RunState, plan: Layout, number: int) -> list[str]:
    """Return the `number` datasets with the latest activity, in the plan's order."""
    if number >= len(plan.datasets):
        return list(plan.datasets)
    at_work = [cell.dataset for cell in state.running.values()]
    places = {key: dataset for (dataset, _, _), key in state.places.items()}
    finished = [places[key] for key in reversed(list(state.results)) if key in places]
    wanted = list(dict.fromkeys([*at_work, *finished, *plan.datasets]))[:number]
    return [dataset for dataset in plan.datasets if dataset in wanted]


def _title(state: RunState, metric: str, width: int) -> Text:
    if not metric:
        return line(("Cells, one mark per seed", "dim"))
    to = state.baseline if state.baseline not in {"", "best"} else "the best other row"
    ways = [f"{metric}, mean of the finished seeds, and difference to {to}", f"{metric}, and difference to {to}"]
    return line((next((way for way in ways if cell_len(way) <= width), metric), "dim"))


def _band(
    state: RunState,
    plan: Layout,
    datasets: Sequence[str],
    order: Sequence[str],
    rows: int,
    shape: _Shape,
    found: Mapping[tuple[str, str], Standing],
) -> list[Text]:
    shown = order if len(order) <= rows else order[: rows - 1]
    *others, last = datasets
    heads = "".join(" " * shape.gap + fit(dataset, shape.cell) for dataset in others) + " " * shape.gap
    rest = shape.width - shape.name - cell_len(heads)  # nothing is to the right of the last name
    lines = [line(" " * shape.name, (heads + fit(last, max(shape.cell, rest)).rstrip(), "bold"))]
    for label in shown:
        parts: list[Part] = [(fit(label, shape.name), "")]
        for dataset in datasets:
            parts.append((" " * shape.gap, ""))
            parts += _cell(state, plan, dataset, label, shape, found[dataset, label])
        lines.append(line(*parts))
    if len(shown) < len(order):
        lines.append(line((f"… {len(order) - len(shown)} more rows", "dim")))
    return lines


def _cell(state: RunState, plan: Layout, dataset: str, label: str, shape: _Shape, standing: Standing) -> list[Part]:
    if shape.has_marks:
        parts = [MARKS[mark] if mark else (" ", "") for mark in _marks(state, plan, dataset, label)]
        parts.append((" " * (shape.seeds - len(plan.seeds)), ""))
    else:
        parts = [(fit(f"{standing.seeds}/{len(plan.seeds)}", shape.seeds, right=True), "dim")]
    if standing.value is None:
        return [*parts, (" " * (shape.cell - shape.seeds), "")]
    value = f" {standing.value:.4f}{'*' if standing.is_best else ' '}"
    difference, style = ("base", "dim") if standing.is_baseline else ("", "")
    if standing.difference is not None:
        difference, style = percent(standing.difference), "green" if standing.difference > 0 else "red"
    return [
        *parts,
        (fit(value, VALUE), "bold green" if standing.is_best else ""),
        (fit(difference, DIFFERENCE, right=True), style),
    ]


def _marks(state: RunState, plan: Layout, dataset: str, label: str) -> list[CellState | None]:
    keys = (state.places.get((dataset, label, seed)) for seed in plan.seeds)
    return [None if key is None else state.cell_states[key] for key in keys]


def _compact(state: RunState, plan: Layout, datasets: Sequence[str], width: int, room: int) -> list[Text]:
    """Return a line for each dataset: all its cells, or how many there are of each state."""
    shown = datasets if len(datasets) <= room else datasets[: room - 1]
    name = min(max(cell_len(dataset) for dataset in datasets), max(LEAST_NAME, width // 4))
    lines = []
    for dataset in shown:
        parts: list[Part] = [(fit(dataset, name), "bold"), (" ", "")]
        if name + len(plan.labels) * (len(plan.seeds) + 1) <= width:
            for label in plan.labels:
                marks = _marks(state, plan, dataset, label)
                parts += [(" ", ""), *(MARKS[mark] for mark in marks if mark)]
        else:
            parts += _counts(Counter(mark for label in plan.labels for mark in _marks(state, plan, dataset, label)))
        lines.append(line(*parts))
    if len(shown) < len(datasets):
        rest = datasets[len(shown) :]
        counts = Counter(m for dataset in rest for label in plan.labels for m in _marks(state, plan, dataset, label))
        lines.append(line((f"… {len(rest)} more datasets", "dim"), *_counts(counts)))
    return lines


def _counts(marks: Mapping[CellState | None, int]) -> list[Part]:
    return [(f"  {symbol} {marks[mark]}", style) for mark, (symbol, style) in MARKS.items() if marks.get(mark)]


def _legend(state: RunState, width: int) -> Text:
    marks = Counter(state.cell_states.values())
    shown = [mark for mark in MARKS if marks[mark] or mark != "stopped"]
    words: list[Part] = []
    numbers: list[Part] = []
    for mark in shown:
        symbol, style = MARKS[mark]
        words += [(symbol, style), (f" {marks[mark]} {mark}  ", "dim")]
        numbers += [(symbol, style), (f" {marks[mark]}  ", "dim")]
    for parts in ([*words, ("* best", "dim")], words):
        if cell_len("".join(text for text, _ in parts).rstrip()) <= width:
            return line(*parts)
    return line(*numbers)
