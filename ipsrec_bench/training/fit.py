"""The training loop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import CountingModel, Model, SequentialModel, TrainingLog
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.catalogue import CatalogueLoss, catalogue_loss, product_dtype
from ipsrec_bench.training.curve import Epoch
from ipsrec_bench.training.objective import Losses, batch_losses
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.samples import Windows, packed_windows, prefix_windows
from ipsrec_bench.training.state import Progress, StateFile
from ipsrec_bench.training.streams import MAIN, Streams
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


@dataclass(frozen=True, eq=False)
class Validation:
    """The result of validation after an epoch."""

    value: float
    """The stopping metric on the validation targets."""
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further results to keep of the best epoch, such as the ranks of the validation targets."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of fitting: the curve, and the epoch whose weights the model now has."""

    epochs: tuple[Epoch, ...]
    """Empty for a model that counts."""
    best_epoch: int
    best_valid: float
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
    validate: Callable[[], Validation]
    """Evaluates the model after an epoch."""
    checkpoint: Path
    """File of the best weights, in a folder that no other training writes to."""
    about: Mapping[str, str] | None = None
    """Metadata of `checkpoint`."""
    state: StateFile | None = None
    """The state from which training resumes, and which it writes after an epoch if a write is due; None: no state."""
    tile_parts: int = 1
    """Number of parts into which the tiles of the softmax are cut, to save memory."""
    on_step: Callable[[Step], object] = lambda _: None
    """Receives the progress within an epoch, a few times a second."""
    on_epoch: Callable[[Epoch], object] = lambda _: None
    """Receives every epoch that is trained, but not those restored from the state."""


