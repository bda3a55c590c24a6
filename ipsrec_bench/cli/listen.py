"""Listeners of a run's events: live dashboard, plain lines, JSON lines, or nothing."""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console, RenderableType
from rich.live import Live

from ipsrec_bench.events import CellFailed, Emit, Event, StepDone, TrialEnded
from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.tui.plain import plain_line
from ipsrec_bench.tui.state import RunState, fold

REFRESH_PER_SECOND = 5


@contextlib.contextmanager
def listener(console: Console, *, quiet: bool, as_json: bool) -> Iterator[Emit]:
    """Give the run something to tell its events to.

    JSON lines if asked for; else nothing but failures, as errors, if quiet; else the dashboard on a terminal that shows
    Unicode and plain, timestamped lines anywhere else.
    """
    if as_json:
        yield lambda event: None if isinstance(event, StepDone) else print(event.to_json(), flush=True)  # noqa: T201
    elif quiet or not console.is_terminal or not console.encoding.startswith("utf"):  # it needs blocks and dots

        def log(event: Event) -> None:
            line = plain_line(event, datetime.now().astimezone())
            if line is not None and (not quiet or _is_failure(event)):
                print(line, flush=True, file=sys.stderr if quiet else sys.stdout)

        yield log
    else:
        with _live(console) as emit:
            yield emit


def _is_failure(event: Event) -> bool:
    return isinstance(event, CellFailed) or (isinstance(event, TrialEnded) and bool(event.error))


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Emit]:
    state = RunState(began=time.monotonic())

    def picture() -> RenderableType:
        return dashboard(state, time.monotonic(), console.size.height)

    def emit(event: Event) -> None:
        nonlocal state
        state = fold(state, event, time.monotonic())

    with Live(get_renderable=picture, console=console, refresh_per_second=REFRESH_PER_SECOND):
        yield emit
