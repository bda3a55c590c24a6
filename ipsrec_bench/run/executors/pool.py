"""The executor `pool`: tasks run in fresh processes of this machine, one process per slot."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit, Event, WorkerEnded, WorkerSeen, WorkerStarted
from ipsrec_bench.run.executors.api import (
    Died,
    Done,
    Executor,
    Outcome,
    Place,
    Refused,
    Slot,
    Stop,
    Stopped,
    Task,
    Tick,
)
from ipsrec_bench.run.signals import STOPPING
from ipsrec_bench.run.workplace import LOG

TICK_SECONDS = 0.2
SEEN_SECONDS = 2.0
"""Interval at which a worker reports its memory and processor use."""
_STOP, _HOLD, _GO = "stop", "hold", "go"


@dataclass(frozen=True)
class _Packed:
    """A pickled task; the worker unpickles it while output goes to the task's log, because modules may print."""

    key: str
    folder: Path
    task: bytes


@dataclass(frozen=True)
class _Last:
    """Outcome of a task that left its device unusable; the worker ends after it."""

    outcome: Outcome


@dataclass(frozen=True)
class _Broken:
    """A task raised an error that is not a `BenchError`."""

    key: str
    trace: str


@dataclass
class _Member:
    """A worker's process and its current task."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    cause: str = ""
    """Why this process killed it; empty if it did not."""
    is_ready: bool = False
    """Whether it has reported that it started."""


class Pool(Executor):
    """Executor whose slots are processes of this machine.

    A process starts with its slot's first task and runs all later ones. If it dies, the slot's next task starts a new
    one. If this process dies, all workers end at once.
    """

    def __init__(self, slots: Sequence[Slot], emit: Emit, tick: Tick) -> None:
        """Run tasks in `slots`."""
        self._slots, self._emit, self._tick = slots, emit, tick
        self._members: dict[str, _Member] = {}
        """By the names of their slots."""
        self._is_held = False
        self._ended: list[Outcome] = []
        """Outcomes that were not returned yet: Ctrl-C may interrupt `outcomes` at any point."""

    def free(self) -> list[Slot]:
        """Return the slots whose process is idle or not started."""
        return [slot for slot in self._slots if slot.worker not in self._members or not self._at(slot.worker)]

    def begin(self, slot: Slot, task: Task) -> None:
        """Hand a task to the slot's process."""
        packed = _Packed(task.key, task.folder, pickle.dumps(task))
        member = self._members.get(slot.worker)
        if member is not None:
            member.task = task
            with contextlib.suppress(OSError):
                member.pipe.send(packed)
                return
            self._bury(slot.worker)  # it died while it was idle
        member = self._members[slot.worker] = _start(slot)
        member.task = task
        with contextlib.suppress(OSError):  # it died at once, which `outcomes` finds
            if self._is_held:
                member.pipe.send(_HOLD)
            member.pipe.send(packed)

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Pass on the events of workers until a task ends or `seconds` have passed; return all outcomes."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            names = {member.pipe: name for name, member in self._members.items()}
            if not names:
                time.sleep(min(left, TICK_SECONDS))
            ready = wait(list(names), min(left, TICK_SECONDS)) if names else ()
            for pipe in ready:
                self._hear(names[pipe], pipe)  # type: ignore[index, arg-type]
            for name, member in list(self._members.items()):
                # A process that the task has forked keeps the pipe open.
                if member.process.exitcode is not None and not member.pipe.poll():
                    self._lose(name)
            self._tick()
            if self._ended or time.monotonic() >= deadline:
                ended, self._ended = self._ended, []
                return ended

    def _hear(self, name: str, pipe: Connection) -> None:
        """Handle one message of a worker."""
        try:
            message = pipe.recv()
        except (EOFError, OSError):  # OSError if it was killed within a message
            self._lose(name)
            return
        member = self._members[name]
        if isinstance(message, Event):
            member.is_ready = True
            self._emit(message)
            return
        member.task = None
        if isinstance(message, _Last):
            member.cause = "its device failed"
            member.process.kill()
            self._bury(name)
            message = message.outcome
        if not isinstance(message, _Broken):
            self._ended.append(message)
            return
        raise RuntimeError(f"{name} raised an unexpected error:\n{message.trace}")

    def _lose(self, name: str) -> None:
        """Remove a dead worker, and report the death of its task.

        Raises:
            BenchError: the worker could not even start.
        """
        member = self._members[name]
        cause = self._bury(name)
        if not member.is_ready and (member.process.exitcode or 0) > 0:  # so would any other
            raise BenchError(f"{name} could not start: {cause}; see its output")
        if member.task is not None:
            self._ended.append(Died(member.task.key, cause))

    def stop(self, key: str) -> None:
        """Ask the worker that runs the task to stop it."""
        for member in self._members.values():
            if member.task is not None and member.task.key == key:
                with contextlib.suppress(OSError):
                    member.pipe.send(_STOP)

    def kill(self, key: str, cause: str) -> None:
        """Kill the worker that runs the task."""
        for member in self._members.values():
            if member.task is not None and member.task.key == key:
                member.cause = cause
                member.process.kill()

    def pause(self, *, held: bool) -> None:
        """Pause or resume all workers."""
        self._is_held = held
        for member in self._members.values():
            with contextlib.suppress(OSError):
                member.pipe.send(_HOLD if held else _GO)

    def close(self) -> None:
        """Kill all workers, and wait until they have ended."""
        for member in self._members.values():
            member.process.kill()
        for name in list(self._members):
            self._members[name].process.join()
            self._members.pop(name).pipe.close()

    def _at(self, name: str) -> Task | None:
        return self._members[name].task

    def _bury(self, name: str) -> str:
        """Remove a dead worker, and return what ended it."""
        member = self._members.pop(name)
        member.pipe.close()
        member.process.join()
        cause = member.cause or _cause(member.process.exitcode or 0)
        self._emit(WorkerEnded(cause, worker=name))
        return cause


