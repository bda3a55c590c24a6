"""The state of a run, folded from its events one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from ipsrec_bench.events import (
    CellEvent,
    CellFailed,
    CellFinished,
    CellFound,
    CellInterrupted,
    CellsAwaited,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    Event,
    ExecutorNotice,
    RunFinished,
    RunPaused,
    RunPlanned,
    RunResumed,
    RunStarted,
    SearchStarted,
    StepDone,
    StoreBusy,
    TrialEnded,
    WorkerEnded,
    WorkerSeen,
    WorkerStarted,
)
from ipsrec_bench.tui.log import awaited, epoch_in_stage
from ipsrec_bench.words import visible

CellState = Literal["queued", "running", "resumed", "stopped", "done", "failed"]
GridPlace = tuple[str, str, int]
"""Dataset, label and seed of a cell."""
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Layout:
    """Datasets, labels and seeds of a plan, in its order."""

    datasets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class RunningCell:
    """A running cell."""

    dataset: str
    label: str
    seed: int
    epochs: int
    stop_metric: str
    began: float
    """When it began, shifted by later pauses."""
    resumed: int = 0
    """Epochs that an earlier attempt has trained, over all stages, as in `CellStarted`."""
    epoch: int = 0
    """Epochs done, over all stages."""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    rate: float | None = None
    """Targets per second."""
    valid: tuple[float, ...] = ()
    stages: tuple[tuple[str, int], ...] = ()
    """Name and maximum number of epochs of each stage; empty if there is only the main stage."""

    @property
    def current(self) -> tuple[str, int, int]:
        """The current epoch: the stage that it belongs to, or "" for the main one, its number there, of how many."""
        return epoch_in_stage(self.stages, min(self.epoch + 1, self.epochs), self.epochs)

    def epochs_until(self, stage: str, epoch: int) -> int:
        """Return how many epochs are done after epoch `epoch` of a stage."""
        names = [name for name, _ in self.stages]
        before = self.stages[: names.index(stage)] if stage in names else ()
        return sum(epochs for _, epochs in before) + epoch

    def stages_with(self, stage: str, epochs: int | None) -> tuple[tuple[str, int], ...]:
        """Return the stages with the number of epochs of one of them, once it is known."""
        return tuple((name, epochs if name == stage and epochs is not None else most) for name, most in self.stages)

    @property
    def progress(self) -> float:
        """Share of the epochs that are done, between 0 and 1; early stopping may cut the rest."""
        within = self.step / self.steps if self.steps else 0.0
        return min(1.0, (self.epoch + within) / max(1, self.epochs))

    def seconds(self, now: float) -> float | None:
        """Estimate from its own pace how long all its epochs take; None before there is one."""
        trained = self.progress - self.resumed / max(1, self.epochs)
        if trained < 0.05:  # noqa: PLR2004 (too early to say)
            return None
        return max(0.0, now - self.began) / trained


@dataclass(frozen=True)
class Worker:
    """A worker, which trains one cell at a time."""

    name: str
    """Empty if the events name no worker."""
    device: str = ""
    key: str | None = None
    """Key of its current cell."""
    memory: int | None = None
    load: float | None = None
    reason: str | None = None
    """Why it ended: empty if it exited normally, None while it lives."""


@dataclass(frozen=True)
class Result:
    """Result of a complete cell."""

    metrics: Mapping[str, float]
    seconds: float | None
    is_new: bool
    """Whether this run has trained it."""


@dataclass(frozen=True)
class RunState:
    """A run between two events; times are those of the events, in seconds since 1970."""

    began: float | None = None
    title: str = "Preparing"
    cells: int = 0
    skipped: int = 0
    """Cells that this run skips because the store has them."""
    baseline: str = ""
    metric: str = ""
    datasets: tuple[DatasetReady, ...] = ()
    left_out: tuple[DatasetLeftOut, ...] = ()
    places: Mapping[GridPlace, str] = field(default_factory=dict)
    """The key of every cell of the plan, in the plan's order. A deterministic model has one key for all seeds."""
    plan: Layout = Layout()
    cell_states: Mapping[str, CellState] = field(default_factory=dict)
    running: Mapping[str, RunningCell] = field(default_factory=dict)
    workers: Mapping[str, Worker] = field(default_factory=dict)
    results: Mapping[str, Result] = field(default_factory=dict)
    failed: Mapping[str, CellFailed] = field(default_factory=dict)
    deaths: tuple[WorkerEnded, ...] = ()
    search: SearchStarted | None = None
    """Set during a search, in which trials end instead of cells."""
    trials: tuple[TrialEnded, ...] = ()
    waiting: str | None = None
    """What this run waits for."""
    paused: float | None = None
    """Since when it is paused."""
    finished: RunFinished | None = None

    @property
    def done(self) -> int:
        """Number of cells that are complete, by this run or before it."""
        return self.skipped + sum(result.is_new for result in self.results.values())

    @property
    def left(self) -> int:
        """Number of cells that are neither done nor failed."""
        return max(0, self.cells - self.done - len(self.failed))

    @property
    def counted(self) -> int:
        """Number of trials that have ended here and count."""
        return sum(trial.outcome in {"complete", "pruned"} for trial in self.trials)

    def spent(self, now: float) -> float:
        """Return the seconds that the trials of the search have taken."""
        before = self.search.spent if self.search else 0.0
        ended = sum(trial.seconds for trial in self.trials)
        return before + ended + sum(max(0.0, now - cell.began) for cell in self.running.values())


