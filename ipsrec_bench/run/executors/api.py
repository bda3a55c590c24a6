"""What an executor is: slots, each of which does one task at a time, and what becomes of the tasks."""

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
    """Where one task is done at a time."""

    worker: str
    """What a person calls it, such as `worker 1`; no other slot of the executor has the name."""
    device: str
    """As torch names it: `cpu`, `cuda:0`."""
    threads: int
    """Of torch."""


@dataclass(frozen=True)
class Place:
    """Where a task is done, as its work sees it."""

    worker: str
    device: str
    threads: int
    folder: Path
    """The task's own files; nobody else writes there meanwhile."""


Work = Callable[[Place, PreparedDataset, Emit], Any]
"""What is done: a function that can be pickled, as what it returns can.

A `KeyboardInterrupt` that `emit` raises tells it to stop. An error that is not the toolkit's own ends the run."""


@dataclass(frozen=True)
class Task:
    """A piece of work that no other depends on."""

    key: str
    """No other task of the executor has it meanwhile."""
    work: Work
    data: PreparedDataset
    folder: Path
    """Its files, here."""


@dataclass(frozen=True)
class Done:
    """A task came to its end."""

    key: str
    result: Any


@dataclass(frozen=True)
class Died:
    """The process that was at a task is no more."""

    key: str
    cause: str
    """What ended it, such as `it was killed by SIGKILL`."""
    blame: bool = True
    """Whether the task may have ended it; not if a whole machine is lost."""


@dataclass(frozen=True)
class Stopped:
    """A task stopped because the run asked it to."""

    key: str


@dataclass(frozen=True)
class Refused:
    """A task could not be done for a reason that lies outside of it, such as a full disk."""

    key: str
    error: BenchError


Outcome = Done | Died | Stopped | Refused

Tick = Callable[[], None]
"""What an executor calls a few times a second while tasks are done: the time to look at clocks and control files."""


class Stop(KeyboardInterrupt):
    """What `emit` raises in a task that was told to stop."""


class Executor(ABC):
    """Does tasks, as many at a time as it has slots.

    It is a context manager; at the end of its block whatever is still at work is killed, and nothing is left behind.
    """

    @abstractmethod
    def free(self) -> list[Slot]:
        """Return the slots that have nothing to do; where an executor has none yet, they may come later."""

    @abstractmethod
    def begin(self, slot: Slot, task: Task) -> None:
        """Begin a task in a free slot."""

    @abstractmethod
    def outcomes(self, seconds: float) -> list[Outcome]:
        """Pass on the events of tasks until one of them has ended, or for so many seconds; return what has ended.

        Raises:
            BenchError: no task can be begun, whichever it is.
        """

    @abstractmethod
    def stop(self, key: str) -> None:
        """Tell a task to stop at its next event. It may have ended by then, or end before."""

    @abstractmethod
    def kill(self, key: str, cause: str) -> None:
        """End the process of a task at once, which has then died of `cause`; stop it where it has no process."""

    @abstractmethod
    def pause(self, *, held: bool) -> None:
        """Let tasks wait at their next event, or go on."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self.close()
