"""The work of one cell: a pure function of the cell, its data, the device and the number of threads."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from json import dumps

import torch

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split, Targets, split_dataset, target_sets
from ipsrec_bench.data.training_part import training_view
from ipsrec_bench.errors import ModelError, StoreError
from ipsrec_bench.events import CellStarted, Emit, EpochDone, Event, StepDone
from ipsrec_bench.models.api import Model, Sizes
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.models.stages import MAIN, Stage
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.run.environment import describe_environment, peak_memory, pick_device, reset_peak_memory
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.kept import keep, reserve
from ipsrec_bench.run.memory import MemorySaver
from ipsrec_bench.run.workplace import PARENT, REFIT_STATE, STATE, at_work
from ipsrec_bench.store.records import CellRecord
from ipsrec_bench.suite.cells import Cell, refit_name
from ipsrec_bench.suite.schema import Protocol
from ipsrec_bench.training.curve import Epoch, best_of
from ipsrec_bench.training.fit import Fitted, Loop, Step, TrainingData, Validation, fit
from ipsrec_bench.training.state import StateFile
from ipsrec_bench.training.streams import INIT, TEST, Streams
from ipsrec_bench.training.tasks.registry import task_entry
from ipsrec_bench.training.weights import about_weights, describe, load_weights


@dataclass(frozen=True, eq=False)
class Trained:
    """A model with its best weights, or those after its refit, and what its ranking needs."""

    model: Model
    sequences: ResidentSequences
    split: Split
    fitted: Fitted
    valid: Ranks
    """Ranks of the validation targets, after the best epoch, and before a refit."""


@dataclass(frozen=True, eq=False)
class Way:
    """How a cell is trained."""

    state: StateFile | None = None
    """File of the training's state, from which it resumes and to which it writes; None to start anew and write none."""
    refit_state: StateFile | None = None
    """Likewise, of the second training with `training.refit`."""
    tile_parts: int = 1
    """Number of parts into which tiles and batches of users are split, to need less memory."""
    stages: tuple[Stage, ...] | None = None
    """Stages to train in place of the model's, for a measurement, which does not include a refit."""


def do_cell(key: str, cell: Cell, place: Place, data: PreparedDataset, emit: Emit) -> None:
    """Train and rank a cell, and leave its record in its folder, for the store.

    Raises:
        StoreError: the folder cannot be written.
        BenchError: the device is not there.
    """
    split = split_dataset(data, cell.protocol)
    with at_work(place.folder):
        reserve(place.folder, cell.epochs, len(split.valid.users) + len(split.test.users))
        keep(run_cell(key, cell, place, data, emit), place.folder)


def train_cell(
    key: str,
    cell: Cell,
    place: Place,
    data: PreparedDataset,
    emit: Emit,
    way: Way | None = None,
) -> Trained:
    """Train the cell's model and return it with its best weights; test targets are not used.

    With `training.refit`, it is then trained anew, from fresh weights of the same seed, on training and validation
    interactions, each stage for as many epochs as were best. Random draws depend on the seed, the stage and the epoch.
    Raises whatever training raises.

    Args:
        key: key of the cell.
        cell: what to train.
        place: where it is trained.
        data: its dataset.
        emit: callback that receives every event.
        way: how it is trained; it changes no result, except that of a measurement.
    """
    way = way or Way()
    model, sequences = _built(cell, place, data)
    assert isinstance(cell.config, ModelConfig)  # the suite, which does not know models, has it as settings
    split = split_dataset(data, cell.protocol)
    refits = cell.training.refit and way.stages is None

    def validate() -> Validation:
        with _denormals(flushed=False):
            ranks = _ranked(cell, model, data, sequences, split.valid, way.tile_parts)
        return Validation(ranks.mean(cell.training.stop_metric), vars(ranks))

    loop = Loop(
        packed=cell.training.samples == "packed",
        max_length=cell.protocol.max_length,
        seed=cell.seed,
        validate=validate,
        checkpoint=place.folder / f"{key}.safetensors",
        about=describe(key, data.fingerprint, cell.settings(), _sizes(cell, data)),
        state=way.state,
        tile_parts=way.tile_parts,
        stages=way.stages,
        another_follows=refits,
        on_step=_step_listener(key, cell, emit),
        on_epoch=_epoch_listener(key, cell, dict(cell.stages), emit),
    )
    with _denormals(flushed=True):
        interactions = _training_data(cell.protocol, data, sequences, split)
        fitted = fit(model, cell.config, interactions, cell.training, loop)
        if refits:
            del model, interactions  # frees their memory
            model = _fresh_model(cell, data, sequences.device)
            interactions = _training_data(cell.protocol, data, sequences, split.with_validation())
            stages = _refit_stages(cell.config, fitted.best_epoch)
            again = replace(
                loop,
                validate=None,
                state=way.refit_state,
                stages=stages,
                another_follows=False,
                on_epoch=_epoch_listener(key, cell, {stage.name: stage.epochs for stage in stages}, emit),
            )
            second = fit(model, cell.config, interactions, cell.training, again)
            fitted = replace(
                fitted,
                epochs=fitted.epochs + second.epochs,
                train_seconds=fitted.train_seconds + second.train_seconds,
                halved=fitted.halved or second.halved,
            )
    return Trained(model, sequences, split, fitted, Ranks(**fitted.facts))