def fold(state: RunState, event: Event) -> RunState:  # noqa: PLR0911, C901, PLR0912 (one case per event)
    """Return the state after `event`."""
    event = _visible(event)
    if state.began is None:
        state = replace(state, began=event.time)
    match event:
        case StepDone():
            running = state.running.get(event.key)
            if running is None:
                return state
            return _update(
                state,
                event,
                epoch=running.epochs_until(event.stage, event.epoch - 1),  # the stage before may have ended early
                step=event.step,
                steps=event.steps,
                loss=event.loss,
                rate=event.targets_per_second,
            )
        case WorkerSeen():
            worker = state.workers.get(event.worker, Worker(event.worker))
            if worker.reason is not None:  # a late event
                return state
            return _with_worker(state, replace(worker, memory=event.memory, load=event.load))
        case EpochDone():
            running = state.running.get(event.key)
            if running is None:  # its death was noticed before this late event arrived
                return state
            stages = running.stages_with(event.stage, event.of)
            return _update(
                state,
                event,
                stages=stages,
                epochs=running.epochs + sum(n for _, n in stages) - sum(n for _, n in running.stages),
                epoch=running.epochs_until(event.stage, event.epoch),
                step=0,
                loss=event.loss,
                rate=event.targets_per_second,
                valid=running.valid if event.valid is None else (*running.valid, event.valid),
            )
        case CellStarted():
            return _begun(state, event)
        case CellFinished() | CellFailed() | CellFound() | CellInterrupted():
            return _over(state, event)
        case WorkerStarted():
            return _arrived(state, event)
        case WorkerEnded():
            return _gone(state, event)
        case RunStarted():
            return replace(
                RunState(event.time, event.title, event.cells, event.skipped, event.baseline, event.metric),
                datasets=state.datasets,
                left_out=state.left_out,
                workers=_idle(state),
            )
        case RunPlanned():
            return _planned(state, event)
        case RunPaused():
            return replace(state, paused=event.time)
        case RunResumed():
            return _resumed(state, event)
        case DatasetReady() | DatasetLeftOut():
            return _prepared(state, event)
        case SearchStarted():
            return RunState(event.time, event.title, search=event, workers=_idle(state))
        case TrialEnded():
            return replace(_without(state, event.key), trials=(*state.trials, event))
        case StoreBusy() | ExecutorNotice():
            return replace(state, waiting=event.message)
        case CellsAwaited():
            return replace(state, waiting=awaited(event))
        case RunFinished():
            return replace(state, finished=event, waiting=None, paused=None)
        case _:
            return state


def _visible(event: Event) -> Event:
    """Return `event` with its texts as a terminal may show them."""
    changes: dict[str, Any] = {}
    for part in fields(event):
        value = getattr(event, part.name)
        if isinstance(value, str):
            if not value.isprintable():
                changes[part.name] = visible(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], str):
            changes[part.name] = tuple(visible(text) for text in value)
    return replace(event, **changes) if changes else event


def _prepared(state: RunState, event: DatasetReady | DatasetLeftOut) -> RunState:
    """Return the state with a dataset. After the end of a run, it belongs to the next run of the same journal."""
    if state.finished is not None:
        state = RunState(event.time)
    if isinstance(event, DatasetReady):
        return replace(state, datasets=(*(d for d in state.datasets if d.dataset != event.dataset), event))
    return replace(state, left_out=(*(d for d in state.left_out if d.dataset != event.dataset), event))


def _planned(state: RunState, event: RunPlanned) -> RunState:
    places: dict[GridPlace, str] = {}
    states: dict[str, CellState] = {}
    for key, dataset, label, seed, is_done in event.grid:
        places[visible(dataset), visible(label), seed] = key
        states[key] = "done" if is_done == "done" else "queued"
    results = {
        key: Result(metrics, event.seconds.get(key), is_new=False)
        for key, metrics in event.metrics.items()
        if states.get(key) == "done"
    }
    plan = _layout(places) if places else Layout()
    return replace(state, places=places, plan=plan, cell_states=states, results=results)


