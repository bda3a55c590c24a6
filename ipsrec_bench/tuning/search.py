"""The search: asks the study for trials, hands them out to an executor, and reports their results to the study.

One process of a command does all this; trials know nothing of the study. Several commands, on one machine or on
several, may work on one study at once.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import BenchError, ModelError, StudyError
from ipsrec_bench.events import (
    CellEvent,
    CellStarted,
    Emit,
    EpochDone,
    Event,
    ExecutorNotice,
    RunPaused,
    RunResumed,
    SearchStarted,
    TrialEnded,
    TrialOutcome,
)
from ipsrec_bench.run.control import FINAL, Wanted
from ipsrec_bench.run.engine import MakeExecutor
from ipsrec_bench.run.executors.api import Died, Done, Executor, Outcome, Refused, Slot, Task
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
    ask,
    expected_seconds,
    give_back,
    heartbeat,
    is_doubtful,
    is_given_up,
    may_end,
    queue_untried,
    requeue_lost,
    settings_of,
    spent_seconds,
    storage_failure,
    this_process,
)
from ipsrec_bench.tuning.trial import TrainedTrial, do_trial

FAILURES_IN_A_ROW = 5
MOST_TRIALS = 200
"""Maximum number of trials of a search that is limited by seconds alone. Models that count need almost no seconds, and
what a search costs besides grows with the square of its trials."""
LOOK_AGAIN_SECONDS = 1.0
"""Interval at which the trials of other commands are checked, if the search depends on them."""


@dataclass(frozen=True)
class Budget:
    """Limits for every model of a search; the first one reached ends it."""

    trials: int | None
    """Number of complete and pruned trials."""
    seconds: float | None
    """Training time, summed over the trials, including failed ones. No trial begins that is expected to end after it;
    the last one may take longer than expected. Without `trials`, there are at most `MOST_TRIALS`."""


def budget_of(tune: Tune) -> Budget:
    """Return the budget that a suite gives every row."""
    return Budget(tune.trials, None) if tune.budget == "equal trials" else Budget(None, tune.seconds)


@dataclass(frozen=True, eq=False)
class Search:
    """The search of one row, a model or a variant, on one dataset."""

    study: optuna.Study
    place: str
    """Storage of the study."""
    cell: Cell
    space: Space
    tune: Tune
    data: PreparedDataset


class _PassedOver(Exception):  # noqa: N818 (it is not an error)
    """Another process was faster: it began the last trial of the budget, or one with the same settings."""


def run_search(
    search: Search,
    budget: Budget,
    make_executor: MakeExecutor,
    workplace: Workplace,
    emit: Emit,
    wanted: Callable[[], Wanted] = lambda: "run",
) -> bool:
    """Run trials until `budget` is spent or the grid is done; only validation targets are ranked.

    A trial whose process was killed is queued again; settings whose training fails are skipped.

    Args:
        search: the model, and its study.
        budget: when to stop.
        make_executor: factory of the executor that trains the trials.
        workplace: gives each trial a folder, which is removed when it has ended.
        emit: callback that receives every event.
        wanted: callback that is polled a few times a second: whether to run, pause or stop.

    Returns:
        Whether the search came to its end; False if it was interrupted, by Ctrl-C or a request to stop. Running trials
        are then queued again.

    Raises:
        ModelError: several trials in a row failed or were killed.
        StudyError: the journal or the database fails.
        StoreError: the weights of a trial cannot be written; the running trials are queued again.
        BenchError: a device is missing.
    """
    with _failures_of_storage():
        study = search.study
        requeue_lost(study, killed=False)  # the search was killed as a whole, which is no fault of its settings
        points = _points(search)
        is_bounded = budget.trials is None
        budget = _bounded(budget, points)
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
        before = _number(search, study.get_trials(deepcopy=False))
        emit(
            SearchStarted(
                f"Tuning {search.cell.label} on {search.cell.dataset}",
                search.cell.training.stop_metric,
                budget.trials,
                budget.seconds,
                before,
                spent_seconds(study),
                best.value if best else None,
                in_words(settings_of(best)) if best else "",
            )
        )
        work = _Work(search, budget, points, workplace, emit, wanted)
        try:
            with make_executor(work.listen, work.tick) as executor:
                work.through(executor)
        except KeyboardInterrupt:
            return False
        is_left = budget.seconds is not None and spent_seconds(study) < budget.seconds
        after = _number(search, study.get_trials(deepcopy=False))
        if is_bounded and is_left and before < MOST_TRIALS <= after and len(points or ()) != MOST_TRIALS:
            emit(
                ExecutorNotice(
                    f"the search of {search.cell.label} on {search.cell.dataset} ended after {MOST_TRIALS} trials, the"
                    f" most that a limit in seconds allows; they took {spent_seconds(study):,.0f} of"
                    f" {budget.seconds:,.0f} s"
                )
            )
        return True


def has_ended(search: Search, budget: Budget) -> bool:
    """Return whether `run_search` would begin no trial: the study has taken `budget` up, or the grid is done."""
    trials = search.study.get_trials(deepcopy=False)
    return _is_spent(search, _bounded(budget, _points(search)), trials)


def _bounded(budget: Budget, points: Sequence[Mapping[str, Any]]) -> Budget:
    """Return the budget with its number of trials: each of `points`, if there are any, is tried at most once."""
    most = budget.trials or MOST_TRIALS
    return replace(budget, trials=min(len(points), most) if points else most)


@contextlib.contextmanager
def _failures_of_storage() -> Iterator[None]:
    """Convert errors of Optuna or a driver about a failing journal or database into a `StudyError`."""
    try:
        yield
    except Exception as error:
        failure = None if isinstance(error, BenchError) else storage_failure(error)
        if failure is None:
            raise
        raise StudyError(failure) from error


class _Work:
    """State of a live search."""

    def __init__(
        self,
        search: Search,
        budget: Budget,
        points: list[dict[str, Any]],
        workplace: Workplace,
        emit: Emit,
        wanted: Callable[[], Wanted],
    ) -> None:
        self._search, self._study, self._budget, self._points = search, search.study, budget, points
        self._workplace, self._emit, self._wanted = workplace, emit, wanted
        self._is_held = False
        """Whether the search is paused."""
        self._executor: Executor
        self._at_work: dict[str, _Trial] = {}
        """Trials that were begun here, until their task has ended."""
        self._failures = self._deaths = 0
        """Consecutive failed trials; processes that died since a trial last came to its end."""
        self._error: Exception | None = None
        """Error that was raised while an event was handled; it must not reach a training in this process."""

    def through(self, executor: Executor) -> None:
        """Run trials until none is left to begin and all have ended."""
        self._executor = executor
        try:
            while self._hand_out() or self._at_work:
                for outcome in executor.outcomes(LOOK_AGAIN_SECONDS):
                    self._settle(outcome)
                if self._error is not None:
                    raise self._error
        finally:
            executor.close()  # trials cannot be resumed
            with contextlib.ExitStack() as held:
                for trial in self._at_work.values():
                    held.push(trial.held)
                for trial in self._at_work.values():
                    self._give_back(trial)

    def listen(self, event: Event) -> None:
        """Pass on an event, and judge its trial by it, which may end the trial."""
        if not isinstance(event, CellEvent):
            self._emit(event)
            return
        trial = self._at_work.get(event.key)
        if trial is None or trial.is_over:
            return
        self._emit(event)
        if self._error is None:
            try:
                self._judge(trial, event)
            except Exception as error:  # noqa: BLE001 (it is raised once the executor returns)
                self._error = error
        if trial.is_over or self._error is not None:
            self._executor.stop(trial.key)

    def tick(self) -> None:
        """Check requests; executors call this a few times a second.

        Raises:
            KeyboardInterrupt: the search is requested to stop.
        """
        wanted = self._wanted()
        if wanted in FINAL:
            raise KeyboardInterrupt
        if (wanted == "pause") != self._is_held:
            self._is_held = wanted == "pause"
            self._executor.pause(held=self._is_held)
            self._emit(RunPaused() if self._is_held else RunResumed())

    def _judge(self, trial: "_Trial", event: CellEvent) -> None:
        try:
            trial.hear(event)
        except optuna.TrialPruned:
            self._tell(trial, "pruned", TrialState.PRUNED)
        except UpdateFinishedTrialError:
            self._lose(trial)

    def _hand_out(self) -> bool:
        """Begin trials in all free slots; return whether there may be more to begin later."""
        for slot in () if self._is_held else self._executor.free():
            trial = self._next()
            if trial is None:
                return self._depends_on_others()
            self._begin(trial, slot)
        return True

    def _is_one_wanted(self) -> bool:
        """Return whether a further trial is to begin."""
        _tell_lost(requeue_lost(self._study), self._emit)
        return not _is_spent(self._search, self._budget, self._study.get_trials(deepcopy=False), TrialState.RUNNING)

    def _depends_on_others(self) -> bool:
        """Return whether further trials may be wanted once running ones have ended, or are known to be dead.

        Of a number of trials, those that certainly run have their share. Of seconds, they may take fewer than expected.
        """
        trials = self._study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        holds = is_doubtful if self._budget.seconds is None else may_end
        if not any(holds(trial, self._search.place) for trial in running):
            return False
        ended = [trial for trial in trials if trial.state != TrialState.RUNNING]
        return not _is_spent(self._search, self._budget, ended)

    def _next(self) -> "_Trial | None":
        """Ask the study for a trial to train; None if none is to begin now."""
        is_repeat = False
        while self._is_one_wanted():
            if is_repeat or self._search.tune.sampler == "grid":
                queue_untried(self._study, self._search.space, self._points, self._search.tune.seed)
            trial = _Trial(ask(self._study), self._search, self._budget)
            self._at_work[trial.key] = trial
            try:
                trial.begin()
            except _PassedOver:
                is_repeat = trial.frozen.user_attrs[SURPLUS] == REPEAT
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # another process has ended it
                    self._study.tell(trial.trial, state=TrialState.FAIL)
            except ModelError as error:
                self._fail(trial, str(error))
            except UpdateFinishedTrialError:
                self._lose(trial)
            else:
                return trial
            del self._at_work[trial.key]
        return None

    def _begin(self, trial: "_Trial", slot: Slot) -> None:
        trial.held.enter_context(heartbeat(trial.trial))
        folder = trial.held.enter_context(self._workplace.scratch())  # a trial's weights are not kept
        self._executor.begin(
            slot, Task(trial.key, partial(do_trial, trial.key, trial.cells), self._search.data, folder)
        )

    def _settle(self, outcome: Outcome) -> None:
        """Report the outcome of a task to the study, unless its trial was over before.

        Raises:
            BenchError: the task could not run for an external reason.
        """
        trial = self._at_work.pop(outcome.key)
        with trial.held:
            if isinstance(outcome, Refused):
                self._give_back(trial)
                raise outcome.error
            if trial.is_over or self._error is not None:
                return
            try:
                if isinstance(outcome, Died):
                    self._bury(trial, outcome.cause)
                elif isinstance(outcome, Done):
                    self._end(trial, outcome.result)
                else:  # stopped, by Ctrl-C
                    self._give_back(trial)
            except UpdateFinishedTrialError:
                self._lose(trial)

    def _end(self, trial: "_Trial", trained: TrainedTrial) -> None:
        """Record the result of a completed task.

        Raises:
            ModelError: several trials in a row failed.
        """
        trial.keep_costs(trained.seconds)
        if trained.error:
            self._fail(trial, trained.error)
            return
        try:
            trial.keep_values(trained.values)
        except optuna.TrialPruned:
            self._tell(trial, "pruned", TrialState.PRUNED)
        else:
            self._tell(trial, "complete", TrialState.COMPLETE, sum(trained.values) / len(trained.values))

    def _fail(self, trial: "_Trial", error: str) -> None:
        """Record a trial whose training has failed; its settings are not tried again.

        Raises:
            ModelError: several trials in a row failed.
        """
        with contextlib.suppress(UpdateFinishedTrialError):  # `_tell` notices, too
            trial.trial.set_user_attr("error", error)
        self._tell(trial, "failed", TrialState.FAIL, error=error)
        if self._failures == FAILURES_IN_A_ROW:
            raise ModelError(f"{self._failures} trials in a row failed; the last error: {error}")

    def _bury(self, trial: "_Trial", cause: str) -> None:
        """Queue the settings of a trial whose process has died again.

        Raises:
            ModelError: several processes died, and no trial came to its end.
        """
        again = give_back(self._study, trial.frozen, killed=True)
        if again is None:
            self._lose(trial)
            return
        self._emit(_killed(trial.frozen, cause, again=again))
        self._deaths += 1
        if self._deaths == FAILURES_IN_A_ROW:
            raise ModelError(
                f"{self._deaths} processes were killed, and no trial came to its end; if memory is short, take fewer"
                " --jobs or smaller settings"
            )

    def _give_back(self, trial: "_Trial") -> None:
        """Queue the settings of an interrupted trial again, without counting it against them."""
        if not trial.is_over:
            with contextlib.suppress(UpdateFinishedTrialError):  # another process has done so
                trial.trial.set_user_attr(INTERRUPTED, True)
                give_back(self._study, trial.frozen, killed=False)

    def _lose(self, trial: "_Trial") -> None:
        """Give up a trial that another process took over because this one seemed dead."""
        trial.is_over = True
        reason = "another process took over this trial because its heartbeat timed out; it retries these settings"
        self._emit(trial.ended("killed", None, reason))

    def _tell(
        self, trial: "_Trial", outcome: TrialOutcome, state: TrialState, value: float | None = None, error: str = ""
    ) -> None:
        try:
            self._study.tell(trial.trial, value, state)
        except (ValueError, UpdateFinishedTrialError):  # what Optuna says of a trial that is over
            self._lose(trial)
            return
        trial.is_over = True
        self._failures, self._deaths = self._failures + 1 if error else 0, 0
        self._emit(trial.ended(outcome, value, error))


def _tell_lost(lost: Iterable[tuple[FrozenTrial, bool]], emit: Emit) -> None:
    """Emit the end of killed trials, each with whether it is tried again."""
    for trial, again in lost:
        emit(_killed(trial, "its process was killed, perhaps out of memory", again=again))


def _killed(trial: FrozenTrial, cause: str, *, again: bool) -> TrialEnded:
    said = trial.user_attrs
    fate = "its settings are tried again" if again else "its settings are given up"
    return TrialEnded(
        _key(trial.number),
        trial.number,
        in_words(settings_of(trial)),
        "killed",
        None,
        said.get("epochs", 0),
        said.get("seconds", 0.0),
        f"{cause}; {fate}",
    )


def _points(search: Search) -> list[dict[str, Any]]:
    """Return all points of a space, the suite's own settings first; none if there are too many to try them all."""
    each = search.tune.grid_points if search.tune.sampler == "grid" else None
    return search.space.points(each, search.tune.seed) if search.space.size(each) <= LARGEST_GRID else []


