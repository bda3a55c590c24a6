"""The executor `inline`: tasks run one after the other in this process, for debuggers and tests."""

import os
import socket
import time

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit, Event, WorkerStarted
from ipsrec_bench.run.executors.api import Done, Executor, Outcome, Place, Refused, Slot, Stop, Stopped, Task, Tick

HELD_SECONDS = 0.2
"""Interval at which a paused task checks whether it may continue."""


class Inline(Executor):
    """Executor with one slot, which is this process."""

    def __init__(self, device: str, threads: int, emit: Emit, tick: Tick) -> None:
        """Run tasks on `device` with `threads` torch threads."""
        self._slot = Slot("this process", device, threads)
        self._emit, self._tick = emit, tick
        self._task: Task | None = None
        self._ended: list[Outcome] = []
        self._is_ready = self._is_told_to_stop = self._is_held = False

    def free(self) -> list[Slot]:
        """Return the slot, unless a task was begun."""
        return [] if self._task else [self._slot]

    def begin(self, slot: Slot, task: Task) -> None:
        """Take a task, which `outcomes` then runs."""
        self._task, self._is_told_to_stop = task, False
        if not self._is_ready:
            from ipsrec_bench.run.environment import prepare_process

            prepare_process(slot.threads)
            self._say(WorkerStarted(slot.device, socket.gethostname(), os.getpid(), slot.threads))
            self._is_ready = True

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Run the task to its end, however long that takes; return its outcome."""
        task, ended = self._task, self._ended
        if task is None:
            self._ended = []
            if not ended:
                time.sleep(min(seconds, HELD_SECONDS))
                self._tick()
            return ended
        place = Place(self._slot.worker, self._slot.device, self._slot.threads, task.folder)
        try:
            return [Done(task.key, task.work(place, task.data, self._listen))]
        except Stop:
            return [Stopped(task.key)]
        except KeyboardInterrupt:  # Ctrl-C, which is for the run
            self._ended = [Stopped(task.key)]
            raise
        except BenchError as error:
            return [Refused(task.key, error)]
        finally:
            self._task = None

    def stop(self, key: str) -> None:  # noqa: ARG002 (there is one task)
        """Stop the task at its next event."""
        self._is_told_to_stop = True

    def kill(self, key: str, cause: str) -> None:  # noqa: ARG002 (it does not die)
        """Stop the task."""
        self.stop(key)

    def pause(self, *, held: bool) -> None:
        """Make the task wait at its next event if `held`, else let it continue."""
        self._is_held = held

    def close(self) -> None:
        """Do nothing: there is no worker process to end."""

    def _say(self, event: Event) -> None:
        object.__setattr__(event, "worker", self._slot.worker)
        self._emit(event)

    def _listen(self, event: Event) -> None:
        self._say(event)
        self._tick()
        while self._is_held and not self._is_told_to_stop:
            time.sleep(HELD_SECONDS)
            self._tick()
        if self._is_told_to_stop:
            raise Stop
