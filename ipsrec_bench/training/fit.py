"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.data.staging import is_full
from ipsrec_bench.errors import ModelError, StoreError
from ipsrec_bench.models.api import CountingModel, Model, SequentialModel, TrainingLog
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.catalogue import catalogue_loss, product_dtype
from ipsrec_bench.training.curve import Epoch
from ipsrec_bench.training.objective import Losses, batch_losses
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.samples import packed_windows, prefix_windows

STEP_SECONDS = 0.2
"""Least time between two steps of an epoch that are told of, its last one apart."""


@dataclass(frozen=True)
class Step:
    """Progress within an epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    targets_per_second: float


@dataclass(frozen=True)
class Fitted:
    """What fitting left: the curve, and the epoch whose weights the model now has."""

    epochs: tuple[Epoch, ...]
    """Empty for a model that counts."""
    best_epoch: int
    best_valid: float
    train_seconds: float
    """Time spent on training samples; validation is not counted."""


def fit(
    model: Model,
    config: ModelConfig,
    data: PreparedDataset,
    sequences: ResidentSequences,
    split: Split,
    training: Training,
    *,
    packed: bool,
    max_length: int,
    seed: int,
    validate: Callable[[], float],
    checkpoint: Path,
    on_step: Callable[[Step], None],
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    """Train `model` until `validate` has not improved for `patience` epochs; leave it with its best weights.

    The order of samples is a function of `seed` and the epoch; dropout draws from torch's own generator, which
    the caller seeds before the model is built. The best weights are kept in `checkpoint` (safetensors), in a folder
    that no other training writes to.

    Raises:
        ModelError: the loss is no longer a number, or something else has written to `checkpoint`.
        StoreError: `checkpoint` cannot be written.
    """
    if isinstance(model, CountingModel):
        return _count(model, data, sequences.device, split, validate, checkpoint, on_epoch)
    assert isinstance(model, SequentialModel)
    assert isinstance(config, NeuralConfig)
    dtype = product_dtype(training.precision, sequences.device)
    negatives = np.random.default_rng([seed, 0])  # epochs count from 1
    loss_over = catalogue_loss(training, dtype, lambda: _item_counts(data, split), negatives)
    prefixes = None if packed else prefix_windows(data, split, max_length)
    optimiser = Optimiser(model, training.learning_rate, lazy=training.optimiser == "lazy-adam")
    curve: list[Epoch] = []
    best: Epoch | None = None
    for epoch in range(1, training.epochs + 1):
        model.train()
        began = told = time.perf_counter()
        rng = np.random.default_rng([seed, epoch])
        windows = packed_windows(data, split, max_length, training.min_context, rng) if prefixes is None else prefixes
        batches = windows.batches(training.batch_size, rng)
        sums = _Sums(sequences.device)
        for step, chosen in enumerate(batches, start=1):
            batch = windows.gather(sequences, chosen)
            losses = batch_losses(model, config, batch, packed=packed, catalogue_loss=loss_over, dtype=dtype)
            optimiser.step(losses.total)
            sums.add(losses, len(batch.targets))
            now = time.perf_counter()
            if now - told >= STEP_SECONDS or step == len(batches):  # reading the sums waits for the device
                told = now
                total, cross_entropy, contrastive = sums.means()
                if not math.isfinite(total):
                    raise ModelError(
                        f"the training loss is not finite by step {step} of epoch {epoch}; a smaller learning_rate, or"
                        " a larger tau, may help"
                    )
                on_step(Step(epoch, step, len(batches), total, sums.targets / (now - began)))
        trained = time.perf_counter()
        valid = validate()
        curve.append(
            Epoch(
                epoch=epoch,
                loss=total,
                cross_entropy=cross_entropy,
                contrastive=contrastive,
                valid=valid,
                train_seconds=trained - began,
                valid_seconds=time.perf_counter() - trained,
                targets=sums.targets,
            )
        )
        on_epoch(curve[-1])
        if best is None or valid > best.valid:
            best = curve[-1]
            save_weights(model, checkpoint)
            saved = checkpoint.stat()
        elif epoch - best.epoch >= training.patience:
            break
    assert best is not None
    found = checkpoint.stat()
    if (found.st_ino, found.st_size, found.st_mtime_ns) != (saved.st_ino, saved.st_size, saved.st_mtime_ns):
        raise ModelError(f"{checkpoint}: another program has changed the best weights; run the cell again")
    load_weights(model, checkpoint)
    return Fitted(tuple(curve), best.epoch, best.valid, sum(epoch.train_seconds for epoch in curve))


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
    return np.bincount(data.items[data.ranges(data.offsets[:-1], split.train_ends)], minlength=data.num_items + 1)


def save_weights(model: Model, path: Path) -> None:
    """Write the model's weights to `path` (safetensors), replacing the file only once it is whole.

    Raises:
        StoreError: they cannot be written there.
    """
    # Copies, for safetensors refuses tensors that share memory: tied weights do, and an RNN's on CUDA.
    weights = {
        name: weight.cpu().clone(memory_format=torch.contiguous_format) for name, weight in model.state_dict().items()
    }
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, unfinished)
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        reason = "the disk is full" if is_full(error) else str(error).splitlines()[0]
        raise StoreError(f"{path}: the best weights cannot be written: {reason}") from error


def load_weights(model: Model, path: Path) -> None:
    """Give `model` the weights that `save_weights` wrote to `path`."""
    model.load_state_dict(load_file(path))


def _count(
    model: CountingModel,
    data: PreparedDataset,
    device: torch.device,
    split: Split,
    validate: Callable[[], float],
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    began = time.perf_counter()
    inside = data.ranges(data.offsets[:-1], split.train_ends)
    users = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
    before = torch.get_rng_state()
    model.fit(TrainingLog(users[inside], data.items[inside], data.providers[inside], data.times[inside]))
    if model.deterministic and not torch.equal(before, torch.get_rng_state()):
        raise ModelError(
            f"{type(model).__name__} draws random numbers, so that one fit cannot stand for every seed; declare"
            " deterministic = False in its class"
        )
    model.to(device)
    save_weights(model, checkpoint)
    counted = time.perf_counter()
    valid = validate()
    seconds = time.perf_counter() - counted
    on_epoch(Epoch(1, 0.0, 0.0, None, valid, counted - began, seconds, int(inside.sum())))
    return Fitted((), 1, valid, counted - began)
