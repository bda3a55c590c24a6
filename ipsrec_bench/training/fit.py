"""The training loop."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.errors import ModelError, listed
from ipsrec_bench.models.api import CountingModel, Model, SequentialModel
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.models.stages import MAIN, Stage
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.catalogue import CatalogueLoss, catalogue_loss, product_dtype
from ipsrec_bench.training.curve import Epoch
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.objective import Losses, Objective
from ipsrec_bench.training.optimiser import Optimiser, new_optimiser
from ipsrec_bench.training.samples import Batch, Windows, windows_of
from ipsrec_bench.training.state import Progress, StateFile
from ipsrec_bench.training.streams import Streams
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.weights import load_weights, save_weights

STEP_SECONDS = 0.2
"""Minimum seconds between progress events; the last step of an epoch is always reported."""
DIVERGED = 100.0
"""Training has diverged if the loss is more than this many times that of the first step."""


@dataclass(frozen=True)
class Step:
    """Progress within an epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    targets_per_second: float
    stage: str


@dataclass(frozen=True, eq=False)
class Validation:
    """The result of validation after an epoch."""

    value: float
    """The stopping metric on the validation targets."""
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further results to keep of the best epoch, such as the ranks of the validation targets."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of fitting: the curve, and the epoch whose weights the model now has.

    For a model that was refit, the curve is of both trainings, and the rest of the first one.
    """

    epochs: tuple[Epoch, ...]
    """Empty for a model that counts."""
    best_epoch: int
    best_valid: float
    """The stopping metric of the best epoch; minus infinity if nothing was validated."""
    facts: Mapping[str, NDArray[Any]]
    """Those of the validation after the best epoch."""
    train_seconds: float
    """Time spent on training samples, including that before an interruption; validation is not counted."""
    halved: bool = False
    """Whether an epoch was trained with half the tile, for lack of memory."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A dataset, on the CPU and on the model's device, and its split."""

    data: PreparedDataset
    sequences: ResidentSequences
    """The same interactions, on the model's device."""
    split: Split


@dataclass(frozen=True, eq=False)
class Loop:
    """What a training loop needs besides the settings: its seed, its files and its callbacks."""

    packed: bool
    """Whether samples are packed."""
    max_length: int
    """Maximum length of a history."""
    seed: int
    """Seed of all random draws."""
    validate: Callable[[], Validation] | None
    """Evaluates the model after an epoch of the main stage; None if no stage is the main one."""
    checkpoint: Path
    """File of the best weights, in a folder that no other training writes to."""
    about: Mapping[str, str] | None = None
    """Metadata of `checkpoint`."""
    state: StateFile | None = None
    """The state from which training resumes, and which it writes after an epoch if a write is due; None: no state."""
    tile_parts: int = 1
    """Number of parts into which the tiles of the softmax are cut, to save memory."""
    stages: tuple[Stage, ...] | None = None
    """Stages to train in place of the model's: for a measurement, or without a main one."""
    another_follows: bool = False
    """Whether another training follows, so that the state is written at the end, too."""
    on_step: Callable[[Step], object] = lambda _: None
    """Receives the progress within an epoch, a few times a second."""
    on_epoch: Callable[[Epoch], object] = lambda _: None
    """Receives every epoch that is trained, but not those restored from the state."""


def fit(model: Model, config: ModelConfig, interactions: TrainingData, training: Training, loop: Loop) -> Fitted:
    """Train `model` through its stages, and leave it with its best weights.

    A stage before the main one has a fixed number of epochs. The main one ends when its validation has not improved for
    `patience` epochs. Without a main one, the last weights are kept, and the best epoch is the last.
    Random draws in an epoch depend only on the seed, the stage and the epoch; the caller draws the
    initial weights.
    The best weights are kept in the checkpoint (safetensors).

    Args:
        model: freshly built, on the device of the sequences.
        config: settings of the model.
        interactions: the training data.
        training: settings of the training.
        loop: seed, files and callbacks.

    Raises:
        ModelError: training diverges, or another program has written to the checkpoint.
        StoreError: the checkpoint or the state cannot be written.
    """
    if isinstance(model, CountingModel):
        return _count(model, interactions, loop)
    assert isinstance(model, SequentialModel)
    assert isinstance(config, NeuralConfig)
    checkpoint = loop.checkpoint
    index = TrainingIndex(interactions.data, interactions.sequences, interactions.split, loop.max_length)
    if type(model).prepare is not SequentialModel.prepare:
        model.prepare(index.log)
    optimiser = new_optimiser(model, training)
    progress = Progress()
    if loop.state is not None:
        progress = loop.state.restore(model, optimiser, checkpoint, loop.about or {})
    restored = len(progress.curve)
    saved = checkpoint.stat() if progress.best is not None else None
    resumed_in = progress.curve[-1].stage if progress.curve else None
    for stage in loop.stages or config.stages():
        if stage.epochs is not None and progress.epochs_of(stage.name) >= stage.epochs:
            continue
        if resumed_in != stage.name:  # it begins here
            optimiser = new_optimiser(model, training)
            progress.first_loss = None
        trainer = _StageTrainer(model, config, stage, interactions, training, loop, index, optimiser)
        saved = trainer.train(progress) or saved
    if loop.another_follows and loop.state is not None and len(progress.curve) > restored:
        loop.state.write(model, optimiser, progress, checkpoint, at_end=True)
    best = progress.best
    if loop.validate is None:
        save_weights(model, checkpoint, loop.about)
        return _fitted(progress, progress.curve[-1])
    assert best is not None
    assert saved is not None
    found = checkpoint.stat()
    if (found.st_ino, found.st_size, found.st_mtime_ns) != (saved.st_ino, saved.st_size, saved.st_mtime_ns):
        raise ModelError(f"{checkpoint}: another program has changed the best weights; run the cell again")
    load_weights(model, checkpoint)
    return _fitted(progress, best)


