"""One row per worker: its cell and its progress."""

from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from ipsrec_bench.events import MAIN_STAGE
from ipsrec_bench.tui.lines import DOT, Part, bar, decimal, fit, fit_pair, line, rate, size, sparkline
from ipsrec_bench.tui.state import Layout, RunningCell, RunState, Worker

NARROW = 52
"""Columns of a terminal below which a worker takes two lines."""
LEAST_SUBJECT = 20
"""Minimum columns of a cell's name; other columns are left out to make room for it."""
LONGEST_SUBJECT = 60
LONGEST_NAME = 16
LONGEST_STAGE = 8
"""Columns of the name of another stage than the main one."""
LEAST_SPARK = 8
MOST_SPARK = 24


@dataclass(frozen=True)
class _Widths:
    """Columns of the terminal for each part of a row; 0 leaves it out."""

    name: int
    subject: int
    bar: int
    epoch: int
    spark: int
    valid: int
    loss: int
    rate: int
    memory: int
    load: int
    gap: int


def worker_lines(state: RunState, width: int, room: int) -> list[Text]:
    """Return the rows of all workers, as far as `room` lines allow, below a head."""
    workers = list(state.workers.values())
    if not workers:
        return [line(("no worker is ready yet", "dim"))] if state.left or state.search is not None else []
    is_narrow = width < NARROW
    fitting = max(1, (room - 1) // (2 if is_narrow else 1))
    shown = workers if len(workers) <= fitting else workers[: max(1, fitting - 1)]
    hidden = workers[len(shown) :]
    widths = _widths(state, width)
    lines = [_head(state, widths, is_narrow=is_narrow)]
    for worker in shown:
        cell = state.running.get(worker.key) if worker.key is not None else None
        if is_narrow:
            lines += _two_lines(state, worker, cell, width)
        else:
            lines.append(_row(state, worker, cell, widths))
    if hidden:
        busy = sum(worker.key is not None for worker in hidden)
        gone = sum(worker.reason is not None for worker in hidden)
        idle = len(hidden) - busy - gone
        counts = [f"{count} {what}" for count, what in ((busy, "busy"), (idle, "idle"), (gone, "ended")) if count]
        lines.append(line((f"… {len(hidden)} more workers: {', '.join(counts)}", "dim")))
    return lines


def _widths(state: RunState, width: int) -> _Widths:
    """Return widths that follow from the plan and the terminal, so that no column moves while cells come and go."""
    name = max(cell_len(_short(worker)) for worker in state.workers.values())
    is_seen = any(worker.name for worker in state.workers.values())
    counts = max((len(str(cell.epochs)) for cell in state.running.values()), default=3)
    others = [one for cell in state.running.values() for one in cell.stages if one[0] != MAIN_STAGE]
    stages = [_stage_epoch(*stage, stage[1]) for stage in others]
    is_wide, is_wider = width >= 100, width >= 130  # noqa: PLR2004 (where there is room)
    parts = {
        "name": min(LONGEST_NAME, max(name, 6)) if name else 0,
        "bar": 20 if is_wider else 8 if is_wide else 4,
        "epoch": max(2 * counts + 1, 7, *map(cell_len, stages)),
        "spark": 0,
        "valid": 6,
        "loss": 5,
        "rate": 9 if is_wider else 6,
        "memory": 4 if is_seen else 0,
        "load": 4 if is_seen else 0,
    }
    gap = 2 if is_wider else 1

    def left() -> int:
        return width - sum(part + gap for part in parts.values() if part)

    planned = _longest_subject(state.plan)
    running = [cell_len(DOT.join(_subject(state, cell))) for cell in state.running.values()]
    longest = min(LONGEST_SUBJECT, max([planned, *running, LEAST_SUBJECT]))
    parts["spark"] = min(MOST_SPARK, max(0, left() - longest - gap))
    if parts["spark"] < LEAST_SPARK:
        parts["spark"] = LEAST_SPARK if is_wide else 0
    for part in ("load", "memory", "loss", "rate"):
        if left() < LEAST_SUBJECT:
            parts[part] = 0
    return _Widths(**parts, subject=min(left(), longest), gap=gap)


def _head(state: RunState, widths: _Widths, *, is_narrow: bool) -> Text:
    if is_narrow:
        return line(("Workers", "dim"))
    metrics = {cell.stop_metric for cell in state.running.values() if cell.epochs > 1}
    valid = widths.spark + widths.gap + widths.valid if widths.spark else widths.valid
    titles = [*(f"validation {metric}" for metric in metrics if len(metrics) == 1), "validation", "valid"]
    title = next((title for title in titles if len(title) <= valid), titles[-1])
    parts = [
        fit("worker", widths.name),
        fit("cell", widths.subject),
        fit("epoch", widths.bar + widths.gap + widths.epoch),
        fit(title, valid, right=not widths.spark),
        fit("loss", widths.loss, right=True),
        fit("targets/s" if widths.rate >= len("targets/s") else "tgts/s", widths.rate, right=True),
        fit("memory" if widths.memory >= len("memory") else "mem", widths.memory, right=True),
        fit("load", widths.load, right=True),
    ]
    return line(((" " * widths.gap).join(part for part in parts if part), "dim"))


def _row(state: RunState, worker: Worker, cell: RunningCell | None, widths: _Widths) -> Text:
    row: list[Part] = []

    def put(width: int, *parts: Part) -> None:
        if width:
            row.extend((*parts, (" " * widths.gap, "")))

    put(widths.name, (fit(_short(worker), widths.name), "bold" if worker.key else "dim"))
    if cell is None:
        inner = (widths.bar, widths.epoch, widths.spark, widths.valid, widths.loss, widths.rate)
        rest = widths.subject + sum(part + widths.gap for part in inner if part)
        text, style = _without_cell(worker)
        put(rest, (fit(text, rest), style))
    else:
        put(widths.subject, (fit_pair(*_subject(state, cell), widths.subject), "cyan"))
        put(widths.bar, *_progress(cell, widths.bar))
        put(widths.epoch, (fit(_epoch(cell), widths.epoch, right=True), ""))
        put(widths.spark, (fit(sparkline(cell.valid, widths.spark), widths.spark), "green"))
        put(widths.valid, (fit(f"{cell.valid[-1]:.4f}" if cell.valid else "", widths.valid, right=True), ""))
        put(widths.loss, (fit("" if cell.loss is None else decimal(cell.loss), widths.loss, right=True), ""))
        put(widths.rate, (fit("" if cell.rate is None else rate(cell.rate), widths.rate, right=True), ""))
    put(widths.memory, (fit("" if worker.memory is None else size(worker.memory), widths.memory, right=True), "dim"))
    load = "" if worker.load is None or cell is None else f"{worker.load:.1f}"
    put(widths.load, (fit(load, widths.load, right=True), "dim"))
    return line(*row[:-1])


def _two_lines(state: RunState, worker: Worker, cell: RunningCell | None, width: int) -> list[Text]:
    name = f"{_short(worker)} " if worker.name else ""
    if cell is None:
        text, style = _without_cell(worker)
        return [line(name, (fit(text, width - cell_len(name)).rstrip(), style)), line("")]
    subject = fit_pair(*_subject(state, cell), width - cell_len(name)).rstrip()
    rest = [f" {_epoch(cell)}", *(f"{value:.4f}" for value in cell.valid[-1:])]
    if worker.memory is not None:
        rest.append(size(worker.memory))
    return [line(name, (subject, "cyan")), line("  ", *_progress(cell, 8), " · ".join(rest))]


def _progress(cell: RunningCell, width: int) -> list[Part]:
    """Return the bar of a cell; epochs of an earlier attempt have another colour."""
    before = cell.resumed / max(1, cell.epochs)
    return bar([(before, "blue"), (cell.progress - before, "cyan")], width)


def _epoch(cell: RunningCell) -> str:
    return _stage_epoch(*cell.current)


def _stage_epoch(stage: str, epoch: int, epochs: int) -> str:
    name = fit(stage, LONGEST_STAGE).rstrip() if cell_len(stage) > LONGEST_STAGE else stage
    return f"{name} {epoch}/{epochs}".lstrip()


def _longest_subject(plan: Layout) -> int:
    """Return the columns of the longest name of a cell."""
    is_single = len(plan.datasets) == 1
    seeds = [f"seed {seed}" if is_single else str(seed) for seed in plan.seeds]
    parts = [plan.labels, seeds] if is_single else [plan.labels, plan.datasets, seeds]
    longest = [max(cell_len(text) for text in texts) for texts in parts if texts]
    return sum(longest) + cell_len(DOT) * (len(longest) - 1)


def _subject(state: RunState, cell: RunningCell) -> tuple[str, str, str]:
    """Return model, dataset and seed; the dataset is empty if there is only one."""
    if state.search is not None or len(state.plan.datasets) == 1:
        return cell.label, "", f"seed {cell.seed}"
    return cell.label, cell.dataset, str(cell.seed)


def _short(worker: Worker) -> str:
    """Return name and device, without the word in the column's head."""
    return f"{worker.name.removeprefix('worker ')} {worker.device}".strip()


def _without_cell(worker: Worker) -> Part:
    if worker.reason is None:
        return "idle", "dim"
    return ("✗ died", "red") if worker.reason else ("ended", "dim")