def _built(cell: Cell, place: Place, data: PreparedDataset) -> tuple[Model, ResidentSequences]:
    """Return the cell's model with its initial weights, and the interactions, both on the place's device.

    Raises:
        ModelError: the code of the model or of a task has changed since the run began.
    """
    if model_entry(cell.type).code != cell.code:  # a worker imports it with its first cell
        raise ModelError(f"the code of '{cell.type}' has changed since the run began; run the suite again")
    for name, code in cell.task_code:
        if task_entry(name).code != code:
            raise ModelError(f"the code of the task '{name}' has changed since the run began; run the suite again")
    device = pick_device(place.device)
    model = _fresh_model(cell, data, device)
    return model, ResidentSequences(data, device, times=model_entry(cell.type).uses_times)


def _sizes(cell: Cell, data: PreparedDataset) -> Sizes:
    return Sizes(data.num_users, data.num_items, data.num_providers, cell.protocol.max_length)


def _ranked(
    cell: Cell, model: Model, data: PreparedDataset, sequences: ResidentSequences, targets: Targets, tile_parts: int
) -> Ranks:
    """Return the ranks of `targets` under the cell's protocol."""
    return rank_targets(
        model,
        data,
        sequences,
        targets,
        cell.protocol.max_length,
        mask_history=cell.protocol.mask_history,
        tile_parts=tile_parts,
    )


def parents_model(
    key: str, cell: Cell, place: Place, data: PreparedDataset, emit: Emit, way: Way | None = None
) -> Trained:
    """Return the model of the cell's parent, and its ranks of the validation targets under the cell's own protocol.

    If the parent's best weights are in the folder, they are loaded. Otherwise, as on a machine without them, the model
    is trained again, which gives the same weights. The best epoch was chosen under the parent's protocol.

    Args:
        key: key of the cell.
        cell: a cell with a parent.
        place: where it is ranked; its folder may hold the parent's best weights.
        data: the dataset of both.
        emit: callback that receives the events of a training, as those of this cell.
        way: how the model is trained, if it is.
    """
    assert cell.parent is not None
    way, weights = way or Way(), place.folder / PARENT
    if weights.exists():
        model, sequences = _built(cell, place, data)
        load_weights(model, weights)
        best = best_of(about_weights(weights))
        assert best is not None  # the run has compared it with the parent's record
        fitted = Fitted((), *best, facts={}, train_seconds=0.0)
    else:

        def as_own(event: Event) -> None:
            if isinstance(event, StepDone | EpochDone):
                event = replace(event, key=key, dataset=cell.dataset)
            emit(event)

        parent_key = cell.parent.key(data.fingerprint, data.times_per_second)
        trained = train_cell(parent_key, cell.parent, place, data, as_own, way)
        model, sequences = trained.model, trained.sequences
        fitted = replace(trained.fitted, epochs=())  # the curve is the parent's
    split = split_dataset(data, cell.protocol)
    Streams(cell.seed, TEST).start()
    model.eval()
    valid = _ranked(cell, model, data, sequences, split.valid, way.tile_parts)
    return Trained(model, sequences, split, fitted, valid)


def _fresh_model(cell: Cell, data: PreparedDataset, device: torch.device) -> Model:
    """Build the cell's model with the weights that its seed draws."""
    Streams(cell.seed, INIT).start()
    assert isinstance(cell.config, ModelConfig)
    return build_model(cell.type, cell.config, _sizes(cell, data)).to(device)


def _training_data(
    protocol: Protocol, data: PreparedDataset, sequences: ResidentSequences, split: Split
) -> TrainingData:
    """Return what a model is trained on: the training part of `split`, filtered if `filter_for` says so.

    Raises:
        DataError: the filter leaves no user to train on.
    """
    if not protocol.filters_training:
        return TrainingData(data, sequences, split)
    view, whole = training_view(data, split, protocol)
    return TrainingData(view, ResidentSequences(view, sequences.device, times=sequences.has_times), whole)