def _fitted(progress: Progress, best: Epoch) -> Fitted:
    return Fitted(
        tuple(progress.curve),
        best.epoch,
        progress.best_valid,
        progress.facts,
        sum(epoch.train_seconds for epoch in progress.curve),
        progress.halved,
    )


@dataclass(eq=False)
class _StageTrainer:
    """What every epoch of a stage uses."""

    model: SequentialModel
    config: NeuralConfig
    stage: Stage
    interactions: TrainingData
    training: Training
    loop: Loop
    index: TrainingIndex
    optimiser: Optimiser

    def __post_init__(self) -> None:
        self._objective = Objective(self.config, self.stage)
        self._dtype = product_dtype(self.training.precision, self.interactions.sequences.device)
        self._packed = self.loop.packed and self.stage.samples == "targets"
        self._fixed = None if self._packed else self._windows()

    def train(self, progress: Progress) -> os.stat_result | None:
        """Train to the end of the stage; return the status of the file of best weights if it has written any."""
        loop, saved = self.loop, None
        while not _is_over(self.stage, progress, self.training):
            epoch, facts = self._train_epoch(progress), progress.facts
            if self.stage.epochs is None:
                assert loop.validate is not None
                began = time.perf_counter()
                validation = loop.validate()
                epoch = replace(epoch, valid=validation.value, valid_seconds=time.perf_counter() - began)
                facts = validation.facts
            progress.curve.append(epoch)
            progress.halved |= loop.tile_parts > 1
            if epoch.valid is not None and (progress.best is None or epoch.valid > progress.best_valid):
                progress.best, progress.facts = epoch, facts
                save_weights(self.model, loop.checkpoint, {**(loop.about or {}), **epoch.as_best()})
                saved = loop.checkpoint.stat()
            if loop.state is not None:
                loop.state.write(self.model, self.optimiser, progress, loop.checkpoint)
            loop.on_epoch(epoch)
        return saved

    def _train_epoch(self, progress: Progress) -> Epoch:
        """Train the next epoch of the stage; return it without validation."""
        number = progress.epochs_of(self.stage.name) + 1
        streams = Streams(self.loop.seed, self.stage.name, number)
        streams.start(self.model)
        self.model.train()
        began = time.perf_counter()
        order, draws = streams.generator("order"), streams.generator("tasks")
        for _, _, task in self._objective.tasks:
            task.begin_epoch(self.model, self.index, draws)
        windows = self._fixed or self._windows(order)
        passes = (windows.batches(self.training.batch_size, order) for _ in range(self.stage.copies))
        batches = [batch for one_pass in passes for batch in one_pass]
        negatives = streams.generator("negatives")
        loss_over = catalogue_loss(
            self.training, self._dtype, lambda: self.index.item_counts, negatives, self.loop.tile_parts
        )
        sums = self._through(number, windows, batches, partial(self._step, loss_over, draws), progress)
        loss, losses = sums.means()
        return Epoch(
            epoch=number,
            loss=loss,
            valid=None,
            train_seconds=time.perf_counter() - began,
            valid_seconds=0.0,
            targets=sums.samples,
            stage=self.stage.name,
            losses=losses,
        )

    def _windows(self, packing: np.random.Generator | None = None) -> Windows:
        data, split, length = self.interactions.data, self.interactions.split, self.loop.max_length
        return windows_of(
            self.stage.samples,
            data,
            split,
            length,
            packing=packing,
            min_context=self.training.min_context,
            stride=self.stage.stride,
        )

    def _step(self, loss_over: CatalogueLoss, draws: np.random.Generator, batch: Batch) -> TrainingStep:
        return TrainingStep(
            self.model, batch, self._packed, self._objective.first, loss_over, self._dtype, self.index, draws
        )

    def _through(
        self,
        epoch: int,
        windows: Windows,
        batches: list[NDArray[np.int64]],
        step_of: Callable[[Batch], TrainingStep],
        progress: Progress,
    ) -> "_Sums":
        """Train on the batches of an epoch; return the sums of their losses."""
        sequences = self.interactions.sequences
        began = reported = time.perf_counter()
        sums = _Sums(sequences.device)
        of_stage = "" if self.stage.name == MAIN else f" of the stage '{self.stage.name}'"
        # Sums over the places of a history grow with its length, by which batches are sorted.
        sums_places = any(task.sums_places for _, _, task in self._objective.tasks)
        most = DIVERGED * (self.loop.max_length if sums_places else 1)
        on_cpu = sequences.device.type == "cpu"  # where reading a loss does not wait for a device
        for step, chosen in enumerate(batches, start=1):
            losses = self._objective.losses(step_of(windows.gather(sequences, chosen)))
            if on_cpu or progress.first_loss is None:
                total = float(losses.total.detach())
                _check_loss(total, losses.parts, progress, most, f"at step {step} of epoch {epoch}{of_stage}")
            self.optimiser.step(losses.total)
            sums.add(losses, int(windows.fresh[chosen].sum()))
            now = time.perf_counter()
            if now - reported >= STEP_SECONDS or step == len(batches):  # reading the sums waits for the device
                reported = now
                total, parts = sums.means()
                _check_loss(total, parts, progress, most, f"by step {step} of epoch {epoch}{of_stage}")
                rate = sums.samples / (now - began)
                self.loop.on_step(Step(epoch, step, len(batches), total, rate, self.stage.name))
        return sums


