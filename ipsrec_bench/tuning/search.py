"""The search itself: trials, each a training without its test ranking.

Several processes, of one run or of many, on one machine or on several, may work on one study at once.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import ModelError
from ipsrec_bench.events import CellStarted, Emit, EpochDone, Event, Outcome, SearchStarted, TrialEnded
from ipsrec_bench.run.processes import side_by_side
from ipsrec_bench.run.worker import Worker, train_cell
from ipsrec_bench.settings import explain, in_words
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.schema import Tune
from ipsrec_bench.tuning.space import Space, with_settings
from ipsrec_bench.tuning.study import (
    ENDED,
    SURPLUS,
    requeue,
    requeue_killed,
    spent_seconds,
    study_result,
    this_process,
)

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
    """One model's search; it can be pickled, and be gone on with in any process that reaches the storage."""

    study: optuna.Study
    place: str
    """Its storage."""
    cell: Cell
    space: Space
    tune: Tune
    data: PreparedDataset


class _PassedOver(Exception):  # noqa: N818 (it is no error)
    """Another process was faster: it has begun the last trial that was asked for, or the same point of the grid."""


def run_search(search: Search, budget: Budget, worker: Worker, emit: Emit, *, jobs: int = 1, threads: int = 1) -> bool:
    """Run trials until `budget` is spent or the grid is done; only validation targets are ranked.

    A trial whose process was killed is queued again, one whose training fails is passed over.

    Args:
        search: the model, and its study.
        budget: when to stop.
        worker: where trials are trained.
        emit: told everything that happens.
        jobs: trials at a time, each in a process of its own; one is trained in this process.
        threads: of each process, where there are several.

    Returns:
        Whether it came to its end; False if it was interrupted (Ctrl-C).

    Raises:
        ModelError: several trials in a row failed.
    """
    study = search.study
    requeue_killed(study)
    budget = replace(budget, trials=_wanted(search, budget))
    best = study_result(study, search.place).best
    emit(
        SearchStarted(
            f"Tuning {search.cell.model} on {search.cell.dataset}",
            search.cell.training.stop_metric,
            budget.trials,
            budget.seconds,
            len(_counted(search)),
            spent_seconds(study),
            best.value if best else None,
            in_words(best.settings) if best else "",
        )
    )
    if jobs > 1:
        deaths = _Deaths(study, emit)
        return side_by_side(partial(run_trials, search, budget, worker), jobs, threads, emit, deaths.one_more)
    try:
        run_trials(search, budget, worker, emit)
    except KeyboardInterrupt:
        return False
    return True


def run_trials(search: Search, budget: Budget, worker: Worker, emit: Emit) -> None:
    """Run trials in this process until none is left to begin; others may do the same elsewhere.

    It takes nothing but the study's storage, the prepared data and a worker: a machine of a cluster may call it, too.

    Raises:
        ModelError: several trials in a row failed.
        KeyboardInterrupt: it came; the trial at work is queued again.
    """
    study = search.study
    failures = 0
    with TemporaryDirectory() as scratch:  # a trial's weights are not kept
        place = replace(worker, checkpoints=Path(scratch))
        while not _spent(search, budget):
            try:
                study.optimize(
                    lambda trial: _Trial(trial, search, budget, place, emit).run(),
                    n_trials=1,
                    catch=(ModelError, _PassedOver),
                )
            except KeyboardInterrupt:
                for trial in _own(study)[-1:]:
                    if trial.state == TrialState.FAIL:  # as Optuna left it; it may also have been complete
                        requeue(study, trial)
                raise
            last = _own(study)[-1]
            if SURPLUS in last.user_attrs:
                continue
            failures = failures + 1 if last.state == TrialState.FAIL else 0
            if failures == FAILURES_IN_A_ROW:
                raise ModelError(f"{failures} trials in a row failed, the last one so: {last.user_attrs['error']}")


@dataclass
class _Deaths:
    """Processes of a search that were killed."""

    study: optuna.Study
    emit: Emit
    count: int = 0

    def one_more(self) -> bool:
        """Queue what it was at again; return whether another process is to take its place."""
        for trial in requeue_killed(self.study):
            said = trial.user_attrs
            self.emit(
                TrialEnded(
                    _key(trial.number),
                    trial.number,
                    in_words(trial.params),
                    "killed",
                    None,
                    said.get("epochs", 0),
                    said.get("seconds", 0.0),
                    "its process was killed; out of memory? Its settings are tried again",
                )
            )
        self.count += 1
        return self.count < FAILURES_IN_A_ROW


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