def _refit_stages(config: ModelConfig, best_epoch: int) -> tuple[Stage, ...]:
    """Return the stages of the second training, each with a fixed number of epochs; none for a model that counts."""
    stages = config.stages() if isinstance(config, NeuralConfig) else ()
    return tuple(replace(stage, name=refit_name(stage.name), epochs=stage.epochs or best_epoch) for stage in stages)


@contextmanager
def _denormals(*, flushed: bool) -> Iterator[None]:
    """Make this thread flush denormals (below 1e-38) to zero, or not; afterwards, the other way round.

    Adam's moments decay into denormals, which CPUs handle slowly. Ranking must distinguish them. The threads of torch's
    pool are exact, as `start_threads` makes them.
    """
    torch.set_flush_denormal(flushed)
    try:
        yield
    finally:
        torch.set_flush_denormal(not flushed)


def run_cell(key: str, cell: Cell, place: Place, data: PreparedDataset, emit: Emit) -> CellRecord:
    """Train the cell's model or load that of its parent, rank every held-out target, and return the cell's record.

    An error of the cell becomes a failed record with its traceback, and so does `sys.exit`; an interruption passes
    through.

    Raises:
        StoreError: the best weights or the training's state cannot be written.
        BenchError: the device is not there.
    """
    began = time.perf_counter()
    reset_peak_memory()
    state, again = (StateFile(place.folder / name, key, pick_device(place.device)) for name in (STATE, REFIT_STATE))
    resumed = state.epochs()
    refit = again.epochs() if resumed else 0
    stages = cell.stages if len(cell.stages) > 1 else ()
    reached = cell.without_refit().epochs + refit if refit else resumed
    emit(CellStarted(*_name(key, cell), cell.epochs, cell.training.stop_metric, reached, stages))
    record, memory = new_record(key, cell, place.device, place.threads, data), MemorySaver()
    try:
        make = train_cell if cell.parent is None else parents_model
        trained = memory.spare(lambda parts: make(key, cell, place, data, emit, Way(state, again, parts)))
        Streams(cell.seed, TEST).start()  # the draws of training depend on whether it was resumed
        test = memory.spare(
            lambda parts: _ranked(cell, trained.model, data, trained.sequences, trained.split.test, parts)
        )
    except (KeyboardInterrupt, StoreError):
        raise
    except BaseException:  # noqa: BLE001 (whatever ends a cell is recorded; the other cells go on)
        error = traceback.format_exc().encode(errors="backslashreplace").decode()  # a message may not be valid text
        return replace(record, seconds=time.perf_counter() - began, error=error)
    fitted = trained.fitted
    before = sum(epoch.train_seconds + epoch.valid_seconds for epoch in fitted.epochs[: resumed + refit])
    environment = record.environment
    if fitted.halved or memory.tile_parts > 1:
        environment = replace(environment, device=f"{environment.device}, half the tile for want of memory")
    return replace(
        record,
        environment=environment,
        seconds=before + time.perf_counter() - began,
        train_seconds=fitted.train_seconds,
        peak_memory=peak_memory(),
        parameters=sum(weight.numel() for weight in trained.model.parameters()),
        stop_metric=cell.training.stop_metric,
        best_epoch=fitted.best_epoch,
        best_valid=fitted.best_valid,
        epochs=fitted.epochs,
        ranks={"valid": trained.valid, "test": test},
        target_sets=target_sets(data, trained.split, cell.protocol),
    )


def new_record(key: str, cell: Cell, device: str, threads: int, data: PreparedDataset) -> CellRecord:
    """Return the record of a cell that begins now, without its results."""
    return CellRecord(
        key=key,
        fingerprint=data.fingerprint,
        type=cell.type,
        seed=cell.seed,
        settings=dumps(cell.settings(), sort_keys=True),
        environment=describe_environment(pick_device(device), threads),
        started=datetime.now(UTC),
        seconds=0.0,
        deterministic=cell.deterministic,
        split_name=cell.protocol.split_name,
    )


def _name(key: str, cell: Cell) -> tuple[str, str, str, int]:
    return key, cell.dataset, cell.shown, cell.seed


def _step_listener(key: str, cell: Cell, emit: Emit) -> Callable[[Step], None]:
    def listen(step: Step) -> None:
        emit(StepDone(*_name(key, cell), **vars(step)))

    return listen


def _epoch_listener(key: str, cell: Cell, epochs: Mapping[str, int | None], emit: Emit) -> Callable[[Epoch], None]:
    """Return a listener that emits an event for each epoch; `epochs` are the numbers of epochs of the stages."""

    def listen(epoch: Epoch) -> None:
        rate = epoch.targets / epoch.train_seconds if epoch.train_seconds else 0.0
        of = None if epoch.stage == MAIN else epochs[epoch.stage]
        emit(EpochDone(*_name(key, cell), epoch.epoch, epoch.loss, epoch.valid, rate, epoch.stage, of))

    return listen
