"""The same work in several processes of this machine, what they tell in one stream."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit, Event
from ipsrec_bench.run.environment import prepare_process
from ipsrec_bench.run.signals import STOPPING

Work = Callable[[Emit], None]
"""What a process does until nothing is left; it and what it holds can be pickled. A `KeyboardInterrupt` that `emit`
raises tells it to stop."""

ENDING_SECONDS = 60
"""How long interrupted processes are waited for; they notice at their next event."""


def side_by_side(work: Work, processes: int, threads: int, emit: Emit, on_death: Callable[[], None]) -> bool:
    """Do `work` in `processes` processes, with `threads` threads each, and pass on their events.

    Processes end when their work does, when this one is interrupted, and when this one is no more: each finds its pipe
    closed and stops as if by Ctrl-C. One that is killed (out of memory, say) is replaced.

    Args:
        work: what each of them does.
        processes: their number.
        threads: of torch, each.
        emit: receives all their events.
        on_death: called when one was killed, before it is replaced; may raise to end them all.

    Returns:
        Whether they came to their end; False if they were interrupted.

    Raises:
        BenchError: one of them did, or `on_death`.
    """
    team = _Team(work, threads)
    try:
        for _ in range(processes):
            team.start()
        while team.members:
            for pipe in wait(list(team.members)):
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except (EOFError, OSError):  # the latter if it was killed within a message
                    code = team.end(pipe)
                    if code > 0:
                        raise BenchError("a process ended in an unexpected error, which is printed above") from None
                    if code < 0:
                        on_death()
                        team.start()
                    continue
                if isinstance(message, BenchError):
                    raise message
                emit(message)
    except KeyboardInterrupt:
        return False
    finally:
        team.stop()
    return True


@dataclass
class _Team:
    """Processes at work, each by the end of its pipe that is here."""

    work: Work
    threads: int
    members: dict[Connection, BaseProcess] = field(default_factory=dict)

    def start(self) -> None:
        """Begin one more."""
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_member, args=(self.work, self.threads, there))
        # Ctrl-C, or the end of a terminal, reaches all processes: these are to stop when this one closes their pipes.
        # What is blocked now stays so there.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        there.close()  # or its end would not be noticed
        self.members[here] = process

    def end(self, pipe: Connection) -> int:
        """Take leave of one that has closed its end; return its exit code, negative for a signal."""
        process = self.members.pop(pipe)
        pipe.close()
        process.join()
        return process.exitcode or 0

    def stop(self) -> None:
        """Let all that are left stop, and wait for them."""
        for pipe in self.members:
            pipe.close()
        deadline = time.monotonic() + ENDING_SECONDS
        for process in self.members.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        self.members.clear()


def _member(work: Work, threads: int, pipe: Connection) -> None:
    prepare_process(threads)

    def emit(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError:  # nobody is left to work for
            raise KeyboardInterrupt from None

    try:
        work(emit)
    except KeyboardInterrupt:
        return
    except BenchError as error:
        with contextlib.suppress(OSError):
            pipe.send(error)
