"""The live dashboard: a run's state as a Rich renderable."""

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from ipsrec_bench.tui.lines import Part, about, bar, clock, facts, fit, line, segments
from ipsrec_bench.tui.pace import remaining_seconds
from ipsrec_bench.tui.results import result_lines
from ipsrec_bench.tui.search import search_header, trial_lines
from ipsrec_bench.tui.state import RunState
from ipsrec_bench.tui.workers import worker_lines

MARGIN = 1
SHOWN_FAILURES = 3
SHORT = 30
"""Lines of a terminal below which fewer failures are shown, to leave room for the results."""


def dashboard(state: RunState, now: float, height: int) -> RenderableType:
    """Return the picture of `state` at `now`, in seconds since 1970, for a terminal of `height` lines.

    When the run is finished, `now` is the end of it.
    """
    return _Picture(state, now if state.finished is None else state.finished.time, height)


@dataclass(frozen=True)
class _Picture:
    """Lines that fit the terminal's width, the most important ones first."""

    state: RunState
    now: float
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(10, options.max_width - 2 * MARGIN)
        for made in self._lines(width)[: self.height]:
            made.truncate(width, overflow="ellipsis")
            yield Segment(" " * MARGIN)
            yield from segments(made, console)
            yield Segment.line()

    def _lines(self, width: int) -> list[Text]:
        state, search = self.state, self.state.search
        if search is None:
            lines = _header(state, self.now, width)
        else:
            lines = [_title(state, width), *search_header(state, search, self.now, width)]
        failures = _failures(state, width, SHOWN_FAILURES if self.height >= SHORT else SHOWN_FAILURES - 1)
        left_out = [line((f"{d.dataset}: left out: {d.reason}", "yellow")) for d in state.left_out]
        room = self.height - len(lines) - len(failures)
        if state.finished is None:
            workers = worker_lines(state, width, max(2, room // 2))
            lines += workers
        if failures:
            lines += failures
        is_planned = bool(state.places) or search is not None
        if is_planned:
            lines += left_out[: max(0, self.height - len(lines) - 8)]
        room = self.height - len(lines)
        if search is not None:
            below = trial_lines(state, search, width, room - 1)
        else:
            below = result_lines(state, width, room - 1)
        if below:
            lines += [line(""), *below]
        data = [] if is_planned else left_out
        data += _datasets(state)
        room = self.height - len(lines) - 1
        if data and (not is_planned or room > len(data)):
            lines += [line(""), *data[: max(0, room)]]
        return lines


def _header(state: RunState, now: float, width: int) -> list[Text]:
    """Return title and status, bar, facts, and a line for what the run waits for."""
    lines = [_title(state, width)]
    if not state.cells:
        return [*lines, line((state.waiting, "yellow"))] if state.waiting else lines
    progress = sum(cell.progress for cell in state.running.values())
    shares = [
        (state.done / state.cells, "green"),
        (len(state.failed) / state.cells, "red"),
        (min(progress, state.left) / state.cells, "cyan"),
    ]
    lines.append(line(*bar(shares, width)))
    lines.append(_facts(state, now, width))
    lines.append(line((state.waiting, "yellow")) if state.waiting else line(""))
    return lines


def _facts(state: RunState, now: float, width: int) -> Text:
    """Return the run's progress; facts that follow from others are dropped first if the line is too short."""
    before = f" ({state.skipped} before this run)" if state.skipped and width >= 100 else ""  # noqa: PLR2004 (columns)
    parts: dict[str, Part] = {"done": (f"{state.done} of {state.cells} done{before}", "")}
    if state.failed:
        parts["failed"] = (f"{len(state.failed)} failed", "bold red")
    parts["left"] = (f"{state.left} left", "")
    parts["elapsed"] = (f"{clock(now - (now if state.began is None else state.began))} elapsed", "")
    left = remaining_seconds(state, now) if state.finished is None else None
    if left is not None:
        parts["to go"] = (f"{about(left)} to go", "")
    return facts(parts, width, dispensable=("left", "elapsed"))


def _title(state: RunState, width: int) -> Text:
    status, style = _status(state)
    title = fit(state.title, max(1, width - cell_len(status) - 1))
    return line((title, "bold"), " ", (status, style))


def _status(state: RunState) -> tuple[str, str]:
    if state.finished is not None:
        return ("interrupted", "yellow") if state.finished.interrupted else ("finished", "green")
    if state.paused is not None:
        return "‖ PAUSED", "bold yellow"
    if state.waiting is not None:
        return "waiting", "yellow"
    return ("running", "green") if state.cells or state.running else ("", "")


def _failures(state: RunState, width: int, most: int) -> list[Text]:
    """Return the newest failures of cells, trials and workers, one line each."""
    found = [
        (failed.time, f"✗ {failed.label} · {failed.dataset} · {failed.seed}: {failed.error}", "red")
        for failed in state.failed.values()
    ]
    found += [(trial.time, f"✗ trial {trial.number}: {trial.error}", "red") for trial in state.trials if trial.error]
    found += [(death.time, f"! {death.worker} died: {death.reason}", "yellow") for death in state.deaths]
    found.sort(key=lambda one: one[0])
    return [line((fit(text, width).rstrip(), style)) for _, text, style in found[-most:]]


def _datasets(state: RunState) -> list[Text]:
    """Return the sizes of the datasets, and the notes from reading them."""
    lines = []
    for d in state.datasets:
        sizes = f"{d.users:,} users, {d.items:,} items, {d.providers:,} providers, {d.actions:,} interactions"
        lines.append(line((f"{d.dataset}: {sizes}", "dim")))
        lines += [line((f"{d.dataset}: {note}", "yellow")) for note in d.notes]
    return lines
