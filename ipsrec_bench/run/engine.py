"""The coordinator: hands out cells to an executor, and is the only process of a run that writes the store.

Several runs may work on one store at once, of one suite or of several that share cells. Each claims the cells that it
hands out, and finds the results of the others in the store.

Nothing here imports torch: a run with nothing to do ends at once, and a coordinator needs little memory.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split_statistics import held_out_facts
from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellFound,
    CellInterrupted,
    CellsAwaited,
    Emit,
    Event,
    RunFinished,
    RunPaused,
    RunPlanned,
    RunResumed,
    RunStarted,
    WorkerEnded,
    WorkerSeen,
)
from ipsrec_bench.run.admission import Admission, Begin, Choice, Probe, Refuse, Running, memory_at
from ipsrec_bench.run.control import Wanted
from ipsrec_bench.run.costs import CostEstimate, NoCost
from ipsrec_bench.run.executors.api import Died, Done, Executor, Outcome, Place, Refused, Slot, Stopped, Task, Tick
from ipsrec_bench.run.kept import keep, kept_record
from ipsrec_bench.run.plan import Plan, key_of
from ipsrec_bench.run.recording import Keep, Recorder
from ipsrec_bench.run.workplace import MOST_DEATHS, Claim, Workplace
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, claim_name, record_split, record_targets
from ipsrec_bench.store.queries import metrics_of, outcome_of
from ipsrec_bench.store.records import CellRecord, reason_of
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.words import counted

LOOK_AGAIN_SECONDS = 0.5
"""Interval at which the claims of other runs are checked."""
STOP_SECONDS = 5.0
"""A worker that does not stop within this time is killed. The last state of its training is on disk."""

MakeExecutor = Callable[[Emit, Tick], Executor]


@dataclass(frozen=True)
class Policy:
    """Which cells a run trains, and how it handles their outcomes."""

    fail_fast: bool = False
    """End the run with the first cell that fails."""
    retry_failed: bool = False
    """Retry cells that were skipped because they ended their process."""
    timeout: float = inf
    """Seconds that a cell may take in this run; the next run resumes it."""
    keep: Keep = "best"
    force: bool = False
    """Run complete cells again; each is replaced once its new ranks are complete."""
    collect: bool = False
    """Train nothing; the cells that the store lacks are left to other runs."""


def execute(
    plan: Plan,
    store: Path,
    make_executor: MakeExecutor,
    emit: Emit,
    *,
    policy: Policy | None = None,
    wanted: Callable[[], Wanted] = lambda: "run",
    admission: Admission | None = None,
) -> RunFinished:
    """Run what `plan` leaves to do, writing every cell to the store as soon as it ends.

    Args:
        plan: the cells, and which are done.
        store: the store's file; open for writing only while a cell is recorded.
        make_executor: factory of the executor; called only if there is a cell to train.
        emit: callback that receives every event.
        policy: which cells are run, and what becomes of those that fail; by default, the others go on.
        wanted: callback that is polled a few times a second: whether to run, pause or stop.
        admission: decides by this machine's memory which cell begins next; by default, cells begin in their order.

    Returns:
        How the run ended. An interruption (Ctrl-C) ends it and keeps everything recorded so far.

    Raises:
        SuiteError: the store has another suite of the suite's name.
        StoreError: the store, or the folder beside it, cannot be written. A trained cell is kept beside the store, and
            the next run enters it.
        BenchError: a device is missing.
    """
    began, since = time.perf_counter(), datetime.now(UTC).replace(tzinfo=None)
    policy = policy or Policy()
    workplace = Workplace(store)
    recorder = Recorder(store, workplace, emit, policy.keep)
    workplace.sweep()
    entered = recorder.enter_kept()
    todo = {key: cell for key, cell in plan.todo(force=policy.force) if policy.force or key not in entered}
    lacking = set(todo)
    if policy.collect:
        todo.clear()
    if policy.retry_failed:
        workplace.forget_deaths(todo.keys())
    passed_over = _passed_over(todo, workplace, store)
    for key in passed_over:
        del todo[key]
    splits = {  # conditions with equal data and equal splits share their targets
        (plan.datasets[cell.dataset].fingerprint, cell.protocol.split_name): (
            plan.datasets[cell.dataset],
            cell.protocol,
        )
        for _, cell in reversed(plan.cells)
    }
    held_out = [(data.fingerprint, protocol, *held_out_facts(data, protocol)) for data, protocol in splits.values()]
    # Preparing the data may have taken hours: do not give up because a report, for example, reads the store.
    with writing(store, patience=inf, on_wait=recorder.on_wait) as connection:
        claim_name(connection, plan.file, store)
        run = begin_run(connection, plan.file, list(plan.datasets.values()), plan.planned())
        for fingerprint, protocol, facts, statistics in held_out:
            record_targets(connection, fingerprint, protocol, facts)
            record_split(connection, fingerprint, protocol, statistics)
    cells = len({key for key, _ in plan.mine})
    emit(_started(plan, cells, cells - len(lacking)))
    emit(_planned(plan, recorder, lacking))
    for event in passed_over.values():
        emit(event)
    work = _Work(plan, recorder, emit, since, policy, wanted, admission)
    work.broken.update((key, event.error) for key, event in passed_over.items())
    if todo:
        with make_executor(work.listen, work.tick) as executor:
            work.through(todo, executor)
    failed = work.failed + len(passed_over)
    ended = RunFinished(run, work.complete, failed, time.perf_counter() - began, work.is_interrupted)
    emit(ended)
    return ended


def _started(plan: Plan, cells: int, skipped: int) -> RunStarted:
    suite = plan.file.suite
    wanted = suite.statistics.baseline
    baseline = next((cell.shown for _, cell in plan.cells if cell.label == wanted), wanted)
    metric_name = suite.main_metric
    return RunStarted(plan.file.name, suite.title, cells, skipped, baseline, metric_name)


def _planned(plan: Plan, recorder: Recorder, left: Collection[str]) -> RunPlanned:
    """Return the grid of a run; if some cells are done and some are left, with metrics and times from the store."""
    grid = tuple((*_name(key, cell), "queued" if key in left else "done") for key, cell in plan.mine)
    done = {key for key, _ in plan.mine if key not in left}
    if not (left and done):
        return RunPlanned(grid)
    with reading(recorder.store, patience=inf, on_wait=recorder.on_wait) as connection:
        protocol = plan.file.suite.protocol
        found = metrics_of(connection, done, protocol.shown, protocol.ties)
    return RunPlanned(
        grid,
        {key: metrics for key, (metrics, _) in found.items()},
        {key: seconds for key, (_, seconds) in found.items()},
    )


def _do_probe(cell: Cell, place: Place, data: PreparedDataset, emit: Emit) -> CostEstimate:
    """Measure what a cell takes, in the place where it would be trained."""
    from ipsrec_bench.run.probe import probe

    return probe(cell, place, data, emit)


def _do_cell(key: str, cell: Cell, place: Place, data: PreparedDataset, emit: Emit) -> None:
    """Train a cell in its worker, and leave its record in its folder."""
    from ipsrec_bench.run.cell import do_cell

    do_cell(key, cell, place, data, emit)


@dataclass(eq=False)
class _Claimed:
    """A cell that this run has claimed."""

    key: str
    cell: Cell
    claim: Claim
    slot: Slot | None = None
    """The slot that it was last given to."""
    is_probed: bool = False
    """Whether its current task is a probe."""
    seconds: float = 0.0
    """How long its tasks have run; pauses do not count."""


@dataclass
class _Work:
    """State of a live run."""

    plan: Plan
    recorder: Recorder
    emit: Emit
    since: datetime
    """When this run began, in UTC without a time zone, as in the store."""
    policy: Policy
    wanted: Callable[[], Wanted]
    admission: Admission | None
    complete: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    is_interrupted: bool = field(default=False, init=False)
    """Whether a user has stopped the run."""
    broken: dict[str, str] = field(default_factory=dict, init=False)
    """Why cells failed in this run, or are skipped, by key: no other cell can rank their models."""
    _parents: dict[str, str] = field(default_factory=dict, init=False)
    """Keys of the cells whose models other cells rank, by the keys of these."""
    _executor: Executor = field(init=False)
    _running: dict[str, _Claimed] = field(default_factory=dict, init=False)
    _again: list[_Claimed] = field(default_factory=list, init=False)
    """Cells to begin again: their process died, or they were probed."""
    _ended: list[Outcome] = field(default_factory=list, init=False)
    """Outcomes that the executor has returned and that are not recorded yet."""
    _resident: dict[str, int] = field(default_factory=dict, init=False)
    """Resident memory of each worker in bytes, from its last `WorkerSeen`."""
    _is_held: bool = field(default=False, init=False)
    _is_in_haste: bool = field(default=False, init=False)
    """Whether to end workers without waiting for their next step."""
    _ticked: float = field(default_factory=time.monotonic, init=False)

    def through(self, todo: dict[str, Cell], executor: Executor) -> None:
        """Run every cell; those that other runs have claimed come last, once their claims end."""
        self._executor = executor
        self._parents = {
            key: key_of(cell.parent, self.plan.datasets[cell.dataset]) for key, cell in todo.items() if cell.parent
        }
        try:
            self._through(dict(todo))
            self._stop()
        except KeyboardInterrupt:
            self.is_interrupted = True
            with contextlib.suppress(KeyboardInterrupt):  # a second one: no more waiting
                self._stop()
        except BenchError:
            self._stop()
            raise
        finally:
            executor.close()
            for claimed in (*self._running.values(), *self._again):
                claimed.claim.give_back()
                self.emit(CellInterrupted(*_name(claimed.key, claimed.cell)))

    def listen(self, event: Event) -> None:
        """Pass on the events of workers, and remember their memory use."""
        if isinstance(event, WorkerSeen):
            self._resident[event.worker] = event.memory
        elif isinstance(event, WorkerEnded):
            self._resident.pop(event.worker, None)
        self.emit(event)

    def tick(self) -> None:
        """Check timeouts and requests; executors call this a few times a second.

        Raises:
            KeyboardInterrupt: the run is requested to stop.
        """
        now = time.monotonic()
        passed, self._ticked = now - self._ticked, now
        wanted = self.wanted()
        if (wanted == "stop" and not self.is_interrupted) or (wanted == "stop-now" and not self._is_in_haste):
            self._is_in_haste = wanted == "stop-now"
            raise KeyboardInterrupt
        if (wanted == "pause") != self._is_held:
            self._is_held = wanted == "pause"
            self._executor.pause(held=self._is_held)
            self.emit(RunPaused() if self._is_held else RunResumed())
        if self._is_held:
            return
        for key, claimed in self._running.items():
            claimed.seconds += passed
            if claimed.seconds > self.policy.timeout >= claimed.seconds - passed:
                self._executor.kill(key, "it took too long")

    def _through(self, left: dict[str, Cell]) -> None:
        is_said = False
        while (left or self._again or self._running) and not self._ends_early:
            awaits_others = not self._is_held and self._hand_out(left)
            if self._running:
                is_said = False
            elif not (left or self._again):
                return
            elif awaits_others and not is_said:
                self.emit(CellsAwaited(len(left)))
                is_said = True
            self._settle_what_ends()

    @property
    def _ends_early(self) -> bool:
        return self.policy.fail_fast and self.failed > 0

    def _hand_out(self, left: dict[str, Cell]) -> bool:
        """Begin cells as long as there are slots; return whether other runs have claimed all cells that are left."""
        others: set[str] = set()
        for slot in self._executor.free():
            is_taken = False
            while not (is_taken or self._ends_early):
                again = {claimed.key: claimed for claimed in self._again}
                waiting = [*again, *(key for key in left if key not in others and self._has_its_model(key, left))]
                if not waiting:
                    return bool(left)
                choice = self._choose(waiting, slot)
                if choice is None:  # memory is short
                    return False
                claimed = again.get(choice.key) or self._claim(choice.key, left)
                if claimed is None:
                    others.update({choice.key} & left.keys())
                    self._take_back(choice)
                    continue
                self._again = [other for other in self._again if other is not claimed]
                is_taken = self._begin(claimed, slot, choice)
        return False

    def _has_its_model(self, key: str, left: Collection[str]) -> bool:
        """Return whether a cell needs no other cell's model, or one whose training has ended."""
        parent = self._parents.get(key)
        return parent is None or not (
            parent in left or parent in self._running or any(claimed.key == parent for claimed in self._again)
        )

    def _choose(self, waiting: list[str], slot: Slot) -> Choice | None:
        if self.admission is None:
            return Begin(waiting[0])
        running = {
            key: Running(claimed.slot.device, self._resident.get(claimed.slot.worker, 0))
            for key, claimed in self._running.items()
            if claimed.slot is not None
        }
        idle = self._resident.get(slot.worker, 0)
        return self.admission.next(waiting, running, slot.device, memory_at(slot.device), idle)

    def _take_back(self, choice: Choice) -> None:
        if self.admission is not None:
            self.admission.take_back(choice)

    def _claim(self, key: str, left: dict[str, Cell]) -> _Claimed | None:
        """Claim a cell of `left`; return None if another run has it, or if its result exists and was settled."""
        claim = self.recorder.workplace.claim(key, _title(left[key]))
        if claim is None:
            return None
        claimed = _Claimed(key, left.pop(key), claim)
        with self._at(claimed):
            return claimed if self._is_to_be_trained(claimed) else None

    def _is_to_be_trained(self, claimed: _Claimed) -> bool:
        """Return whether a claimed cell must be trained; settle it if its outcome is known already."""
        key, cell = claimed.key, claimed.cell
        found = self.recorder.found(key)
        if found is not None and (found.started >= self.since or not (found.error or self.policy.force)):
            claimed.claim.give_back()
            self.failed += bool(found.error)
            if found.error:
                self.broken[key] = reason_of(found.error)
            self.emit(_failure(key, cell, found.error, 0.0) if found.error else self._found(key, cell))
            return False
        deaths = self.recorder.workplace.deaths().get(key, [])
        if (record := kept_record(claimed.claim.folder)) is not None:
            self._record(claimed, record)
        elif len(deaths) >= MOST_DEATHS:
            self._fail(claimed, _given_up(deaths))
        elif cell.parent is not None and (reason := self.broken.get(self._parents[key])) is not None:
            self._fail(claimed, f"it ranks the model of another cell, {_title(cell.parent)}, which failed: {reason}")
        else:
            return True
        return False

    def _found(self, key: str, cell: Cell) -> CellFound:
        with reading(self.recorder.store, patience=inf, on_wait=self.recorder.on_wait) as connection:
            metrics, seconds = metrics_of(connection, [key], cell.protocol.shown, cell.protocol.ties)[key]
        return CellFound(*_name(key, cell), metrics, seconds)

    def _begin(self, claimed: _Claimed, slot: Slot, choice: Choice) -> bool:
        """Carry out the choice for a claimed cell; return whether it takes the slot."""
        if isinstance(choice, Refuse):
            with self._at(claimed):
                self._fail(claimed, choice.sentence)
            return False
        self._running[claimed.key] = claimed
        claimed.slot, claimed.is_probed = slot, isinstance(choice, Probe)
        work = partial(_do_probe, claimed.cell) if claimed.is_probed else partial(_do_cell, claimed.key, claimed.cell)
        data = self.plan.datasets[claimed.cell.dataset]
        if claimed.cell.parent is not None and not claimed.is_probed:
            self.recorder.lend_weights(self._parents[claimed.key], claimed.claim.folder)
        self._executor.begin(slot, Task(claimed.key, work, data, claimed.claim.folder))
        return True

    def _settle_what_ends(self) -> None:
        """Wait a moment for outcomes, and record them.

        After an error or Ctrl-C, the next call records the remaining ones.
        """
        if not self._ended:
            self._ticked = time.monotonic()  # time that this process waited for the store does not count for cells
            self._ended = self._executor.outcomes(LOOK_AGAIN_SECONDS)
        while self._ended:
            self._settle(self._ended.pop(0))

    def _settle(self, outcome: Outcome) -> None:
        """Record the outcome of a cell, or queue the cell to begin again.

        Raises:
            BenchError: the cell could not run for an external reason.
        """
        claimed = self._running.pop(outcome.key)
        with self._at(claimed):
            if isinstance(outcome, Refused):
                raise outcome.error
            if claimed.is_probed and isinstance(outcome, Done | Died):
                self._learn(claimed, outcome)
            if claimed.is_probed and isinstance(outcome, Done):
                claimed.seconds = 0.0  # the seconds of the probe do not count for the cell
                self._again.insert(0, claimed)
            elif (record := kept_record(claimed.claim.folder)) is not None:
                self._record(claimed, record)
            elif claimed.seconds > self.policy.timeout:
                limit = f"{self.policy.timeout:g} seconds"
                self._fail(claimed, f"the cell took longer than {limit} (--timeout); the next run tries it again")
            elif isinstance(outcome, Died):
                if self.admission is not None and "SIGKILL" in outcome.cause:  # the kernel's way when memory runs out
                    self.admission.killed(claimed.key)
                workplace = self.recorder.workplace
                if not outcome.blame or workplace.note_death(claimed.key, outcome.cause) < MOST_DEATHS:
                    self._again.append(claimed)
                else:
                    self._fail(claimed, _given_up(workplace.deaths()[claimed.key]))
            else:
                assert isinstance(outcome, Stopped)  # a completed one has left its record
                claimed.claim.give_back()
                self.emit(CellInterrupted(*_name(claimed.key, claimed.cell)))

    def _learn(self, claimed: _Claimed, outcome: Done | Died) -> None:
        """Record the result of a probe. A probe that died has no cost; the cell itself may still succeed."""
        assert self.admission is not None
        finding = outcome.result if isinstance(outcome, Done) else NoCost(outcome.cause, does_not_fit=False)
        self.admission.learn(claimed.key, finding)

    @contextlib.contextmanager
    def _at(self, claimed: _Claimed) -> Iterator[None]:
        """Release the claim if the block raises."""
        try:
            yield
        except BaseException:
            claimed.claim.give_back()
            raise

    def _record(self, claimed: _Claimed, record: CellRecord) -> None:
        record = self.recorder.enter(record, claimed.claim.folder)
        claimed.claim.give_back(done=record.error is None or not claimed.seconds > self.policy.timeout)
        if record.error is not None:
            self.broken[record.key] = reason_of(record.error)
        self.complete, self.failed = self.complete + (not record.error), self.failed + bool(record.error)
        self.emit(_ending(record, claimed.cell))

    def _fail(self, claimed: _Claimed, error: str) -> None:
        """Record the failure of a cell whose process could not do so."""
        from ipsrec_bench.run.cell import new_record

        data, folder = self.plan.datasets[claimed.cell.dataset], claimed.claim.folder
        device, threads = (claimed.slot.device, claimed.slot.threads) if claimed.slot else ("cpu", 1)
        try:
            begun = new_record(claimed.key, claimed.cell, device, threads, data)
        except BenchError:  # a device of another machine
            begun = new_record(claimed.key, claimed.cell, "cpu", threads, data)
        record = replace(begun, error=error, seconds=claimed.seconds)
        keep(record, folder)
        self._record(claimed, record)

    def _stop(self) -> None:
        """Stop all tasks, and record those that end meanwhile."""
        deadline = time.monotonic() + (0.0 if self._is_in_haste else STOP_SECONDS)
        for key in self._running:
            self._executor.stop(key)
        while self._running and time.monotonic() < deadline:
            self._settle_what_ends()