def _cause(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    memory = ", perhaps out of memory" if -code == signal.SIGKILL else ""
    return f"it was killed by {signal.Signals(-code).name}{memory}"


def _start(slot: Slot) -> _Member:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(slot, there), name=slot.worker, daemon=False)
    # A terminal sends its signals to workers, too, but only the run may stop them. The process inherits the mask.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        resource_tracker.ensure_running()  # once; it unblocks most of the mask afterwards
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    there.close()  # or the end of the worker would go unnoticed
    return _Member(process, here)


def _serve(slot: Slot, pipe: Connection) -> None:
    """Run tasks until the other end of the pipe closes: the main function of a worker."""
    inbox = _Inbox(pipe)
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock, contextlib.suppress(OSError):  # the coordinator is gone: the inbox ends this process
            pipe.send(message)

    def say(event: Event) -> None:
        send(replace(event, worker=slot.worker))

    def emit(event: Event) -> None:
        say(event)
        inbox.check()

    from ipsrec_bench.run import environment

    environment.prepare_process(slot.threads)
    say(WorkerStarted(slot.device, socket.gethostname(), os.getpid(), slot.threads))
    threading.Thread(target=_say_what_it_takes, args=(inbox, say), daemon=True).start()
    while True:
        packed = inbox.next_task()
        with _printing_to(packed.folder / LOG):
            message = _done(slot, packed, emit)
        inbox.is_at_work.clear()
        send(message if isinstance(message, _Broken) or environment.device_works(slot.device) else _Last(message))


def _done(slot: Slot, packed: _Packed, emit: Emit) -> Outcome | _Broken:
    """Run one task, and return its outcome."""
    key = packed.key
    try:
        task: Task = pickle.loads(packed.task)  # noqa: S301 (from the coordinator, whose code runs here anyway)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (from a user's module, or for missing files)
        reason = f"{type(error).__name__}: {error}"
        return Refused(key, BenchError(f"{slot.worker} cannot load its data or a module: {reason}; correct that"))
    try:
        return Done(key, task.work(Place(slot.worker, slot.device, slot.threads, task.folder), task.data, emit))
    except Stop:
        return Stopped(key)
    except BenchError as error:
        return Refused(key, error)
    except KeyboardInterrupt:  # raised by a model: that of the terminal does not reach a worker
        return Died(key, "it raised KeyboardInterrupt")
    except BaseException:  # noqa: BLE001 (the run ends with it)
        return _Broken(key, traceback.format_exc())


class _Inbox:
    """Messages to a worker, read by a thread that ends the process when the coordinator is gone."""

    def __init__(self, pipe: Connection) -> None:
        self.is_at_work = threading.Event()
        self._pipe = pipe
        self._tasks: queue.SimpleQueue[_Packed] = queue.SimpleQueue()
        self._is_told_to_stop, self._may_go_on = threading.Event(), threading.Event()
        self._may_go_on.set()
        threading.Thread(target=self._read, daemon=True).start()

    def next_task(self) -> _Packed:
        """Wait for the next task."""
        return self._tasks.get()

    def check(self) -> None:
        """Wait while the run is paused.

        Raises:
            Stop: the task was asked to stop.
        """
        self._may_go_on.wait()
        if self._is_told_to_stop.is_set():
            raise Stop

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGKILL)  # what can be resumed is on disk
                return
            if message == _STOP:
                self._is_told_to_stop.set()
                self._may_go_on.set()
            elif message == _HOLD:
                self._may_go_on.clear()
            elif message == _GO:
                self._may_go_on.set()
            else:
                self._is_told_to_stop.clear()
                self.is_at_work.set()
                self._tasks.put(message)


def _say_what_it_takes(inbox: _Inbox, say: Emit) -> None:
    from ipsrec_bench.run.environment import resident_memory

    then, used = time.monotonic(), time.process_time()
    while True:
        time.sleep(SEEN_SECONDS)
        now, spent = time.monotonic(), time.process_time()
        if inbox.is_at_work.is_set():
            say(WorkerSeen(resident_memory(), (spent - used) / (now - then)))
        then, used = now, spent


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Redirect all output of this process to a file, so that it cannot disturb a dashboard on the same terminal."""
    with log.open("ab") as file:
        before = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            for number, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, number)
                os.close(kept)
