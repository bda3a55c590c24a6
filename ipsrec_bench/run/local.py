"""The local executor: one cell after the other, in this process.

Several runs may work on one store at once, of one suite or of several that share cells: each claims the cells that it
trains, and finds the results of the others in the store.

Nothing here imports torch until a cell is trained, so that a run with nothing to do ends in a moment.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.data.split import hold_out, split_dataset
from ipsrec_bench.data.split_statistics import describe_split
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.errors import StoreError
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellFound,
    CellsAwaited,
    Emit,
    RunFinished,
    RunStarted,
    StoreBusy,
)
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.run.plan import Plan
from ipsrec_bench.run.workplace import MOST_DEATHS, Workplace
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, claim_name, record_cell, record_split, record_targets
from ipsrec_bench.store.queries import outcome_of
from ipsrec_bench.store.records import CellRecord
from ipsrec_bench.suite.cells import Cell

if TYPE_CHECKING:
    from ipsrec_bench.run.worker import Worker

LOOK_AGAIN_SECONDS = 0.5
"""How often the claims of other runs are looked at, when nothing else is left to do."""


def execute(
    plan: Plan,
    store: Path,
    make_worker: "Callable[[], Worker]",
    emit: Emit,
    *,
    force: bool = False,
    retry_failed: bool = False,
    since: datetime | None = None,
) -> RunFinished:
    """Run what `plan` leaves to do, writing every cell to the store as soon as it ends.

    Args:
        plan: the cells, and which are done.
        store: the store's file; open for writing only while a cell is recorded.
        make_worker: returns where cells are trained; called only if there is a cell to train.
        emit: callback that receives every event.
        force: run complete cells again, each replaced when its new ranks are there.
        retry_failed: run cells again that have ended their process.
        since: cells that the store has and that began after this time (UTC) are not run again; now, if not given.

    Returns:
        How it ended; an interruption (Ctrl-C) ends the run with everything recorded so far kept.

    Raises:
        SuiteError: the store has another suite of the suite's name.
        StoreError: the store, or the folder beside it, cannot be written. A trained cell is kept beside the store, and
            the next run enters it.
        BenchError: `make_worker` raised it; nothing has been written.
    """
    began, since = time.perf_counter(), since or datetime.now(UTC)
    workplace = Workplace(store)
    workplace.sweep()
    entered = _enter_kept(workplace, store, emit)
    todo = {key: cell for key, cell in plan.todo(force=force) if force or key not in entered}
    if retry_failed:
        workplace.forget_deaths(todo.keys())
    passed_over = _passed_over(todo, workplace, store)
    for key in passed_over:
        del todo[key]
    worker = make_worker() if todo else None
    protocols = {cell.dataset: cell.protocol for _, cell in plan.cells}
    held_out = []
    for name, data in plan.datasets.items():
        split = hold_out(data, protocols[name])
        facts = target_facts(data, split)
        held_out.append((data.fingerprint, protocols[name], facts, describe_split(data, split, facts)))
    # Data may have been prepared for hours: that somebody reads the store, as a report does, is no reason to give up.
    with writing(store, patience=inf, on_wait=lambda message: emit(StoreBusy(message))) as connection:
        claim_name(connection, plan.file, store)
        run = begin_run(connection, plan.file, list(plan.datasets.values()), plan.planned())
        for fingerprint, protocol, facts, statistics in held_out:
            record_targets(connection, fingerprint, protocol, facts)
            record_split(connection, fingerprint, protocol, statistics)
    cells = len(dict(plan.cells))
    skipped = cells - len(todo) - len(passed_over)
    emit(RunStarted(plan.file.name, plan.file.suite.title, cells, skipped=skipped))
    for event in passed_over.values():
        emit(event)
    work = _Work(plan, store, workplace, worker, emit, since.replace(tzinfo=None), force=force)
    interrupted = False
    try:
        work.through(todo)
    except KeyboardInterrupt:
        interrupted = True
    failed = work.failed + len(passed_over)
    ended = RunFinished(run, work.complete, failed, time.perf_counter() - began, interrupted)
    emit(ended)
    return ended


@dataclass
class _Work:
    """A run at work on what it has to do."""

    plan: Plan
    store: Path
    workplace: Workplace
    worker: "Worker | None"
    emit: Emit
    since: datetime
    """When this run began, UTC without its zone, as the store has it."""
    force: bool
    complete: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def through(self, todo: dict[str, Cell]) -> None:
        """Do every cell; those that other runs have claimed come last, when their claims end."""
        left = dict(todo)
        is_said = False
        while left:
            before = len(left)
            for key, cell in list(left.items()):
                with self.workplace.claim(key, _title(cell)) as folder:
                    if folder is not None:
                        self._do(key, cell, folder)
                        del left[key]
            if len(left) < before:
                is_said = False
                continue
            if not is_said:
                self.emit(CellsAwaited(len(left)))
                is_said = True
            time.sleep(LOOK_AGAIN_SECONDS)

    def _do(self, key: str, cell: Cell, folder: Path) -> None:
        """Train a claimed cell and enter it, unless another run has done so since this one began."""
        from ipsrec_bench.run.kept import keep, kept_record, release, reserve
        from ipsrec_bench.run.worker import new_record, run_cell

        with reading(self.store, patience=inf, on_wait=self._on_wait) as connection:
            found = outcome_of(connection, key)
        if found is not None and (found.started >= self.since or not (found.error or self.force)):
            self.failed += bool(found.error)
            self.emit(_failure(key, cell, found.error, 0.0) if found.error else CellFound(*_name(key, cell)))
            return
        assert self.worker is not None  # there is a cell to do
        record = kept_record(folder)
        if record is None:
            data = self.plan.datasets[cell.dataset]
            split = split_dataset(data, cell.protocol)
            reserve(folder, cell.training.epochs, len(split.valid.users) + len(split.test.users))
            deaths = self.workplace.deaths().get(key, [])
            if len(deaths) < MOST_DEATHS:
                record = run_cell(key, cell, data, replace(self.worker, checkpoints=folder), self.emit)
            else:
                record = replace(new_record(key, cell, data, self.worker), error=_given_up(deaths))
            keep(record, folder)
        record = _enter(record, folder, self.store, self.workplace, self._on_wait)
        release(folder)
        self.complete, self.failed = self.complete + (not record.error), self.failed + bool(record.error)
        self.emit(_ending(record, cell))

    def _on_wait(self, message: str) -> None:
        self.emit(StoreBusy(message))


def _enter_kept(workplace: Workplace, store: Path, emit: Emit) -> set[str]:
    """Enter the results that earlier runs had to leave beside the store; return their keys."""
    entered = set()
    for key in workplace.kept():
        from ipsrec_bench.run.kept import kept_record, release

        with workplace.claim(key, "") as folder:
            record = kept_record(folder) if folder is not None else None
            if folder is None or record is None:
                continue
            record = _enter(record, folder, store, workplace, lambda message: emit(StoreBusy(message)))
            release(folder)
            if record.error is None:
                entered.add(key)
    return entered


def _enter(
    record: CellRecord, folder: Path, store: Path, workplace: Workplace, on_wait: Callable[[str], None]
) -> CellRecord:
    """Write a result to the store, unless it is there, and its weights to those of all cells; return it as it is there.

    Raises:
        StoreError: the store cannot be written; the result stays in `folder`.
    """
    if record.ranks is not None and record.best_valid is not None:
        assert record.stop_metric is not None
        found = float(metric(record.stop_metric, record.ranks["valid"].realistic).mean())
        if found != record.best_valid:
            reason = f"its validation ranks give {record.stop_metric} = {found}, the best epoch had {record.best_valid}"
            record = replace(record, error=f"ModelError: {reason}", ranks=None, epochs=())
    try:
        if record.error is None:
            _move_weights(folder / f"{record.key}.safetensors", workplace.checkpoints)
        # A trained cell is not given up because somebody looks at the store: wait as long as it takes.
        with writing(store, patience=inf, on_wait=on_wait) as connection:
            before = outcome_of(connection, record.key)
            if before is None or before.started != record.started.replace(tzinfo=None):
                record_cell(connection, record)
    except StoreError as error:
        raise StoreError(f"{error}. A trained cell is kept in {folder}, and the next run enters it") from error
    if record.error is None:
        workplace.forget_deaths({record.key})  # earlier deaths do not count against a later run of the cell
    return record


def _move_weights(path: Path, folder: Path) -> None:
    """Move the best weights of a cell to where those of all cells lie."""
    if not path.exists():  # an earlier run has done so
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.replace(folder / path.name)
    except OSError as error:
        raise StoreError(f"{folder}: the weights cannot be moved there: {error.strerror}") from error


def _passed_over(todo: dict[str, Cell], workplace: Workplace, store: Path) -> dict[str, CellFailed]:
    """Return the cells that are recorded as failed because they have ended their process, with what is said of them."""
    deadly = {key: causes for key, causes in workplace.deaths().items() if key in todo and len(causes) >= MOST_DEATHS}
    if not deadly or not store.exists():
        return {}
    with reading(store) as connection:
        found = {key: outcome_of(connection, key) for key in deadly}
    return {
        key: _failure(key, todo[key], _given_up(causes), 0.0)
        for key, causes in deadly.items()
        if (outcome := found[key]) is not None and outcome.error
    }


def _given_up(causes: list[str]) -> str:
    return (
        f"the cell ended its process {len(causes)} times ({'; '.join(dict.fromkeys(causes))}); it is passed over until"
        " it is asked for with run --retry-failed"
    )


def _title(cell: Cell) -> str:
    return f"{cell.dataset}, {cell.shown}, seed {cell.seed}"


def _name(key: str, cell: Cell) -> tuple[str, str, str, int]:
    return key, cell.dataset, cell.shown, cell.seed


def _failure(key: str, cell: Cell, error: str, seconds: float) -> CellFailed:
    return CellFailed(*_name(key, cell), error.strip().splitlines()[-1], seconds)


def _ending(record: CellRecord, cell: Cell) -> CellFailed | CellFinished:
    if record.error is not None:
        return _failure(record.key, cell, record.error, record.seconds)
    assert record.ranks is not None
    assert record.best_epoch is not None
    ranks = record.ranks["test"].realistic
    return CellFinished(
        *_name(record.key, cell),
        {name: float(metric(name, ranks).mean()) for name in cell.protocol.shown},
        record.best_epoch,
        record.seconds,
    )
