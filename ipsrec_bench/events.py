"""Events of a run: one stream of small records, for any number of listeners.

The dashboard, the plain log, the JSON lines and the journal all listen to the same stream. The run knows none of them.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

TrialOutcome = Literal["complete", "pruned", "failed", "killed"]
"""How a trial of a search may end."""


def _now() -> float:
    return round(time.time(), 6)  # the precision of `to_json`


MAIN_STAGE = "main"
"""Name of the stage of a training that is validated."""


@dataclass(frozen=True)
class Event:
    """Base of all events. Equality ignores when and where an event happened."""

    time: float = field(default_factory=_now, kw_only=True, compare=False)
    """When it happened, in seconds since 1970, to the microsecond."""
    worker: str = field(default="", kw_only=True, compare=False)
    """Name of the worker that sent it; empty if the coordinator did."""

    def to_json(self) -> str:
        """Return one line of JSON: the kind of event, the time (UTC) and the event's fields; see `event_of`."""
        when = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="microseconds")
        return json.dumps({"event": _kind(type(self).__name__), **vars(self), "time": when})


@dataclass(frozen=True)
class RunOpened(Event):
    """The first line of a journal: identifies the run and its process."""

    suite: str
    store: str
    """The store's file, as the run's process resolved its path."""
    host: str
    pid: int
    machine: str
    """Identifies the booted system and its namespace in which `pid` is valid."""
    started: str
    """Start time of the process in its system's own units, since process numbers are reused; empty if unknown."""
    command: str
    version: str
    """Version of the toolkit."""


@dataclass(frozen=True)
class RunClosed(Event):
    """The last line of a journal."""

    reason: str
    """Why the run ended early; empty if it ran to its end."""


@dataclass(frozen=True)
class DatasetReady(Event):
    """A dataset of the suite is prepared."""

    dataset: str
    users: int
    items: int
    providers: int
    actions: int
    seconds: float
    notes: tuple[str, ...] = ()
    """Findings from reading the raw data that a reader of results should know."""


@dataclass(frozen=True)
class DatasetLeftOut(Event):
    """A dataset of the suite is skipped because its raw files are missing."""

    dataset: str
    reason: str


@dataclass(frozen=True)
class RunStarted(Event):
    """The plan is made; `skipped` of its `cells` are already complete."""

    suite: str
    title: str
    cells: int
    skipped: int
    baseline: str = ""
    """Label of the row that the others are compared with, as in its cells; `best` or empty means the best other row."""
    metric: str = ""
    """The metric that rows are compared by; empty means the last one of the cells."""


@dataclass(frozen=True)
class RunPlanned(Event):
    """All cells of a run, each once; sent after `RunStarted`."""

    grid: tuple[tuple[str, str, str, int, str], ...]
    """Key, dataset, label and seed of each cell, and `queued` or `done`."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of done cells by key, as in `CellFinished`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of done cells by key."""


@dataclass(frozen=True)
class RunPaused(Event):
    """The run is paused: no cell begins, and running cells wait at their next step."""


@dataclass(frozen=True)
class RunResumed(Event):
    """The run continues after a pause."""


@dataclass(frozen=True)
class WorkerStarted(Event):
    """A worker is ready."""

    device: str
    host: str
    pid: int
    threads: int


@dataclass(frozen=True)
class WorkerSeen(Event):
    """Memory and processor use of a worker; sent every few seconds while it works."""

    memory: int
    """Resident bytes."""
    load: float
    """Processor time over wall time since the last measurement; 1.0 is one core."""


@dataclass(frozen=True)
class WorkerEnded(Event):
    """A worker has ended."""

    reason: str
    """What ended it; empty if it exited normally."""


@dataclass(frozen=True)
class CellEvent(Event):
    """Base of events about one cell, which key and labels identify."""

    key: str
    dataset: str
    label: str
    seed: int