def _number(search: Search, trials: Iterable[FrozenTrial], *states: TrialState) -> int:
    """Return how many of `trials` count: those that have ended, or are in one of `states`.

    If the space is small enough to try every point, it counts distinct points, including those that are given up.
    """
    wanted = {*ENDED, *states}
    each = search.tune.grid_points if search.tune.sampler == "grid" else None
    if search.space.size(each) > LARGEST_GRID:
        return sum(trial.state in wanted for trial in trials)
    points = (settings_of(trial) for trial in trials if trial.state in wanted or is_given_up(trial))
    return len({json.dumps(point, sort_keys=True) for point in points})


def _is_spent(search: Search, budget: Budget, trials: Sequence[FrozenTrial], *states: TrialState) -> bool:
    """Return whether `trials` take a budget up; of its number of trials, those in one of `states` count as well."""
    seconds, most = budget.seconds, budget.trials
    if seconds is not None and expected_seconds(trials, search.place) >= seconds:
        return True
    return most is not None and _number(search, trials, *states) >= most


def _key(number: int) -> str:
    return f"trial-{number}"


class _Trial:
    """One trial of this process."""

    def __init__(self, trial: optuna.Trial, search: Search, budget: Budget) -> None:
        self.trial, self.key = trial, _key(trial.number)
        self.is_over = False
        """Whether the study knows how it ended; what its task still does is ignored."""
        self.held = contextlib.ExitStack()
        """Resources that it holds until its task has ended."""
        self.cells: tuple[Cell, ...] = ()
        """Its cells, one per seed."""
        self._search, self._budget = search, budget
        self._chosen: dict[str, Any] = {}
        self._by_epoch = search.tune.pruner in {"percentile", "median", "hyperband"}
        self._epochs, self._seconds = 0, 0.0
        self._began: float | None = None
        self._best: dict[int, float] = {}
        """Best validation metric so far of each seed that has begun."""

    def begin(self) -> None:
        """Record the process that runs it, and choose its settings.

        Raises:
            _PassedOver: another process was faster.
            ModelError: the model refuses the combination of settings.
        """
        self.trial.set_user_attr("process", this_process())
        self._pass_over()
        chosen = self._chosen = self._choose()
        cell = with_settings(self._search.cell, chosen)  # each value is allowed, but perhaps not the combination
        variant = f"{cell.variant} ({in_words(chosen)})".strip()
        self.cells = tuple(replace(cell, variant=variant, seed=seed) for seed in self._search.tune.seeds)

    def hear(self, event: CellEvent) -> None:
        """Handle an event of its task.

        Raises:
            TrialPruned: the pruner stops it.
            UpdateFinishedTrialError: another process took over the trial.
        """
        if isinstance(event, CellStarted):
            if self._began is None:
                self._began = event.time
            if self._best:  # the seeds before this one are done
                self.keep_values(tuple(self._best.values()))
        elif isinstance(event, EpochDone):
            self._epochs += 1
            self.keep_costs(max(0.0, event.time - (self._began or event.time)))
            if event.valid is None:  # a stage before the main one
                return
            self._best[event.seed] = max(event.valid, self._best.get(event.seed, event.valid))
            if self._by_epoch and event.seed == self._search.tune.seeds[0]:
                self.trial.report(event.valid, event.epoch)
                self._prune()

    def keep_values(self, values: tuple[float, ...]) -> None:
        """Record the best validation metrics of the seeds that are done.

        Raises:
            TrialPruned: the pruner stops the trial because of them.
        """
        self.trial.set_user_attr("by_seed", list(values))
        if self._search.tune.pruner == "wilcoxon":
            self.trial.report(values[-1], len(values))
            self._prune()

    def keep_costs(self, seconds: float) -> None:
        """Record its costs so far, so that the budget counts them even if it is killed."""
        self._seconds = seconds
        self.trial.set_user_attr("epochs", self._epochs)
        self.trial.set_user_attr("seconds", seconds)

    def ended(self, outcome: TrialOutcome, value: float | None, error: str) -> TrialEnded:
        """Return the event of its end."""
        settings = in_words(self._chosen)
        return TrialEnded(self.key, self.trial.number, settings, outcome, value, self._epochs, self._seconds, error)

    @property
    def frozen(self) -> FrozenTrial:
        """The trial as the storage has it."""
        return self._search.study.get_trials(deepcopy=False)[self.trial.number]

    def _prune(self) -> None:
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def _pass_over(self) -> None:
        """Give up the trial if another process was faster.

        Raises:
            _PassedOver: enough trials were begun before it, or one with its own queued settings; or another process
                took the point of the grid that was queued for it.
        """
        before = self._search.study.get_trials(deepcopy=False)[: self.trial.number]
        to_come = (TrialState.RUNNING, TrialState.WAITING)
        queued = "fixed_params" in self.frozen.system_attrs
        twin = queued and self._is_held(before, settings_of(self.frozen))
        robbed = not queued and self._search.tune.sampler == "grid"
        budget = replace(self._budget, seconds=None) if queued else self._budget  # queued settings would be lost
        if twin or robbed or _is_spent(self._search, budget, before, *to_come):
            self.trial.set_user_attr(SURPLUS, True)
            raise _PassedOver

    def _choose(self) -> dict[str, Any]:
        """Return the trial's settings: those it was queued with, or those that the sampler draws.

        Raises:
            _PassedOver: another trial has the settings that the sampler drew.
        """
        trial = self.frozen
        if OWN in trial.user_attrs:
            return dict(trial.user_attrs[OWN])
        chosen = self._search.space.suggest(self.trial)
        before = self._search.study.get_trials(deepcopy=False)[: self.trial.number]
        if "fixed_params" not in trial.system_attrs and self._is_held(before, chosen):
            self.trial.set_user_attr(SURPLUS, REPEAT)
            raise _PassedOver
        return chosen

    @staticmethod
    def _is_held(before: Iterable[FrozenTrial], chosen: Mapping[str, Any]) -> bool:
        """Return whether a trial before this one has, had, or will have, these settings."""
        held = {*ENDED, TrialState.RUNNING, TrialState.WAITING}
        return any(settings_of(t) == chosen and (t.state in held or is_given_up(t)) for t in before)
