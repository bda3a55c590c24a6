"""The training loop."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import CountingModel, Model, SequentialModel, TrainingLog
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import packed_windows, prefix_windows


@dataclass(frozen=True)
class Step:
    """Progress within an epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    targets_per_second: float


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve; losses are means over its targets, from 1 on."""

    epoch: int
    loss: float
    cross_entropy: float
    contrastive: float | None
    valid: float
    """The stopping metric on the validation targets."""
    train_seconds: float
    valid_seconds: float
    targets: int


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
    the caller seeds before the model is built. The best weights are kept in `checkpoint` (safetensors).

    Raises:
        ModelError: the loss is no longer a number.
    """
    if isinstance(model, CountingModel):
        return _count(model, data, sequences.device, split, validate, checkpoint, on_epoch)
    assert isinstance(model, SequentialModel)
    assert isinstance(config, NeuralConfig)
    windows = (packed_windows if packed else prefix_windows)(data, split, max_length)
    optimiser = torch.optim.Adam(model.parameters(), lr=training.learning_rate, fused=True)
    curve: list[Epoch] = []
    best: Epoch | None = None
    for epoch in range(1, training.epochs + 1):
        model.train()
        began = time.perf_counter()
        sums = np.zeros(3)  # loss, cross-entropy, contrastive; each weighted by targets
        done = 0
        batches = windows.batches(training.batch_size, np.random.default_rng([seed, epoch]))
        for step, chosen in enumerate(batches, start=1):
            batch = windows.gather(sequences, chosen)
            losses = batch_losses(model, config, batch, packed=packed)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            parts = (losses.total, losses.cross_entropy, losses.contrastive)
            sums += len(batch.targets) * np.array([0.0 if p is None else p.item() for p in parts])
            done += len(batch.targets)
            if not np.isfinite(sums[0]):
                raise ModelError(
                    f"the training loss is not finite in step {step} of epoch {epoch}; a smaller learning_rate, or"
                    " a larger tau, may help"
                )
            rate = done / (time.perf_counter() - began)
            on_step(Step(epoch, step, len(batches), sums[0] / done, rate))
        trained = time.perf_counter()
        valid = validate()
        curve.append(
            Epoch(
                epoch=epoch,
                loss=sums[0] / done,
                cross_entropy=sums[1] / done,
                contrastive=None if losses.contrastive is None else sums[2] / done,
                valid=valid,
                train_seconds=trained - began,
                valid_seconds=time.perf_counter() - trained,
                targets=done,
            )
        )
        on_epoch(curve[-1])
        if best is None or valid > best.valid:
            best = curve[-1]
            save_weights(model, checkpoint)
        elif epoch - best.epoch >= training.patience:
            break
    assert best is not None
    load_weights(model, checkpoint)
    return Fitted(tuple(curve), best.epoch, best.valid, sum(epoch.train_seconds for epoch in curve))


def save_weights(model: Model, path: Path) -> None:
    """Write the model's weights to `path` (safetensors), replacing the file only once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        save_model(model, str(unfinished))  # tensors under two names, as of tied weights, are written once
        unfinished.replace(path)


def load_weights(model: Model, path: Path) -> None:
    """Give `model` the weights that `save_weights` wrote to `path`."""
    load_model(model, path)


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
    model.fit(TrainingLog(users[inside], data.items[inside], data.providers[inside], data.times[inside]))
    model.to(device)
    save_weights(model, checkpoint)
    counted = time.perf_counter()
    valid = validate()
    seconds = time.perf_counter() - counted
    on_epoch(Epoch(1, 0.0, 0.0, None, valid, counted - began, seconds, int(inside.sum())))
    return Fitted((), 1, valid, counted - began)