def _is_over(stage: Stage, progress: Progress, training: Training) -> bool:
    trained = progress.epochs_of(stage.name)
    if stage.epochs is not None:
        return trained >= stage.epochs
    out_of_patience = progress.best is not None and trained - progress.best.epoch >= training.patience
    return trained >= training.epochs or out_of_patience


def _check_loss(loss: float, parts: Mapping[str, Tensor | float], progress: Progress, most: float, when: str) -> None:
    """Record the first loss of a training, and fail on one that only a diverging training can have.

    An untrained model's loss is about that of guessing, log V for the softmax. A hard batch, or one with few targets,
    may have several times that loss, but a hundred times only if the model's scores have grown without bound.

    Raises:
        ModelError: `loss` is not finite, or more than `most` times the first one (or 1, if that is larger). A part
            of it that is not finite is named.
    """
    if progress.first_loss is None and math.isfinite(loss):
        progress.first_loss = loss
    if math.isfinite(loss) and loss <= most * max(progress.first_loss or 0.0, 1.0):
        return
    if math.isfinite(loss):
        what = f"the training loss is {loss:.4g} {when}, where the first step's was {progress.first_loss:.4g}"
    else:
        wrong = [name for name, part in parts.items() if not torch.as_tensor(part).isfinite()]
        what = f"the training loss is not finite {when}" + (f" (that of {listed(wrong)})" if wrong else "")
        if progress.first_loss is None:
            raise ModelError(
                f"{what}: no step was trained before, so the computation of the loss or the model's first weights are"
                " the cause"
            )
    raise ModelError(f"{what}: training diverges; a smaller training.learning_rate, or a larger tau, may help")


class _Sums:
    """Sums of losses over samples, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.samples = 0
        self._device = device
        self._names: list[str] = []
        self._sums = torch.empty(0)

    def add(self, losses: Losses, samples: int) -> None:
        if not self._names:
            self._names = list(losses.parts)
            self._sums = torch.zeros(1 + len(self._names), dtype=torch.float64, device=self._device)
        parts = [losses.total, *losses.parts.values()]
        self._sums += samples * torch.stack([part.detach() for part in parts])
        self.samples += samples

    def means(self) -> tuple[float, dict[str, float]]:
        """Return the mean of the loss, and of its parts by name."""
        total, *parts = (self._sums / self.samples).tolist()
        return total, dict(zip(self._names, parts, strict=True))


def _count(model: CountingModel, interactions: TrainingData, loop: Loop) -> Fitted:
    began = time.perf_counter()
    log = TrainingIndex(interactions.data, interactions.sequences, interactions.split, loop.max_length).log
    before = torch.get_rng_state()
    model.fit(log)
    if model.deterministic and not torch.equal(before, torch.get_rng_state()):
        raise ModelError(
            f"{type(model).__name__} draws random numbers, so one fit cannot be shared by all seeds; declare"
            " deterministic = False in its class"
        )
    model.to(interactions.sequences.device)
    save_weights(model, loop.checkpoint, loop.about)
    counted = time.perf_counter()
    if loop.validate is None:
        return Fitted((), 1, -math.inf, {}, counted - began)
    found = loop.validate()
    seconds = time.perf_counter() - counted
    loop.on_epoch(Epoch(1, 0.0, found.value, counted - began, seconds, len(log.items)))
    return Fitted((), 1, found.value, found.facts, counted - began)
