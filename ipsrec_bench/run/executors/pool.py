"""Tasks in fresh processes of this machine, one process a slot."""

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
"""How often a worker says what it takes of its machine."""
_STOP, _HOLD, _GO = "stop", "hold", "go"


@dataclass(frozen=True)
class _Packed:
    """A task on its way to a worker, which unpickles it where what its modules print goes to the task's log."""

    key: str
    folder: Path
    task: bytes


@dataclass(frozen=True)
class _Last:
    """What became of a task whose device can do no other: the worker ends with it."""

    outcome: Outcome


@dataclass(frozen=True)
class _Broken:
    """A task ended in an error that is not one of the toolkit's sentences."""

    key: str
    trace: str


@dataclass
class _Member:
    """A worker's process, and what it is at."""

    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    cause: str = ""
    """Why it was killed, if this process did it."""
    is_ready: bool = False
    """Whether it has said that it has started."""


class Pool(Executor):
    """The executor whose slots are processes of this machine.

    A process is begun with its slot's first task and does all later ones. One that dies is replaced with the slot's
    next task. If this process dies, all of them end at once.
    """

    def __init__(self, slots: Sequence[Slot], emit: Emit, tick: Tick) -> None:
        """Do tasks in `slots`."""
        self._slots, self._emit, self._tick = slots, emit, tick
        self._members: dict[str, _Member] = {}
        """By the names of their slots."""
        self._is_held = False
        self._ended: list[Outcome] = []
        """What `outcomes` has yet to return, as it is interrupted by Ctrl-C wherever that comes."""

    def free(self) -> list[Slot]:
        """Return the slots whose processes have nothing to do, or are to be begun."""
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
            self._bury(slot.worker)  # it died while it had nothing to do
        member = self._members[slot.worker] = _start(slot)
        member.task = task
        with contextlib.suppress(OSError):  # it died at once, which `outcomes` finds
            if self._is_held:
                member.pipe.send(_HOLD)
            member.pipe.send(packed)

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Pass on what workers say until a task has ended, or for so many seconds."""
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
        """Take one message of a worker."""
        try:
            message = pipe.recv()
        except (EOFError, OSError):  # the latter if it was killed within a message
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
        raise RuntimeError(f"{name} came upon an error of the toolkit itself:\n{message.trace}")

    def _lose(self, name: str) -> None:
        """Note that a worker is dead, and its task with it.

        Raises:
            BenchError: it could not even start.
        """
        member = self._members[name]
        cause = self._bury(name)
        if not member.is_ready and (member.process.exitcode or 0) > 0:  # as any other would
            raise BenchError(f"{name} could not start: {cause}; see what it has printed")
        if member.task is not None:
            self._ended.append(Died(member.task.key, cause))

    def stop(self, key: str) -> None:
        """Tell the worker that is at the task."""
        for member in self._members.values():
            if member.task is not None and member.task.key == key:
                with contextlib.suppress(OSError):
                    member.pipe.send(_STOP)

    def kill(self, key: str, cause: str) -> None:
        """Kill the worker that is at the task."""
        for member in self._members.values():
            if member.task is not None and member.task.key == key:
                member.cause = cause
                member.process.kill()

    def pause(self, *, held: bool) -> None:
        """Tell all workers."""
        self._is_held = held
        for member in self._members.values():
            with contextlib.suppress(OSError):
                member.pipe.send(_HOLD if held else _GO)

    def close(self) -> None:
        """Kill what is at work, and end the rest."""
        for member in self._members.values():
            member.process.kill()
        for name in list(self._members):
            self._members[name].process.join()
            self._members.pop(name).pipe.close()

    def _at(self, name: str) -> Task | None:
        return self._members[name].task

    def _bury(self, name: str) -> str:
        """Take leave of a dead worker, and return what ended it."""
        member = self._members.pop(name)
        member.pipe.close()
        member.process.join()
        cause = member.cause or _cause(member.process.exitcode or 0)
        self._emit(WorkerEnded(cause, worker=name))
        return cause


def _cause(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    memory = ", out of memory perhaps" if -code == signal.SIGKILL else ""
    return f"it was killed by {signal.Signals(-code).name}{memory}"


def _start(slot: Slot) -> _Member:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(slot, there), name=slot.worker, daemon=False)
    # A terminal sends its signals to workers, too, which are to hear of them from the run. What is blocked stays so.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        resource_tracker.ensure_running()  # once, and it lifts most of the mask afterwards
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    there.close()  # or its end would not be noticed
    return _Member(process, here)


def _serve(slot: Slot, pipe: Connection) -> None:
    """Do tasks until the other end of the pipe closes: the whole life of a worker."""
    inbox = _Inbox(pipe)
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock, contextlib.suppress(OSError):  # nobody is left: the inbox ends this process
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
    """Do one task, and return what became of it."""
    key = packed.key
    try:
        task: Task = pickle.loads(packed.task)  # noqa: S301 (from the coordinator, whose code runs here anyway)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (of a user's module, or of files that are gone)
        reason = f"{type(error).__name__}: {error}"
        return Refused(key, BenchError(f"{slot.worker} cannot load its data or a module: {reason}; mend that"))
    try:
        return Done(key, task.work(Place(slot.worker, slot.device, slot.threads, task.folder), task.data, emit))
    except Stop:
        return Stopped(key)
    except BenchError as error:
        return Refused(key, error)
    except KeyboardInterrupt:  # a model's own: the terminal's does not reach a worker
        return Died(key, "it raised KeyboardInterrupt")
    except BaseException:  # noqa: BLE001 (the run ends with it)
        return _Broken(key, traceback.format_exc())


class _Inbox:
    """What a worker is told, by a thread that ends the process when nobody is left to tell anything."""

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
        """Return, or first wait until the run goes on.

        Raises:
            Stop: the task was told to stop.
        """
        self._may_go_on.wait()
        if self._is_told_to_stop.is_set():
            raise Stop

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGKILL)  # what can be gone on with is on disk
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
    """Let all that this process prints go to a file, which a dashboard on the same terminal does not suffer from."""
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
