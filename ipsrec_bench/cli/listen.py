"""Listeners of a run's events: live dashboard, plain lines, JSON lines, or nothing, and the run's journal.

A listener that fails affects neither the run nor other listeners. All of them use the times of the events, so that a
replayed run looks as it did live.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live

from ipsrec_bench.events import (
    CellFailed,
    CellsAwaited,
    Emit,
    Event,
    ExecutorNotice,
    RunClosed,
    RunFinished,
    RunOpened,
    StepDone,
    StoreBusy,
    TrialEnded,
    WorkerSeen,
)
from ipsrec_bench.run.journal import Journal, Thinner
from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.tui.log import plain_line
from ipsrec_bench.tui.state import RunState, fold
from ipsrec_bench.tui.summary import summary

DRAWING_SHARE = 0.008
"""Maximum share of one core for drawing: a picture of many workers, or on a slow machine, is drawn less often."""
SHORTEST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Seconds between two pictures."""


@contextlib.contextmanager
def listener(console: Console, *, quiet: bool, as_json: bool, journal: Journal | None = None) -> Iterator[Emit]:
    """Yield a callback for the events of a run.

    It prints JSON lines if `as_json`; only failures and waits, on standard error, if `quiet`; else a dashboard on a
    terminal that shows Unicode, and plain, timestamped lines anywhere else. Meanwhile, output that cannot be written is
    dropped, with one warning.

    Args:
        console: where the dashboard appears.
        quiet: show errors only.
        as_json: print events as JSON lines.
        journal: opened, written and closed here; its `control` may be polled meanwhile.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(cast("TextIO", _Lasting(sys.stderr, "standard error"))))
        stack.enter_context(contextlib.redirect_stdout(cast("TextIO", _Lasting(sys.stdout, "standard output"))))
        listeners = []
        if journal is not None:
            write = stack.enter_context(journal).write
            listeners.append(_isolated(write, "the journal cannot be written, so this run cannot be watched"))
        show = stack.enter_context(_screen(console, quiet=quiet, as_json=as_json))
        listeners.append(_isolated(show, "progress cannot be shown any more"))
        yield _fan_out(listeners)


def _screen(console: Console, *, quiet: bool, as_json: bool) -> contextlib.AbstractContextManager[Emit]:
    if as_json:
        return contextlib.nullcontext(_print_json)
    if quiet or not console.is_terminal or not console.encoding.startswith("utf"):  # it needs blocks and dots
        return contextlib.nullcontext(partial(_print_line, quiet=quiet))
    return _live(console)


def _print_json(event: Event) -> None:
    if not isinstance(event, StepDone | WorkerSeen | RunOpened | RunClosed):
        print(event.to_json(), flush=True)  # noqa: T201


def _print_line(event: Event, *, quiet: bool) -> None:
    line = plain_line(event, datetime.fromtimestamp(event.time).astimezone())
    if line is not None and (not quiet or _is_said_under_quiet(event)):
        print(line, flush=True, file=sys.stderr if quiet else sys.stdout)


def _is_said_under_quiet(event: Event) -> bool:
    waits = isinstance(event, StoreBusy | CellsAwaited | ExecutorNotice)
    return waits or isinstance(event, CellFailed) or (isinstance(event, TrialEnded) and bool(event.error))


class _Lasting:
    """A stream that drops its lines once it cannot be written any more: a closed pipe, a full disk, a lost terminal."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (of the stream)
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._is_lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self._is_lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._is_lost = True
        with contextlib.suppress(OSError, ValueError):  # writing the buffer at exit would fail again
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if sys.stderr is not self:
            reason = error.strerror if isinstance(error, OSError) else error
            _warn(f"{self._name} cannot be written any more ({reason}); the work goes on without its lines")


def _fan_out(listeners: Sequence[Emit]) -> Emit:
    def emit(event: Event) -> None:
        for listen in listeners:
            listen(event)

    return emit


def _isolated(listen: Emit, loss: str) -> Emit:
    """Return a callback that passes events to `listen` until that fails, and then drops them, with one warning."""
    is_lost = False

    def emit(event: Event) -> None:
        nonlocal is_lost
        if is_lost:
            return
        try:
            listen(event)
        except Exception as error:  # noqa: BLE001 (whatever a listener raises)
            is_lost = True
            _warn(f"{loss} ({type(error).__name__}: {error}); the work goes on")

    return emit


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Emit]:
    state, last = RunState(), None
    thinner = Thinner()

    def picture() -> RenderableType:
        now = time.time()
        if last is not None:
            now = last.time if isinstance(last, RunFinished | RunClosed) else max(now, last.time)
        return dashboard(state, now, console.size.height)

    def emit(event: Event) -> None:
        nonlocal state, last
        if thinner.passes(event):  # as in the journal: many workers cost little
            state, last = fold(state, event), event

    with _drawn(picture, lambda: summary(state), console):
        yield emit


@contextlib.contextmanager
def _drawn(
    picture: Callable[[], RenderableType], last: Callable[[], RenderableType | None], console: Console
) -> Iterator[None]:
    """Draw a picture that changes, and at the end replace it by `last`, if that returns one.

    After the first error nothing more is drawn, with one warning.
    """
    is_lost = False
    is_over = threading.Event()
    live = Live("", console=console, auto_refresh=False)

    def draw(shown: Callable[[], RenderableType] = picture) -> float:
        """Draw, and return the processor time that it took."""
        nonlocal is_lost
        began = time.thread_time()
        try:
            live.update(shown(), refresh=True)
        except Exception as error:  # noqa: BLE001 (whatever a picture raises)
            is_lost = True
            live.update("", refresh=True)  # or every line that is printed would draw it anew
            _warn(f"progress cannot be shown any more ({type(error).__name__}: {error}); the work goes on")
        return time.thread_time() - began

    def draw_on() -> None:
        wait = SHORTEST_WAIT
        while not is_over.wait(wait) and not is_lost:
            wait = min(max(SHORTEST_WAIT, draw() / DRAWING_SHARE), LONGEST_WAIT)

    thread = threading.Thread(target=draw_on, daemon=True)
    live.start()
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        try:
            thread.join()
            if not is_lost:
                draw(lambda: last() or picture())
        finally:
            live.stop()
