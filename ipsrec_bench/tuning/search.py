"""The search itself: trials one after the other, each a training without its test ranking.

Several processes, on one machine or many, may work on one study at once: run the same command again.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import ModelError
from ipsrec_bench.events import CellFailed, CellFinished, CellPruned, CellStarted, Emit, EpochDone, Event, RunStarted
from ipsrec_bench.run.worker import Worker, train_cell
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.schema import Tune
from ipsrec_bench.tuning.space import Space, with_settings
from ipsrec_bench.tuning.study import ended, requeue, requeue_killed, sampler_of, this_process

FAILURES_IN_A_ROW = 5


@dataclass(frozen=True)
class Budget:
    """What every model of a search may take; whichever is reached first."""

    trials: int | None
    """Complete and pruned ones."""
    seconds: float | None
    """Sum over the trials, also of those that failed."""


@dataclass(frozen=True, eq=False)
class Search:
    """One model's search."""

    study: optuna.Study
    place: str
    """Its storage."""
    cell: Cell
    space: Space
    tune: Tune
    data: PreparedDataset


class _Surplus(Exception):  # noqa: N818 (it is no error)
    """Another process has begun the last trial that was asked for."""


def run_search(search: Search, budget: Budget, worker: Worker, emit: Emit) -> bool:
    """Run trials until `budget` is spent or the grid is done; only validation targets are ranked.

    A trial whose process was killed is queued again, one whose training fails is passed over.

    Returns:
        Whether it came to its end; False if it was interrupted (Ctrl-C).

    Raises:
        ModelError: several trials in a row failed.
    """
    study = search.study
    requeue_killed(study)
    wanted = _wanted(search, budget)
    cells = wanted or len(ended(study))
    emit(RunStarted(study.study_name, f"Tuning {search.cell.model} on {search.cell.dataset}", cells, len(ended(study))))
    failures = 0
    with TemporaryDirectory() as scratch:  # a trial's weights are not kept
        place = replace(worker, checkpoints=Path(scratch))
        while not _spent(search, budget, wanted):
            study.sampler = sampler_of(search.tune, search.space, len(study.get_trials(deepcopy=False)))
            before = len(ended(study))
            try:
                study.optimize(
                    lambda trial: _objective(trial, search, wanted, place, emit),
                    n_trials=1,
                    catch=(ModelError, _Surplus),
                )
            except KeyboardInterrupt:
                for trial in _own(study)[-1:]:
                    if trial.state == TrialState.FAIL:  # as Optuna left it; it may also have been complete
                        requeue(study, trial, mark=False)
                return False
            if "surplus" in _own(study)[-1].user_attrs:
                break
            failures = 0 if len(ended(study)) > before else failures + 1
            if failures == FAILURES_IN_A_ROW:
                raise ModelError(f"{failures} trials in a row failed; try other training settings")
    return True


def _own(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of this process, oldest first; others may have begun later ones."""
    me = this_process()
    return [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("process") == me]


def _wanted(search: Search, budget: Budget) -> int | None:
    """Return how many trials there are to be: no more than a grid has points."""
    if search.tune.sampler != "grid":
        return budget.trials
    points = math.prod(map(len, search.space.grid(search.tune.grid_points).values()))
    return points if budget.trials is None else min(points, budget.trials)


def _spent(search: Search, budget: Budget, wanted: int | None) -> bool:
    trials = search.study.get_trials(deepcopy=False)
    if wanted is not None and len(ended(search.study)) >= wanted:
        return True
    if budget.seconds is None:
        return False
    return sum(trial.duration.total_seconds() for trial in trials if trial.duration) >= budget.seconds


def _objective(trial: optuna.Trial, search: Search, wanted: int | None, worker: Worker, emit: Emit) -> float:
    trial.set_user_attr("process", this_process())
    states = optuna.trial.TrialState
    before = [
        t for t in search.study.get_trials(deepcopy=False)
        if t.number < trial.number and t.state in {states.COMPLETE, states.PRUNED, states.RUNNING}
    ]  # fmt: skip
    if wanted is not None and len(before) >= wanted:
        trial.set_user_attr("surplus", True)
        raise _Surplus
    chosen = search.space.suggest(trial)
    values: list[float] = []
    reached = _Reached(trial, by_epoch=search.tune.pruner in {"median", "hyperband"})
    try:
        for seed in search.tune.seeds:
            reached.first = seed == search.tune.seeds[0]
            values.append(_train(search, chosen, seed, worker, emit, reached))
            trial.set_user_attr("by_seed", values)
            if search.tune.pruner == "wilcoxon":
                trial.report(values[-1], len(values))
                if trial.should_prune():
                    raise optuna.TrialPruned
    finally:
        trial.set_user_attr("epochs", reached.epochs)
    return sum(values) / len(values)


@dataclass
class _Reached:
    """What a trial has reached, told to its pruner after every epoch of its first seed."""

    trial: optuna.Trial
    by_epoch: bool
    first: bool = True
    epochs: int = 0

    def tell(self, event: Event) -> None:
        """Count the epoch; end the trial if the pruner says so.

        Raises:
            TrialPruned: it does.
        """
        if isinstance(event, EpochDone):
            self.epochs += 1
            if self.by_epoch and self.first:
                self.trial.report(event.valid, event.epoch)
                if self.trial.should_prune():
                    raise optuna.TrialPruned


def _train(
    search: Search, chosen: Mapping[str, Any], seed: int, worker: Worker, emit: Emit, reached: _Reached
) -> float:
    """Train one seed of a trial and return its best validation metric."""
    shown = ", ".join(
        f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}" for name, value in chosen.items()
    )
    tried = replace(search.cell, config=with_settings(search.cell, chosen), variant=f"({shown})", seed=seed)
    key = tried.key(search.data.fingerprint)
    name = (key, tried.dataset, tried.shown, tried.seed)

    def listen(event: Event) -> None:
        emit(event)
        reached.tell(event)

    emit(CellStarted(*name, tried.training.epochs, tried.training.stop_metric))
    began = time.perf_counter()
    try:
        fitted = train_cell(key, tried, search.data, worker, listen).fitted
    except ModelError as error:
        emit(CellFailed(*name, str(error), time.perf_counter() - began))
        raise
    except optuna.TrialPruned:
        emit(CellPruned(*name, reached.epochs, time.perf_counter() - began))
        raise
    found = {f"validation {tried.training.stop_metric}": fitted.best_valid}
    emit(CellFinished(*name, found, fitted.best_epoch, time.perf_counter() - began))
    return fitted.best_valid
