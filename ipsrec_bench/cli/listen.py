"""Listeners of a run's events: live dashboard, plain lines, JSON lines, or nothing.

Nothing that goes wrong here reaches the run: work does not end because somebody stopped to listen.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live

from ipsrec_bench.events import CellFailed, CellsAwaited, Emit, Event, StepDone, StoreBusy, TrialEnded
from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.tui.plain import plain_line
from ipsrec_bench.tui.state import RunState, fold

REFRESH_PER_SECOND = 5


@contextlib.contextmanager
def listener(console: Console, *, quiet: bool, as_json: bool) -> Iterator[Emit]:
    """Give the run a callback for its events.

    JSON lines if asked for; else nothing but failures and what is waited for, as errors, if quiet; else the dashboard
    on a terminal that shows Unicode and plain, timestamped lines anywhere else. Meanwhile, what cannot be written to
    standard output or standard error is dropped, with one warning.
    """
    with (
        contextlib.redirect_stderr(cast("TextIO", _Lasting(sys.stderr, "standard error"))),
        contextlib.redirect_stdout(cast("TextIO", _Lasting(sys.stdout, "standard output"))),
    ):
        if as_json:
            yield _isolated(_print_json)
        elif quiet or not console.is_terminal or not console.encoding.startswith("utf"):  # it needs blocks and dots

            def log(event: Event) -> None:
                line = plain_line(event, datetime.now().astimezone())
                if line is not None and (not quiet or _is_said_under_quiet(event)):
                    print(line, flush=True, file=sys.stderr if quiet else sys.stdout)

            yield _isolated(log)
        else:
            with _live(console) as emit:
                yield _isolated(emit)


def _print_json(event: Event) -> None:
    if not isinstance(event, StepDone):
        print(event.to_json(), flush=True)  # noqa: T201


def _is_said_under_quiet(event: Event) -> bool:
    waits = isinstance(event, StoreBusy | CellsAwaited)
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
        with contextlib.suppress(OSError, ValueError):  # what is buffered would fail once more at the end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if sys.stderr is not self:
            reason = error.strerror if isinstance(error, OSError) else error
            _warn(f"{self._name} cannot be written any more ({reason}); the work goes on without its lines")


def _isolated(listen: Emit) -> Emit:
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
            _warn(f"progress cannot be shown any more ({type(error).__name__}: {error}); the work goes on")

    return emit


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def _live(console: Console) -> Iterator[Emit]:
    state = RunState()

    def picture() -> RenderableType:
        return dashboard(state, time.time(), console.size.height)

    def emit(event: Event) -> None:
        nonlocal state
        state = fold(state, event)

    with Live(get_renderable=picture, console=console, refresh_per_second=REFRESH_PER_SECOND):
        yield emit
