"""One cell's work: a pure function of the cell, its data, the device and the number of threads."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path

import torch

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split, split_dataset
from ipsrec_bench.events import CellStarted, Emit, EpochDone, StepDone
from ipsrec_bench.models.api import Model, Sizes
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.registry import build_model
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.run.environment import (
    available_cores,
    describe_environment,
    keep_freed_memory,
    peak_memory,
    pick_device,
    reset_peak_memory,
    start_threads,
)
from ipsrec_bench.store.records import CellRecord
from ipsrec_bench.suite.cells import Cell
from ipsrec_bench.training.fit import Epoch, Fitted, Step, fit


@dataclass(frozen=True)
class Worker:
    """Where cells are trained."""

    device: torch.device
    checkpoints: Path
    """Folder of the best weights, one file per key."""


def make_worker(store: Path, device: str = "auto", threads: int | None = None) -> Worker:
    """Return this process as a worker; checkpoints lie beside the store.

    Raises:
        BenchError: the device is not there.
    """
    keep_freed_memory()
    start_threads(threads or available_cores())
    return Worker(pick_device(device), store.parent / "checkpoints")


@dataclass(frozen=True, eq=False)
class Trained:
    """A model with its best weights, and what its ranking needs."""

    model: Model
    sequences: ResidentSequences
    split: Split
    fitted: Fitted


def train_cell(key: str, cell: Cell, data: PreparedDataset, worker: Worker, emit: Emit) -> Trained:
    """Train the cell's model and leave it with its best weights; test targets are not looked at.

    Initial weights and dropout follow from torch's generator, seeded here; the order of samples from the seed
    and the epoch. Raises whatever training raises.
    """
    torch.manual_seed(cell.seed)
    assert isinstance(cell.config, ModelConfig)  # the suite, which cannot know models, only knows it as settings
    max_length = cell.protocol.max_length
    sizes = Sizes(data.num_users, data.num_items, data.num_providers, max_length)
    model = build_model(cell.type, cell.config, sizes).to(worker.device)
    sequences = ResidentSequences(data, worker.device)
    split = split_dataset(data, cell.protocol)

    def validate() -> float:
        with _denormals(flushed=False):
            ranks = rank_targets(
                model, data, sequences, split.valid, max_length, mask_history=cell.protocol.mask_history
            )
        return float(metric(cell.training.stop_metric, ranks.realistic).mean())

    with _denormals(flushed=True):
        fitted = fit(
            model,
            cell.config,
            data,
            sequences,
            split,
            cell.training,
            packed=cell.training.samples == "packed",
            max_length=max_length,
            seed=cell.seed,
            validate=validate,
            checkpoint=worker.checkpoints / f"{key}.safetensors",
            on_step=_step_listener(key, cell, emit),
            on_epoch=_epoch_listener(key, cell, emit),
        )
    return Trained(model, sequences, split, fitted)


@contextmanager
def _denormals(*, flushed: bool) -> Iterator[None]:
    """Let this thread take numbers below 1e-38 for zero, or not; afterwards the other way.

    Adam's moments decay into such numbers, which CPUs handle slowly. Ranking must tell them apart. The threads of
    torch's pool are as `start_threads` makes them: exact.
    """
    torch.set_flush_denormal(flushed)
    try:
        yield
    finally:
        torch.set_flush_denormal(not flushed)


def run_cell(key: str, cell: Cell, data: PreparedDataset, worker: Worker, emit: Emit) -> CellRecord:
    """Train the cell, rank every held-out target, and return what the store keeps of it.

    An error of the cell becomes a failed record with its traceback; an interruption passes through.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    reset_peak_memory()
    emit(CellStarted(*_name(key, cell), cell.training.epochs, cell.training.stop_metric))
    record = CellRecord(
        key=key,
        fingerprint=data.fingerprint,
        type=cell.type,
        seed=cell.seed,
        settings=dumps(cell.settings(), sort_keys=True),
        environment=describe_environment(worker.device),
        started=started,
        seconds=0.0,
        deterministic=cell.deterministic,
    )
    try:
        trained = train_cell(key, cell, data, worker, emit)
        ranks = {
            name: rank_targets(
                trained.model,
                data,
                trained.sequences,
                targets,
                cell.protocol.max_length,
                mask_history=cell.protocol.mask_history,
            )
            for name, targets in (("valid", trained.split.valid), ("test", trained.split.test))
        }
    except Exception:  # noqa: BLE001 (whatever ends a cell is recorded; the other cells go on)
        return replace(record, seconds=time.perf_counter() - began, error=traceback.format_exc())
    fitted = trained.fitted
    return replace(
        record,
        seconds=time.perf_counter() - began,
        train_seconds=fitted.train_seconds,
        peak_memory=peak_memory(),
        parameters=sum(weight.numel() for weight in trained.model.parameters()),
        stop_metric=cell.training.stop_metric,
        best_epoch=fitted.best_epoch,
        best_valid=fitted.best_valid,
        epochs=fitted.epochs,
        ranks=ranks,
    )


def _name(key: str, cell: Cell) -> tuple[str, str, str, int]:
    return key, cell.dataset, cell.shown, cell.seed


def _step_listener(key: str, cell: Cell, emit: Emit) -> Callable[[Step], None]:
    def listen(step: Step) -> None:
        emit(StepDone(*_name(key, cell), step.epoch, step.step, step.steps, step.loss, step.targets_per_second))

    return listen


def _epoch_listener(key: str, cell: Cell, emit: Emit) -> Callable[[Epoch], None]:
    def listen(epoch: Epoch) -> None:
        rate = epoch.targets / epoch.train_seconds if epoch.train_seconds else 0.0
        emit(EpochDone(*_name(key, cell), epoch.epoch, epoch.loss, epoch.valid, rate))

    return listen
