"""A process that watches over the one that trains, so that a cell that ends its process does not end the run."""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ipsrec_bench.errors import BenchError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command in order."""
MOST_TRIALS_LOST = 10
"""After that many processes that ended at trials of a search, the search is given up; single settings are before."""
_GOODBYE = b"."


@dataclass(frozen=True)
class Supervised:
    """What a child knows of those that it replaces."""

    deaths: int
    """How many of them ended before it."""
    since: datetime
    """When the first of them began, UTC."""


def supervised(store: Path) -> Supervised:
    """Fork, and return in the child alone: it does the work, and is replaced if a cell or a trial ends it.

    The parent waits, passes signals on, and ends as the child does. If the parent is killed, the child kills itself. To
    be called before threads are started.

    Args:
        store: the store's file; deaths are noted beside it.

    Raises:
        BenchError: in the parent: the child ended while it was at neither a cell nor a trial, or trials ended too many.
        SystemExit: in the parent: the child has ended in order.
    """
    deaths, since = 0, datetime.now(UTC)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # none may be lost while there is no child to have it
    while True:
        here, there = socket.socketpair()
        try:
            child = os.fork()
        except OSError:  # too many processes, or too little memory: the work can be done without a parent
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return Supervised(deaths, since)
        if child == 0:
            here.close()
            _tie_to_parent(there)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return Supervised(deaths, since)
        there.close()
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: os.kill(child, number))  # noqa: B023 (the child of now)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # the number stays the child's until it is waited for
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        _, status = os.waitpid(child, 0)
        here.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # a process that the child has forked still holds its end
            if here.recv(1) == _GOODBYE:
                sys.exit(os.waitstatus_to_exitcode(status))
        here.close()
        deaths += 1
        _bury(child, _cause(os.waitstatus_to_exitcode(status)), deaths, store)


def _tie_to_parent(there: socket.socket) -> None:
    """Let this process say goodbye when it ends in order, and end when its parent is killed."""
    atexit.register(there.send, _GOODBYE)  # neither a signal nor os._exit gets there

    def watch() -> None:
        there.recv(1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _bury(child: int, cause: str, deaths: int, store: Path) -> None:
    """Note what a dead child was at, and say so.

    Raises:
        BenchError: it was at nothing that is tried again.
    """
    from ipsrec_bench.run.workplace import MOST_DEATHS, Workplace

    workplace = Workplace(store)
    orphan = workplace.orphan_of(child)
    if orphan is None:
        raise BenchError(f"the process ended early: {cause}")
    if orphan.is_trial:
        if deaths >= MOST_TRIALS_LOST:
            raise BenchError(f"{deaths} processes ended while they were at a trial, the last one so: {cause}")
        print(f"warning: a trial ended its process: {cause}; the search goes on", file=sys.stderr)  # noqa: T201
        return
    number = workplace.note_death(orphan.key, cause)
    fate = "the cell is tried once more" if number < MOST_DEATHS else "the cell is passed over"
    print(f"warning: {orphan.title} ended its process: {cause}; {fate}", file=sys.stderr)  # noqa: T201


def _cause(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    memory = ", out of memory perhaps" if -code == signal.SIGKILL else ""
    return f"it was killed by {signal.Signals(-code).name}{memory}"