@dataclass(frozen=True)
class CellStarted(CellEvent):
    """A cell begins."""

    epochs: int
    """Maximum number of epochs, over all stages of the training."""
    stop_metric: str
    resumed: int = 0
    """Epochs that an earlier process trained, over all stages; they are not trained again. A main stage that is over
    counts with its maximum number of epochs."""
    stages: tuple[tuple[str, int], ...] = ()
    """Name and maximum number of epochs of each stage, in order; empty if there is only the main stage."""


@dataclass(frozen=True)
class StepDone(CellEvent):
    """Progress within an epoch; sent at most a few times a second."""

    epoch: int
    """Number of the epoch in its stage, from 1."""
    step: int
    steps: int
    loss: float
    targets_per_second: float
    stage: str = MAIN_STAGE


@dataclass(frozen=True)
class EpochDone(CellEvent):
    """An epoch is trained and, in the main stage, validated."""

    epoch: int
    """Number of the epoch in its stage, from 1."""
    loss: float
    valid: float | None
    """The stopping metric; None in any stage but the main one."""
    targets_per_second: float
    stage: str = MAIN_STAGE
    of: int | None = None
    """Number of epochs of another stage than the main one, which never stops early; None in the main stage."""


@dataclass(frozen=True)
class CellFound(CellEvent):
    """Another run finished a cell that this one had planned; the store has its result."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics as in `CellFinished`; empty if unknown."""
    seconds: float = 0.0


@dataclass(frozen=True)
class CellsAwaited(Event):
    """Other runs are training all remaining cells; this run waits for them."""

    cells: int


@dataclass(frozen=True)
class CellFinished(CellEvent):
    """A cell is complete and in the store; `metrics` are those of the test targets."""

    metrics: dict[str, float]
    best_epoch: int
    """Of the main stage."""
    seconds: float


@dataclass(frozen=True)
class CellInterrupted(CellEvent):
    """A cell was stopped before its end; the next run resumes it."""


@dataclass(frozen=True)
class CellFailed(CellEvent):
    """A cell ended in an error, here or in another run; the store keeps the error in full."""

    error: str
    seconds: float


@dataclass(frozen=True)
class SearchStarted(Event):
    """A search starts or continues its study, in which `ended` trials already count. A limit of None is not set."""

    title: str
    metric: str
    """The metric that is maximised, on the validation targets."""
    trials: int | None
    seconds: float | None
    ended: int
    spent: float
    """Seconds of training so far."""
    best: float | None
    best_settings: str


@dataclass(frozen=True)
class TrialEnded(Event):
    """A trial of a search has ended; the events of its cells had the same key."""

    key: str
    number: int
    settings: str
    outcome: TrialOutcome
    value: float | None
    """Its objective value; None unless it is complete."""
    epochs: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class ExecutorNotice(Event):
    """A notice about the work, such as a node that cannot be used, or a row whose search has failed."""

    message: str


@dataclass(frozen=True)
class StoreBusy(Event):
    """A finished cell waits for another process to close the store."""

    message: str


@dataclass(frozen=True)
class RunFinished(Event):
    """Nothing is left to do, or the run was interrupted."""

    run: int
    """The run's number in the store."""
    complete: int
    """Cells that this run completed."""
    failed: int
    """Cells of this run that failed, here or in another run meanwhile."""
    seconds: float
    interrupted: bool


Emit = Callable[[Event], None]


def event_of(line: str | bytes) -> Event | None:
    """Return the event that `Event.to_json` wrote as `line`.

    Fields that this version does not know are ignored.

    Returns:
        The event; None if the line is damaged, or of a kind that this version does not know.
    """
    try:
        raw = json.loads(line)
        known = _kinds()[raw["event"]]
        when = datetime.fromisoformat(raw["time"]).timestamp()
        return known(**{f.name: _frozen(raw[f.name]) for f in fields(known) if f.name in raw} | {"time": when})
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None


def _frozen(value: Any) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Return `value` with its lists converted to tuples, as in events."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


@cache
def _kind(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


@cache
def _kinds() -> dict[str, type[Event]]:
    return {_kind(known.__name__): known for known in _below(Event)}


def _below(base: type[Event]) -> Iterator[type[Event]]:
    for child in base.__subclasses__():
        yield child
        yield from _below(child)
