"""The work of a trial, done in a worker, which knows nothing of the study."""

import time
from dataclasses import dataclass

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.errors import ModelError, StoreError
from ipsrec_bench.events import CellStarted, Emit
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.suite.cells import Cell


@dataclass(frozen=True)
class TrainedTrial:
    """The result of a trial."""

    values: tuple[float, ...]
    """The best validation metric of each seed that was trained to its end."""
    seconds: float
    error: str = ""
    """The error that ended a training; empty if all seeds are trained."""


def do_trial(key: str, cells: tuple[Cell, ...], place: Place, data: PreparedDataset, emit: Emit) -> TrainedTrial:
    """Train a trial's cells, which differ in their seeds, one after the other; no test target is ranked.

    An error of a training is part of the result, and so is `sys.exit`: other settings may work. An interruption passes
    through.

    Raises:
        StoreError: the weights cannot be written.
        BenchError: the device is missing.
    """
    from ipsrec_bench.run.cell import train_cell
    from ipsrec_bench.run.environment import pick_device

    cells = tuple(cell.without_refit() for cell in cells)  # a trial's value is that of the validation targets
    pick_device(place.device)
    began = time.perf_counter()
    values: list[float] = []
    try:
        for cell in cells:
            name = (key, cell.dataset, cell.shown, cell.seed)
            stages = cell.stages if len(cell.stages) > 1 else ()
            emit(CellStarted(*name, cell.epochs, cell.training.stop_metric, stages=stages))
            values.append(train_cell(key, cell, place, data, emit).fitted.best_valid)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever ends a training)
        said = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        said = said.encode(errors="backslashreplace").decode()  # a message may not be valid text
        return TrainedTrial(tuple(values), time.perf_counter() - began, said)
    return TrainedTrial(tuple(values), time.perf_counter() - began)
