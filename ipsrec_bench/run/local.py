"""The local executor: one cell after the other, in this process.

Nothing here imports torch until a cell is trained, so that a run with nothing to do ends in a moment.
"""

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ipsrec_bench.data.split import split_dataset
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    Emit,
    RunFinished,
    RunStarted,
    StoreBusy,
)
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.run.plan import Plan
from ipsrec_bench.store.connect import writing
from ipsrec_bench.store.ingest import begin_run, claim_name, record_cell, record_targets
from ipsrec_bench.store.records import CellRecord
from ipsrec_bench.suite.cells import Cell

if TYPE_CHECKING:
    from ipsrec_bench.run.worker import Worker


def execute(
    plan: Plan, store: Path, make_worker: "Callable[[], Worker]", emit: Emit, *, force: bool = False
) -> RunFinished:
    """Run what `plan` leaves to do, writing every cell to the store as soon as it ends.

    Args:
        plan: the cells, and which are done.
        store: the store's file; open for writing only while a cell is recorded.
        make_worker: returns where cells are trained; called only if there is a cell to train.
        emit: callback that receives every event.
        force: run complete cells again, each replaced when its new ranks are there.

    Returns:
        How it ended; an interruption (Ctrl-C) ends the run with everything recorded so far kept.

    Raises:
        SuiteError: another suite has the suite's name in the store.
        StoreError: the store cannot be written at the start.
        BenchError: `make_worker` raised it; nothing has been written.
    """
    began = time.perf_counter()
    todo = plan.todo(force=force)
    if todo:
        from ipsrec_bench.run.worker import run_cell

        worker = make_worker()
    splits = {cell.dataset: cell.protocol for _, cell in plan.cells}
    facts = [
        (data, splits[name], target_facts(data, split_dataset(data, splits[name])))
        for name, data in plan.datasets.items()
    ]
    with writing(store) as connection:
        claim_name(connection, plan.file, store)
        run = begin_run(connection, plan.file, list(plan.datasets.values()), plan.planned())
        for data, protocol, targets in facts:
            record_targets(connection, data.fingerprint, protocol, targets)
    cells = len(dict(plan.cells))
    emit(RunStarted(plan.file.name, plan.file.suite.title, cells, skipped=cells - len(todo)))
    complete = failed = 0
    interrupted = False
    try:
        for key, cell in todo:
            record = run_cell(key, cell, plan.datasets[cell.dataset], worker, emit)
            # A trained cell is not given up because somebody looks at the store: wait as long as it takes.
            with writing(store, patience=inf, on_wait=lambda message: emit(StoreBusy(message))) as connection:
                record_cell(connection, record)
            complete, failed = complete + (not record.error), failed + bool(record.error)
            emit(_ending(record, cell))
    except KeyboardInterrupt:
        interrupted = True
    ended = RunFinished(run, complete, failed, time.perf_counter() - began, interrupted)
    emit(ended)
    return ended


def _ending(record: CellRecord, cell: Cell) -> CellFailed | CellFinished:
    if record.error is not None:
        error = record.error.strip().splitlines()[-1]
        return CellFailed(record.key, cell.dataset, cell.shown, cell.seed, error, record.seconds)
    assert record.ranks is not None
    assert record.best_epoch is not None
    ranks = record.ranks["test"].realistic
    return CellFinished(
        record.key,
        cell.dataset,
        cell.shown,
        cell.seed,
        {name: float(metric(name, ranks).mean()) for name in cell.protocol.shown},
        record.best_epoch,
        record.seconds,
    )
