"""The search itself: trials, each a training without its test ranking.

Several processes, of one run or of many, on one machine or on several, may work on one study at once.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import BenchError, ModelError, StoreError, StudyError
from ipsrec_bench.events import CellStarted, Emit, EpochDone, Event, Outcome, SearchStarted, TrialEnded
from ipsrec_bench.run.cell import train_cell
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.processes import side_by_side
from ipsrec_bench.run.workplace import Workplace
from ipsrec_bench.settings import in_words
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.suite.schema import Tune
from ipsrec_bench.tuning.space import LARGEST_GRID, Space, with_settings
from ipsrec_bench.tuning.study import (
    ENDED,
    INTERRUPTED,
    OWN,
    REPEAT,
    SURPLUS,
    is_doubtful,
    is_given_up,
    queue_untried,
    requeue,
    requeue_lost,
    settings_of,
    spent_seconds,
    storage_failure,
    this_process,
)

FAILURES_IN_A_ROW = 5
LOOK_AGAIN_SECONDS = 1


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


@dataclass(frozen=True)
class Worker:
    """Where trials are trained."""

    device: str
    threads: int
    workplace: Workplace


class _PassedOver(Exception):  # noqa: N818 (it is no error)
    """Another process was faster: it has begun the last trial that was asked for, or the same point of the grid."""


def run_search(
    search: Search,
    budget: Budget,
    worker: Worker,
    emit: Emit,
    *,
    jobs: int = 1,
    threads: int = 1,
    killed: bool = False,
) -> bool:
    """Run trials until `budget` is spent or the grid is done; only validation targets are ranked.

    A trial whose process was killed is queued again, one whose training fails is passed over.

    Args:
        search: the model, and its study.
        budget: when to stop.
        worker: where trials are trained.
        emit: receives all events.
        jobs: trials at a time, in as many processes; with one, in this one.
        threads: of each process, where there are several.
        killed: whether a trial has ended the process before this one, which then counts against its settings.

    Returns:
        Whether it came to its end; False if it was interrupted (Ctrl-C).

    Raises:
        BenchError: the storage cannot be shared by several processes.
        ModelError: several trials in a row failed.
    """
    if jobs > 1 and search.place.startswith("sqlite"):
        raise BenchError(
            "--jobs: in SQLite two processes may take the same trial; leave out --storage, or give it a PostgreSQL or"
            " MySQL server"
        )
    study = search.study
    lost = requeue_lost(study, killed=killed)  # a whole search that was killed says nothing of what it was at
    points = _points(search)
    if points:  # each is tried once at most
        budget = replace(budget, trials=min(len(points), budget.trials or len(points)))
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    emit(
        SearchStarted(
            f"Tuning {search.cell.model} on {search.cell.dataset}",
            search.cell.training.stop_metric,
            budget.trials,
            budget.seconds,
            _number(search, study.get_trials(deepcopy=False)),
            spent_seconds(study),
            best.value if best else None,
            in_words(settings_of(best)) if best else "",
        )
    )
    if killed:
        _tell_lost(lost, emit)
    if jobs > 1:
        deaths = _Deaths(study, emit)
        return side_by_side(partial(run_trials, search, budget, worker), jobs, threads, deaths.listen, deaths.one_more)
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
        StudyError: the journal or the database fails.
        KeyboardInterrupt: it came; the trial at work is queued again.
        StoreError: the weights cannot be written; the trial at work is queued again.
    """
    try:
        _run_trials(search, budget, worker, emit)
    except Exception as error:
        failure = None if isinstance(error, BenchError) else storage_failure(error)
        if failure is None:
            raise
        raise StudyError(failure) from error


def _run_trials(search: Search, budget: Budget, worker: Worker, emit: Emit) -> None:
    study, points = search.study, _points(search)
    failures, is_repeat = 0, False
    at_work: list[_Trial] = []

    def objective(trial: optuna.Trial) -> float:
        at_work[:] = [_Trial(trial, search, budget, place, emit)]
        return at_work[0].run()

    with worker.workplace.scratch() as scratch:  # a trial's weights are not kept
        place = Place("", worker.device, worker.threads, scratch)
        while _goes_on(search, budget, emit):
            if is_repeat or search.tune.sampler == "grid":
                queue_untried(study, search.space, points, search.tune.seed)
            at_work.clear()
            try:
                study.optimize(objective, n_trials=1, catch=(ModelError, _PassedOver))
            except (KeyboardInterrupt, StoreError):
                for trial in at_work:
                    if trial.is_interrupted:
                        requeue(study, trial.frozen, killed=False)
                raise
            except (ValueError, AssertionError, UpdateFinishedTrialError):  # what Optuna says of a trial that is over
                if not (at_work and at_work[0].is_interrupted):
                    raise
            (last,) = (trial.frozen for trial in at_work)
            is_repeat = last.user_attrs.get(SURPLUS) == REPEAT
            failures = failures + 1 if "error" in last.user_attrs else 0
            if failures == FAILURES_IN_A_ROW:
                raise ModelError(f"{failures} trials in a row failed, the last one so: {last.user_attrs['error']}")


