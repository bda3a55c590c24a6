"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: cleanly, with one sentence."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import typer

from ipsrec_bench.run.signals import STOPPING

SAME_SECONDS = 0.5
"""Two signals within this time count as one: the terminal sends Ctrl-C, and the parent process may send it again."""


@dataclass
class _Received:
    """The signal that ends this command."""

    number: int | None = None
    when: float = 0.0
    is_ending: bool = False
    """Whether the process is about to exit; further signals are then ignored."""


_received = _Received()


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
    """Let the signals that end a command raise KeyboardInterrupt, unless they are ignored, as under nohup."""
    _received.number = None
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_if_interrupted() -> None:
    """End this process at once with exit code 128 + signal, if a signal ends it.

    With `python -m`, Python itself would end it by SIGINT if the signal came during `exec`, which the creation of
    classes uses, even though the signal has been handled since.
    """
    if _received.number is None:
        return
    _received.is_ending = True
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    atexit._run_exitfuncs()  # noqa: SLF001 (there is no public way)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + _received.number)


def _stop(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    if _received.is_ending or (_received.number is not None and now - _received.when < SAME_SECONDS):
        return
    _received.number, _received.when = number, now
    raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible(sentence: str) -> Iterator[None]:
    """End the command with `sentence` and exit code 128 + signal if a signal interrupts the body.

    Raises:
        Exit: it was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        pass
    except Exception as error:  # libraries that run C code raise other errors when a signal ends it
        if _received.number is None or isinstance(error, typer.Exit):
            raise
    else:
        return
    typer.echo(f"Interrupted. {sentence}".strip(), err=True)
    raise typer.Exit(128 + (_received.number or signal.SIGINT))