def _begun(state: RunState, event: CellStarted) -> RunState:
    before = state.running.get(event.key)  # the next seed of a trial
    began = event.time if before is None else before.began
    cell = RunningCell(
        event.dataset, event.label, event.seed, event.epochs, event.stop_metric, began, event.resumed, event.resumed
    )
    if event.stages:
        cell = replace(cell, stages=tuple((visible(name), epochs) for name, epochs in event.stages))
    state = replace(state, running={**state.running, event.key: cell}, waiting=None)
    if before is None:
        name = event.worker or next(
            (name for name, one in state.workers.items() if not one.name and one.key is None), f"\0{len(state.workers)}"
        )
        worker = state.workers.get(name, Worker(event.worker))
        state = _with_worker(state, replace(worker, key=event.key, reason=None), name)
    if state.search is not None:
        return state
    return replace(
        _marked(state, event, "resumed" if event.resumed else "running"),
        failed=_less(state.failed, event.key),
        results=_less(state.results, event.key),
    )


def _over(state: RunState, event: CellFinished | CellFailed | CellFound | CellInterrupted) -> RunState:
    is_known = event.key in state.results or state.cell_states.get(event.key) == "done"
    state = replace(_without(state, event.key), waiting=None, failed=_less(state.failed, event.key))
    match event:
        case CellInterrupted():
            return _marked(state, event, "stopped")
        case CellFailed():
            state = replace(state, failed={**state.failed, event.key: event}, results=_less(state.results, event.key))
            return _marked(state, event, "failed")
        case CellFound():
            result = Result(event.metrics, event.seconds or None, is_new=False)
            skipped = state.skipped + (not is_known)
        case CellFinished():
            result = Result(event.metrics, event.seconds, is_new=True)
            skipped = state.skipped
    state = replace(state, results={**state.results, event.key: result}, skipped=skipped)
    return _marked(state, event, "done")


def _marked(state: RunState, event: CellEvent, mark: CellState) -> RunState:
    """Return the state with the cell of `event` in its place of the grid."""
    if event.key not in state.cell_states:
        places = {**state.places, (event.dataset, event.label, event.seed): event.key}
        state = replace(state, places=places, plan=_layout(places))
    return replace(state, cell_states={**state.cell_states, event.key: mark})


def _layout(places: Mapping[GridPlace, str]) -> Layout:
    datasets, labels, seeds = (tuple(dict.fromkeys(part)) for part in zip(*places, strict=True))
    return Layout(datasets, labels, tuple(sorted(seeds)))


def _arrived(state: RunState, event: WorkerStarted) -> RunState:
    """Put a worker into its own row, else into that of an ended one, else into a new one."""
    worker = Worker(event.worker, event.device)
    gone = next((name for name, one in state.workers.items() if one.reason is not None), None)
    if event.worker in state.workers or gone is None:
        return _with_worker(state, worker)
    rows = ((event.worker, worker) if name == gone else (name, one) for name, one in state.workers.items())
    return replace(state, workers=dict(rows))


def _gone(state: RunState, event: WorkerEnded) -> RunState:
    worker = state.workers.get(event.worker, Worker(event.worker))
    if event.reason:
        state = replace(state, deaths=(*state.deaths, event))
    if worker.key is not None and worker.key in state.running:
        mark: CellState = "stopped" if state.running[worker.key].epoch else "queued"
        state = _without(state, worker.key)
        if worker.key in state.cell_states:
            state = replace(state, cell_states={**state.cell_states, worker.key: mark})
    return _with_worker(state, replace(worker, key=None, memory=None, load=None, reason=event.reason))


def _resumed(state: RunState, event: RunResumed) -> RunState:
    held = 0.0 if state.paused is None else max(0.0, event.time - state.paused)
    running = {key: replace(cell, began=cell.began + held) for key, cell in state.running.items()}
    return replace(state, paused=None, running=running)


def _idle(state: RunState) -> dict[str, Worker]:
    return {name: replace(worker, key=None) for name, worker in state.workers.items() if worker.reason is None}


def _with_worker(state: RunState, worker: Worker, name: str | None = None) -> RunState:
    return replace(state, workers={**state.workers, worker.name if name is None else name: worker})


def _without(state: RunState, key: str) -> RunState:
    """Return the state without the running cell `key`."""
    workers = {
        name: replace(worker, key=None) if worker.key == key else worker for name, worker in state.workers.items()
    }
    return replace(state, running=_less(state.running, key), workers=workers)


def _less(mapping: Mapping[str, _Value], key: str) -> Mapping[str, _Value]:
    return {other: value for other, value in mapping.items() if other != key} if key in mapping else mapping


def _update(state: RunState, event: CellEvent, **changes: object) -> RunState:
    if event.key not in state.running:  # its death was noticed before this late event arrived
        return state
    cell = replace(state.running[event.key], **changes)  # type: ignore[arg-type]
    return replace(state, running={**state.running, event.key: cell})