def _counted(search: Search) -> list[FrozenTrial]:
    """Return the trials that count: those that ended; of a grid, also those that failed, as they would again."""
    trials = search.study.get_trials(deepcopy=False)
    return [t for t in trials if t.state in ENDED or (search.tune.sampler == "grid" and "error" in t.user_attrs)]


def _spent(search: Search, budget: Budget) -> bool:
    """Return whether no further trial is to begin."""
    if budget.seconds is not None and spent_seconds(search.study) >= budget.seconds:
        return True
    if budget.trials is None:
        return False
    at_work = search.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return len(_counted(search)) + len(at_work) >= budget.trials


def _key(number: int) -> str:
    return f"trial-{number}"


class _Trial:
    """One trial at work."""

    def __init__(self, trial: optuna.Trial, search: Search, budget: Budget, worker: Worker, emit: Emit) -> None:
        self._trial, self._search, self._budget = trial, search, budget
        self._worker, self._emit = worker, emit
        self._key = _key(trial.number)
        self._by_epoch = search.tune.pruner in {"median", "hyperband"}
        self._epochs = 0
        self._judged = self._by_epoch
        self._began = time.perf_counter()
        trial.set_user_attr("process", this_process())

    def run(self) -> float:
        """Train the trial's seeds and return the mean of their best validation metrics.

        Raises:
            TrialPruned: the pruner gave it up.
            ModelError: a training failed.
        """
        self._pass_over_surplus()
        chosen = self._search.space.suggest(self._trial)
        self._pass_over_twin(chosen)
        try:
            values: list[float] = []
            for seed in self._search.tune.seeds:
                values.append(self._train(chosen, seed))
                self._trial.set_user_attr("by_seed", values)
                if self._search.tune.pruner == "wilcoxon":
                    self._trial.report(values[-1], len(values))
                    self._prune()
        except optuna.TrialPruned:
            self._tell("pruned", chosen)
            raise
        except Exception as error:  # whatever ends a training: other settings may do
            told = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            self._trial.set_user_attr("error", told)
            self._tell("failed", chosen, error=told)
            raise ModelError(told) from error
        value = sum(values) / len(values)
        self._tell("complete", chosen, value)
        return value

    def _alive(self) -> list[FrozenTrial]:
        """Return all other trials that were not lost."""
        trials = self._search.study.get_trials(deepcopy=False, states=(*ENDED, TrialState.RUNNING))
        return [t for t in trials if t.number != self._trial.number]

    def _pass_over_surplus(self) -> None:
        before = [t for t in self._alive() if t.number < self._trial.number]
        if self._budget.trials is not None and len(before) >= self._budget.trials:
            self._trial.set_user_attr(SURPLUS, True)
            raise _PassedOver

    def _pass_over_twin(self, chosen: Mapping[str, Any]) -> None:
        """Leave a point of the grid to whoever is at it; of two who find each other, both may choose again."""
        if self._search.tune.sampler == "grid" and any(t.params == chosen for t in self._alive()):
            self._trial.set_user_attr(SURPLUS, True)
            raise _PassedOver

    def _train(self, chosen: Mapping[str, Any], seed: int) -> float:
        """Train one seed and return its best validation metric."""
        self._judged = self._by_epoch and seed == self._search.tune.seeds[0]
        cell = self._search.cell
        try:
            config = with_settings(cell, chosen)
        except ValidationError as error:  # each value is allowed, but not beside the others
            _, message = next(explain(error))
            raise ModelError(message) from None
        tried = replace(cell, config=config, variant=f"({in_words(chosen)})", seed=seed)
        name = (self._key, tried.dataset, tried.shown, tried.seed)
        self._emit(CellStarted(*name, tried.training.epochs, tried.training.stop_metric))
        return train_cell(self._key, tried, self._search.data, self._worker, self._listen).fitted.best_valid

    def _listen(self, event: Event) -> None:
        """Count the epoch, and end the trial if the pruner says so, which judges by the first seed."""
        self._emit(event)
        if isinstance(event, EpochDone):
            self._epochs += 1
            self._keep_costs()
            if self._judged:
                self._trial.report(event.valid, event.epoch)
                self._prune()

    def _prune(self) -> None:
        if self._trial.should_prune():
            raise optuna.TrialPruned

    def _keep_costs(self) -> float:
        """Write down what it took so far: if it is killed, the budget knows."""
        seconds = time.perf_counter() - self._began
        self._trial.set_user_attr("epochs", self._epochs)
        self._trial.set_user_attr("seconds", seconds)
        return seconds

    def _tell(self, outcome: Outcome, chosen: Mapping[str, Any], value: float | None = None, error: str = "") -> None:
        seconds = self._keep_costs()
        ended = TrialEnded(
            self._key, self._trial.number, in_words(chosen), outcome, value, self._epochs, seconds, error
        )
        self._emit(ended)
