"""The state of a run as far as its events tell, folded one event at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ipsrec_bench.events import (
    CellEvent,
    CellFailed,
    CellFinished,
    CellFound,
    CellsAwaited,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    Event,
    RunFinished,
    RunStarted,
    SearchStarted,
    StepDone,
    StoreBusy,
    TrialEnded,
)
from ipsrec_bench.tui.plain import awaited
from ipsrec_bench.words import visible


@dataclass(frozen=True)
class RunningCell:
    """A cell at work."""

    dataset: str
    label: str
    seed: int
    epochs: int
    stop_metric: str
    began: float
    epoch: int = 0
    """Epochs done."""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    rate: float | None = None
    """Targets per second."""
    valid: tuple[float, ...] = ()

    @property
    def progress(self) -> float:
        """Share of the epochs that are done, between 0 and 1; early stopping may cut the rest."""
        within = self.step / self.steps if self.steps else 0.0
        return min(1.0, (self.epoch + within) / self.epochs)


@dataclass(frozen=True)
class RunState:
    """A run between two events; times are seconds on the listener's clock."""

    began: float
    title: str = "Preparing"
    cells: int = 0
    skipped: int = 0
    datasets: tuple[DatasetReady, ...] = ()
    left_out: tuple[DatasetLeftOut, ...] = ()
    running: Mapping[str, RunningCell] = field(default_factory=dict)
    ended: tuple[CellFinished | CellFailed, ...] = ()
    search: SearchStarted | None = None
    """Set while settings are searched; what ends then are trials."""
    trials: tuple[TrialEnded, ...] = ()
    waiting: str | None = None
    """Who or what this run waits for."""
    finished: RunFinished | None = None

    @property
    def todo(self) -> int:
        """Number of cells that this run has to do."""
        return self.cells - self.skipped

    def remaining_seconds(self, now: float) -> float | None:
        """Estimate the time left from the pace so far; None before there is one."""
        if self.search is not None:
            return self._remaining_search(self.search, now)
        done = len(self.ended) + sum(cell.progress for cell in self.running.values())
        if not self.todo or done < 0.05 or not (self.running or self.ended):  # noqa: PLR2004 (too early to say)
            return None
        return (now - self.began) * (self.todo - done) / done

    @property
    def counted(self) -> int:
        """Number of trials that have ended here and count."""
        return sum(trial.outcome in {"complete", "pruned"} for trial in self.trials)

    def spent(self, now: float) -> float:
        """Return the seconds that the trials of the search have taken."""
        before = self.search.spent if self.search else 0.0
        ended = sum(trial.seconds for trial in self.trials)
        return before + ended + sum(now - cell.began for cell in self.running.values())

    def _remaining_search(self, search: SearchStarted, now: float) -> float | None:
        left = []
        if search.seconds is not None and self.running:
            left.append(max(0.0, search.seconds - self.spent(now)) / len(self.running))
        if search.trials is not None and self.counted:  # how long a trial takes is known once one has ended
            pace = (now - self.began) / (self.counted + len(self.running) / 2)
            left.append(pace * max(0.0, search.trials - search.ended - self.counted - len(self.running) / 2))
        return min(left, default=None)


def fold(state: RunState, event: Event, now: float) -> RunState:  # noqa: PLR0911, C901, PLR0912 (one case per event)
    """Return the state after `event`, which arrived at `now`."""
    event = _visible(event)
    match event:
        case DatasetReady():
            return replace(state, datasets=(*state.datasets, event), began=now)
        case DatasetLeftOut():
            return replace(state, left_out=(*state.left_out, event))
        case RunStarted():
            return replace(state, title=event.title, cells=event.cells, skipped=event.skipped, began=now)
        case CellStarted():
            before = state.running.get(event.key)  # the next seed of a trial
            began = now if before is None else before.began
            cell = RunningCell(event.dataset, event.label, event.seed, event.epochs, event.stop_metric, began)
            return replace(state, running={**state.running, event.key: cell})
        case StepDone():
            return _update(
                state,
                event,
                step=event.step,
                steps=event.steps,
                loss=event.loss,
                rate=event.targets_per_second,
            )
        case EpochDone():
            running = state.running.get(event.key)
            curve = running.valid if running else ()
            return _update(
                state,
                event,
                epoch=event.epoch,
                step=0,
                loss=event.loss,
                rate=event.targets_per_second,
                valid=(*curve, event.valid),
            )
        case SearchStarted():
            return replace(state, title=event.title, search=event, trials=(), running={}, began=now)
        case TrialEnded():
            return replace(state, running=_without(state, event.key), trials=(*state.trials, event))
        case CellFinished() | CellFailed():
            return replace(state, running=_without(state, event.key), ended=(*state.ended, event), waiting=None)
        case CellFound():
            return replace(state, skipped=state.skipped + 1, waiting=None)
        case StoreBusy():
            return replace(state, waiting=event.message)
        case CellsAwaited():
            return replace(state, waiting=awaited(event))
        case RunFinished():
            return replace(state, finished=event)
        case _:
            return state


def _visible(event: Event) -> Event:
    """Return `event` with its texts as a terminal may show them."""
    changes: dict[str, Any] = {}
    for part in fields(event):
        value = getattr(event, part.name)
        if isinstance(value, str):
            changes[part.name] = visible(value)
        elif isinstance(value, tuple):
            changes[part.name] = tuple(visible(text) for text in value)
    return replace(event, **changes)


def _without(state: RunState, key: str) -> dict[str, RunningCell]:
    return {other: cell for other, cell in state.running.items() if other != key}


def _update(state: RunState, event: CellEvent, **changes: object) -> RunState:
    if event.key not in state.running:  # it was found dead before its last words arrived
        return state
    cell = replace(state.running[event.key], **changes)  # type: ignore[arg-type]
    return replace(state, running={**state.running, event.key: cell})
