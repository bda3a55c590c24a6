"""The interface of executors: slots, each of which runs one task at a time, and the outcomes of tasks."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit


@dataclass(frozen=True)
class Slot:
    """A place that runs one task at a time."""

    worker: str
    """Its name, such as `worker 1`; unique within the executor."""
    device: str
    """Torch's name of the device, such as `cpu` or `cuda:0`."""
    threads: int
    """Number of torch threads."""


@dataclass(frozen=True)
class Place:
    """Where a task runs, as its work sees it."""

    worker: str
    device: str
    threads: int
    folder: Path
    """Folder of the task's files; no other process writes there meanwhile."""


Work = Callable[[Place, PreparedDataset, Emit], Any]
"""The function of a task. It and its result must be picklable.

It stops when `emit` raises `KeyboardInterrupt`. An error that is not a `BenchError` ends the run."""


@dataclass(frozen=True)
class Task:
    """An independent piece of work."""

    key: str
    """Unique among the executor's current tasks."""
    work: Work
    data: PreparedDataset
    folder: Path
    """Folder of its files on this machine."""


@dataclass(frozen=True)
class Done:
    """A task completed."""

    key: str
    result: Any


@dataclass(frozen=True)
class Died:
    """The process that ran a task has ended."""

    key: str
    cause: str
    """What ended it, such as `it was killed by SIGKILL`."""
    blame: bool = True
    """Whether the task may be the cause; False if a whole machine was lost."""


@dataclass(frozen=True)
class Stopped:
    """A task stopped because the run asked it to."""

    key: str


@dataclass(frozen=True)
class Refused:
    """A task could not run for an external reason, such as a full disk."""

    key: str
    error: BenchError


Outcome = Done | Died | Stopped | Refused

Tick = Callable[[], None]
"""Callback that an executor calls a few times a second while tasks run, to check clocks and control files."""


class Stop(KeyboardInterrupt):
    """Raised by `emit` in a task that was asked to stop."""


class Executor(ABC):
    """Runs tasks, one at a time in each slot.

    A context manager: at the end of its block, tasks that still run are killed, and nothing is left behind.
    """

    @abstractmethod
    def free(self) -> list[Slot]:
        """Return the idle slots; an executor that has no slots yet may get some later."""

    @abstractmethod
    def begin(self, slot: Slot, task: Task) -> None:
        """Start a task in a free slot."""

    @abstractmethod
    def outcomes(self, seconds: float) -> list[Outcome]:
        """Pass on the events of tasks until one ends or `seconds` have passed; return all outcomes.

        Raises:
            BenchError: no task can be started at all.
        """

    @abstractmethod
    def stop(self, key: str) -> None:
        """Ask a task to stop at its next event; it may have ended, or may end before that."""

    @abstractmethod
    def kill(self, key: str, cause: str) -> None:
        """Kill the process of a task, which has then `Died` of `cause`; a task without a process is stopped."""

    @abstractmethod
    def pause(self, *, held: bool) -> None:
        """Make tasks wait at their next event if `held`, else let them continue."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""

    def __enter__(self) -> Self:
        """Return the executor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self.close()