@dataclass
class _Deaths:
    """Processes of a search that were killed, since a trial last came to its end."""

    study: optuna.Study
    emit: Emit
    count: int = 0

    def listen(self, event: Event) -> None:
        """Pass on what is told."""
        if isinstance(event, TrialEnded) and event.outcome != "killed":
            self.count = 0
        self.emit(event)

    def one_more(self) -> None:
        """Queue again what it was at; another process is to take its place.

        Raises:
            ModelError: several in a row were killed.
        """
        _tell_lost(requeue_lost(self.study), self.emit)
        self.count += 1
        if self.count == FAILURES_IN_A_ROW:
            raise ModelError(
                f"{self.count} processes were killed, and no trial came to its end; where memory is short, take fewer"
                " --jobs or smaller settings"
            )


def _tell_lost(lost: Iterable[tuple[FrozenTrial, bool]], emit: Emit) -> None:
    """Tell of trials that were killed, each with whether it is tried again."""
    for trial, again in lost:
        said = trial.user_attrs
        fate = "its settings are tried again" if again else "its settings are given up"
        emit(
            TrialEnded(
                _key(trial.number),
                trial.number,
                in_words(settings_of(trial)),
                "killed",
                None,
                said.get("epochs", 0),
                said.get("seconds", 0.0),
                f"its process was killed, out of memory perhaps; {fate}",
            )
        )


def _points(search: Search) -> list[dict[str, Any]]:
    """Return all points of a space, the suite's own settings first; none where there are too many to try them all."""
    each = search.tune.grid_points if search.tune.sampler == "grid" else None
    return search.space.points(each, search.tune.seed) if search.space.size(each) <= LARGEST_GRID else []


def _number(search: Search, trials: Iterable[FrozenTrial], *states: TrialState) -> int:
    """Return how many of `trials` count, or will, if they are in these states or have ended.

    Where there are so many points, points count, also those that are given up.
    """
    wanted = {*ENDED, *states}
    each = search.tune.grid_points if search.tune.sampler == "grid" else None
    if search.space.size(each) > LARGEST_GRID:
        return sum(trial.state in wanted for trial in trials)
    points = (settings_of(trial) for trial in trials if trial.state in wanted or is_given_up(trial))
    return len({json.dumps(point, sort_keys=True) for point in points})


def _goes_on(search: Search, budget: Budget, emit: Emit) -> bool:
    """Return whether a further trial is to begin; wait for those of which it is not known whether they will end."""
    while True:
        _tell_lost(requeue_lost(search.study), emit)
        if budget.seconds is not None and spent_seconds(search.study) >= budget.seconds:
            return False
        trials = search.study.get_trials(deepcopy=False)
        if budget.trials is None or _number(search, trials, TrialState.RUNNING) < budget.trials:
            return True
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        doubtful = any(is_doubtful(trial, search.place) for trial in running)
        if not doubtful or _number(search, trials) >= budget.trials:
            return False
        time.sleep(LOOK_AGAIN_SECONDS)


def _key(number: int) -> str:
    return f"trial-{number}"