def _passed_over(todo: dict[str, Cell], workplace: Workplace, store: Path) -> dict[str, CellFailed]:
    """Return failure events of the cells that are skipped because they repeatedly ended their process, by key."""
    deadly = {key: causes for key, causes in workplace.deaths().items() if key in todo and len(causes) >= MOST_DEATHS}
    if not deadly or not store.exists():
        return {}
    with reading(store, inf) as connection:
        found = {key: outcome_of(connection, key) for key in deadly}
    return {
        key: _failure(key, todo[key], _given_up(causes), 0.0)
        for key, causes in deadly.items()
        if (outcome := found[key]) is not None and outcome.error
    }


def _given_up(causes: list[str]) -> str:
    return (
        f"the cell ended its process {counted(len(causes), 'time')}"
        f" ({'; '.join(dict.fromkeys(causes))}); it is skipped until"
        " run --retry-failed retries it"
    )


def _title(cell: Cell) -> str:
    return f"{cell.dataset}, {cell.shown}, seed {cell.seed}"


def _name(key: str, cell: Cell) -> tuple[str, str, str, int]:
    return key, cell.dataset, cell.shown, cell.seed


def _failure(key: str, cell: Cell, error: str, seconds: float) -> CellFailed:
    return CellFailed(*_name(key, cell), reason_of(error), seconds)


def _ending(record: CellRecord, cell: Cell) -> CellFailed | CellFinished:
    if record.error is not None:
        return _failure(record.key, cell, record.error, record.seconds)
    assert record.ranks is not None
    assert record.best_epoch is not None
    ranks = record.ranks["test"]
    return CellFinished(
        *_name(record.key, cell),
        {name: ranks.mean(name, cell.protocol.ties) for name in cell.protocol.shown},
        record.best_epoch,
        record.seconds,
    )