def fit(model: Model, config: ModelConfig, interactions: TrainingData, training: Training, loop: Loop) -> Fitted:
    """Train `model` until its validation has not improved for `patience` epochs; leave it with its best weights.

    Random draws in an epoch depend only on the seed and the epoch; the caller draws the initial weights.
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
    data, sequences, split = interactions.data, interactions.sequences, interactions.split
    checkpoint, state = loop.checkpoint, loop.state
    dtype = product_dtype(training.precision, sequences.device)
    counts = cache(partial(_item_counts, data, split))
    prefixes = None if loop.packed else prefix_windows(data, split, loop.max_length)
    optimiser = Optimiser(model, training.learning_rate, lazy=training.optimiser == "lazy-adam")
    progress = state.restore(model, optimiser, checkpoint, loop.about or {}) if state is not None else Progress()
    curve = progress.curve
    saved = checkpoint.stat() if curve else None
    steps = _Steps(model, config, sequences, optimiser, loop.packed, dtype, loop.on_step)
    while len(curve) < training.epochs and not _is_out_of_patience(progress, training.patience):
        epoch = len(curve) + 1
        streams = Streams(loop.seed, MAIN, epoch)
        streams.start(model)
        model.train()
        began = time.perf_counter()
        order = streams.generator("order")
        windows = prefixes or packed_windows(data, split, loop.max_length, training.min_context, order)
        batches = windows.batches(training.batch_size, order)
        loss_over = catalogue_loss(training, dtype, counts, streams.generator("negatives"), loop.tile_parts)
        sums = steps.through(epoch, windows, batches, loss_over, progress)
        total, cross_entropy, contrastive = sums.means()
        trained = time.perf_counter()
        validation = loop.validate()
        curve.append(
            Epoch(
                epoch=epoch,
                loss=total,
                cross_entropy=cross_entropy,
                contrastive=contrastive,
                valid=validation.value,
                train_seconds=trained - began,
                valid_seconds=time.perf_counter() - trained,
                targets=sums.targets,
            )
        )
        progress.halved |= loop.tile_parts > 1
        if progress.best is None or validation.value > progress.best.valid:
            progress.best, progress.facts = curve[-1], validation.facts
            save_weights(model, checkpoint, loop.about)
            saved = checkpoint.stat()
        if state is not None:
            state.write(model, optimiser, progress, checkpoint)
        loop.on_epoch(curve[-1])
    best = progress.best
    assert best is not None
    assert saved is not None
    found = checkpoint.stat()
    if (found.st_ino, found.st_size, found.st_mtime_ns) != (saved.st_ino, saved.st_size, saved.st_mtime_ns):
        raise ModelError(f"{checkpoint}: another program has changed the best weights; run the cell again")
    load_weights(model, checkpoint)
    return Fitted(
        tuple(curve),
        best.epoch,
        best.valid,
        progress.facts,
        sum(epoch.train_seconds for epoch in curve),
        progress.halved,
    )


@dataclass(frozen=True, eq=False)
class _Steps:
    """What every step of a training uses."""

    model: SequentialModel
    config: NeuralConfig
    sequences: ResidentSequences
    optimiser: Optimiser
    packed: bool
    dtype: torch.dtype
    on_step: Callable[[Step], object]

    def through(
        self,
        epoch: int,
        windows: Windows,
        batches: list[NDArray[np.int64]],
        loss_over: CatalogueLoss,
        progress: Progress,
    ) -> "_Sums":
        """Train on the batches of an epoch; return the sums of their losses."""
        began = reported = time.perf_counter()
        sums = _Sums(self.sequences.device)
        on_cpu = self.sequences.device.type == "cpu"  # where reading a loss does not wait for a device
        for step, chosen in enumerate(batches, start=1):
            batch = windows.gather(self.sequences, chosen)
            losses = batch_losses(
                self.model, self.config, batch, packed=self.packed, catalogue_loss=loss_over, dtype=self.dtype
            )
            if on_cpu or progress.first_loss is None:
                _check_loss(float(losses.total.detach()), progress, f"at step {step} of epoch {epoch}")
            self.optimiser.step(losses.total)
            sums.add(losses, len(batch.targets))
            now = time.perf_counter()
            if now - reported >= STEP_SECONDS or step == len(batches):  # reading the sums waits for the device
                reported = now
                total = sums.means()[0]
                _check_loss(total, progress, f"by step {step} of epoch {epoch}")
                self.on_step(Step(epoch, step, len(batches), total, sums.targets / (now - began)))
        return sums


def _is_out_of_patience(progress: Progress, patience: int) -> bool:
    return progress.best is not None and len(progress.curve) - progress.best.epoch >= patience


def _check_loss(loss: float, progress: Progress, when: str) -> None:
    """Record the first loss of a training, and fail on one that only a diverging training can have.

    An untrained model's loss is about that of guessing, log V for the softmax. A hard batch, or one with few targets,
    may have several times that loss, but a hundred times only if the model's scores have grown without bound.

    Raises:
        ModelError: `loss` is not finite, or more than `DIVERGED` times the first one (or 1, if that is larger).
    """
    if progress.first_loss is None and math.isfinite(loss):
        progress.first_loss = loss
    if math.isfinite(loss) and loss <= DIVERGED * max(progress.first_loss or 0.0, 1.0):
        return
    if math.isfinite(loss):
        what = f"the training loss is {loss:.4g} {when}, where the first step's was {progress.first_loss:.4g}"
    else:
        what = f"the training loss is not finite {when}"
    raise ModelError(f"{what}: training diverges; a smaller training.learning_rate, or a larger tau, may help")


class _Sums:
    """Sums of losses over targets, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.targets = 0
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._contrastive = False

    def add(self, losses: Losses, targets: int) -> None:
        parts = [losses.total, losses.cross_entropy, *([] if losses.contrastive is None else [losses.contrastive])]
        self._contrastive = losses.contrastive is not None
        self._sums[: len(parts)] += targets * torch.stack([part.detach() for part in parts])
        self.targets += targets

    def means(self) -> tuple[float, float, float | None]:
        """Return the mean loss, cross-entropy and, where there is one, contrastive loss."""
        total, cross_entropy, contrastive = (self._sums / self.targets).tolist()
        return total, cross_entropy, contrastive if self._contrastive else None


def _item_counts(data: PreparedDataset, split: Split) -> NDArray[np.int64]:
    """Return the training interactions of each item, int64 `[items + 1]`."""
    return np.bincount(data.items[split.trained(data)], minlength=data.num_items + 1)


def _count(model: CountingModel, interactions: TrainingData, loop: Loop) -> Fitted:
    data, began = interactions.data, time.perf_counter()
    inside = interactions.split.trained(data)
    users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    before = torch.get_rng_state()
    model.fit(TrainingLog(users[inside], data.items[inside], data.providers[inside], data.times[inside]))
    if model.deterministic and not torch.equal(before, torch.get_rng_state()):
        raise ModelError(
            f"{type(model).__name__} draws random numbers, so one fit cannot be shared by all seeds; declare"
            " deterministic = False in its class"
        )
    model.to(interactions.sequences.device)
    save_weights(model, loop.checkpoint, loop.about)
    counted = time.perf_counter()
    found = loop.validate()
    seconds = time.perf_counter() - counted
    loop.on_epoch(Epoch(1, 0.0, 0.0, None, found.value, counted - began, seconds, int(inside.sum())))
    return Fitted((), 1, found.value, found.facts, counted - began)