class _Trial:
    """One trial at work."""

    def __init__(self, trial: optuna.Trial, search: Search, budget: Budget, place: Place, emit: Emit) -> None:
        self._trial, self._search, self._budget = trial, search, budget
        self._place, self._emit = place, emit
        self._key = _key(trial.number)
        self._by_epoch = search.tune.pruner in {"percentile", "median", "hyperband"}
        self._epochs = 0
        self._judged = self._by_epoch
        self._began = time.perf_counter()

    def run(self) -> float:
        """Train the trial's seeds and return the mean of their best validation metrics.

        Raises:
            TrialPruned: the pruner gave it up.
            ModelError: a training failed.
        """
        self._trial.set_user_attr("process", this_process())
        self._pass_over()
        chosen: dict[str, Any] = {}
        values: list[float] = []
        try:
            chosen = self._chosen()
            for seed in self._search.tune.seeds:
                values.append(self._train(chosen, seed))
                self._trial.set_user_attr("by_seed", values)
                if self._search.tune.pruner == "wilcoxon":
                    self._trial.report(values[-1], len(values))
                    self._prune()
        except _PassedOver:
            raise
        except optuna.TrialPruned:
            self._tell("pruned", chosen)
            raise
        except (KeyboardInterrupt, StoreError):  # of a full disk, say: no fault of the settings
            self._trial.set_user_attr(INTERRUPTED, True)
            raise
        except UpdateFinishedTrialError:  # another process has taken this one for dead
            number, seconds = self._trial.number, time.perf_counter() - self._began
            told = "another machine took this one for dead; it tries these settings itself"
            self._emit(TrialEnded(self._key, number, in_words(chosen), "killed", None, self._epochs, seconds, told))
            raise
        except (Exception, SystemExit) as error:  # whatever ends a training: other settings may do
            told = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            told = told.encode(errors="backslashreplace").decode()  # a message may be no valid text
            self._trial.set_user_attr("error", told)
            self._tell("failed", chosen, error=told)
            raise ModelError(told) from error
        value = sum(values) / len(values)
        self._tell("complete", chosen, value)
        return value

    @property
    def frozen(self) -> FrozenTrial:
        """The trial as the storage has it."""
        return self._search.study.get_trials(deepcopy=False)[self._trial.number]

    @property
    def is_interrupted(self) -> bool:
        """Whether it was ended from outside: by Ctrl-C, or by another process that took this one for dead."""
        trial = self.frozen
        return trial.state == TrialState.FAIL and not {"error", SURPLUS} & trial.user_attrs.keys()

    def _pass_over(self) -> None:
        """Leave the trial to another process that was faster.

        Raises:
            _PassedOver: enough trials were begun before it, or one with its own queued settings; or another process
                took the point of the grid that was queued for it.
        """
        before = self._search.study.get_trials(deepcopy=False)[: self._trial.number]
        to_come = (TrialState.RUNNING, TrialState.WAITING)
        queued = "fixed_params" in self.frozen.system_attrs
        twin = queued and self._is_held(before, settings_of(self.frozen))
        robbed = not queued and self._search.tune.sampler == "grid"
        wanted = self._budget.trials
        if twin or robbed or (wanted is not None and _number(self._search, before, *to_come) >= wanted):
            self._trial.set_user_attr(SURPLUS, True)
            raise _PassedOver

    def _chosen(self) -> dict[str, Any]:
        """Return the trial's settings: those it was queued with, or those that the sampler draws.

        Raises:
            _PassedOver: another trial has what the sampler has drawn.
        """
        trial = self.frozen
        if OWN in trial.user_attrs:
            return dict(trial.user_attrs[OWN])
        chosen = self._search.space.suggest(self._trial)
        before = self._search.study.get_trials(deepcopy=False)[: self._trial.number]
        if "fixed_params" not in trial.system_attrs and self._is_held(before, chosen):
            self._trial.set_user_attr(SURPLUS, REPEAT)
            raise _PassedOver
        return chosen

    @staticmethod
    def _is_held(before: Iterable[FrozenTrial], chosen: Mapping[str, Any]) -> bool:
        """Return whether a trial before this one has, had, or will have, these settings."""
        held = {*ENDED, TrialState.RUNNING, TrialState.WAITING}
        return any(settings_of(t) == chosen and (t.state in held or is_given_up(t)) for t in before)

    def _train(self, chosen: Mapping[str, Any], seed: int) -> float:
        """Train one seed and return its best validation metric."""
        self._judged = self._by_epoch and seed == self._search.tune.seeds[0]
        cell = with_settings(self._search.cell, chosen)  # each value is allowed, but perhaps not beside the others
        tried = replace(cell, variant=f"({in_words(chosen)})", seed=seed)
        name = (self._key, tried.dataset, tried.shown, tried.seed)
        self._emit(CellStarted(*name, tried.training.epochs, tried.training.stop_metric))
        return train_cell(self._key, tried, self._place, self._search.data, self._listen).fitted.best_valid

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
