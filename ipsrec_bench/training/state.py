"""The state of a training after an epoch, from which a killed training resumes.

It consists of the weights, Adam's moments, the learning curve, and the best epoch's weights and validation ranks.
Random numbers are not part of it (see `streams`). A training resumes only where the next epoch is bit-identical to that
of an uninterrupted training. With another number of threads, device or version of torch, sums are rounded differently,
so the ranks could not be reproduced.
"""

import contextlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ipsrec_bench.data.staging import is_full
from ipsrec_bench.errors import StoreError
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.training.curve import Epoch
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.weights import write_tensors

FORMAT = 2
SECONDS = 30.0
"""Minimum seconds between two writes of a training's state."""
SHARE = 50
"""A write may take at most 1 / SHARE of the time since the last one."""
FIRST_RATE = 100e6
"""Assumed bytes per second of the first write, before one has been timed."""


@dataclass(eq=False)
class Progress:
    """The progress of a training."""

    curve: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further results of the best epoch's validation, besides its metric."""
    first_loss: float | None = None
    """The loss of the first step of the stage, by which divergence is judged."""
    halved: bool = False
    """Whether an epoch was trained with half the tile, for lack of memory."""

    @property
    def best_valid(self) -> float:
        """The metric of the best epoch; minus infinity before there is one."""
        valid = None if self.best is None else self.best.valid
        return -math.inf if valid is None else valid

    def epochs_of(self, stage: str) -> int:
        """Return the number of epochs of the stage of that name that have been trained."""
        return sum(epoch.stage == stage for epoch in self.curve)


class StateFile:
    """The file of one training's state."""

    def __init__(self, path: Path, key: str, device: torch.device) -> None:
        """Take the file's path, the key of its cell, and the device of the training."""
        self.path = path
        self._identity = {
            "format": FORMAT,
            "key": key,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
        }
        self._last = time.perf_counter()
        self._took: float | None = None

    def epochs(self) -> int:
        """Return the number of epochs after which the state was written; 0 if no state can be resumed from."""
        about = self._about()
        return len(about["curve"]) if about else 0

    def _about(self) -> dict[str, Any] | None:
        """Return the metadata of the file; None if it is missing, damaged, or of another training."""
        with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
            with safe_open(self.path, framework="pt") as file:
                about: dict[str, Any] = json.loads(file.metadata()["state"])
            if about["identity"] == self._identity:
                return about
        return None

    def restore(
        self, model: SequentialModel, optimiser: Optimiser, checkpoint: Path, text: Mapping[str, str]
    ) -> Progress:
        """Restore model, optimiser and the best weights from the state; return the progress.

        If no state can be resumed from, nothing is changed and the progress is empty.

        Args:
            model: freshly built.
            optimiser: optimiser of its weights, before the first step.
            checkpoint: file of the best weights, which is rewritten: it may be of a later epoch than the state.
            text: metadata of that file.
        """
        about = self._about()
        if about is None:
            return Progress()
        tensors = _by_kind(load_file(self.path))
        weights = model.state_dict()
        shapes = {name: weight.shape for name, weight in weights.items()}
        if {name: weight.shape for name, weight in tensors["weights"].items()} != shapes:
            return Progress()  # written by different code
        model.load_state_dict(tensors["weights"])
        optimiser.load_state(tensors["moments"])
        curve = [Epoch(**epoch) for epoch in about["curve"]]
        best = None if about["best"] is None else curve[about["best"]]
        if best is not None:
            write_tensors(
                checkpoint, tensors.get("best", tensors["weights"]), {**text, **best.as_best()}, durably=False
            )
        facts = {name: fact.numpy().copy() for name, fact in tensors.get("facts", {}).items()}
        return Progress(curve, best, facts, about["first_loss"], about["halved"])

    def write(
        self,
        model: SequentialModel,
        optimiser: Optimiser,
        progress: Progress,
        checkpoint: Path,
        *,
        at_end: bool = False,
    ) -> None:
        """Write the state after an epoch, if a write is due.

        Args:
            model: the model after that epoch.
            optimiser: the optimiser after that epoch.
            progress: the progress, with that epoch on its curve.
            checkpoint: file of the best weights.
            at_end: write it in any case, because another training follows.

        Raises:
            StoreError: the state cannot be written.
        """
        began = time.perf_counter()
        if began - self._last < SECONDS and not at_end:
            return
        tensors = {"weights": model.state_dict(), "moments": optimiser.state()}
        took = self._took
        if took is None:
            took = sum(one.nbytes for kind in tensors.values() for one in kind.values()) / FIRST_RATE
        if began - self._last < SHARE * took and not at_end:
            return
        tensors["facts"] = {name: torch.from_numpy(np.ascontiguousarray(fact)) for name, fact in progress.facts.items()}
        if progress.best is not None and progress.best is not progress.curve[-1]:
            # The checkpoint alone is not enough: the next epoch may be the best and replace it before writing a state.
            tensors["best"] = load_file(checkpoint)
        about = {
            "identity": self._identity,
            "curve": [asdict(epoch) for epoch in progress.curve],
            "best": None if progress.best is None else progress.curve.index(progress.best),
            "first_loss": progress.first_loss,
            "halved": progress.halved,
        }
        flat = {f"{kind}/{name}": one for kind, found in tensors.items() for name, one in found.items()}
        try:
            write_tensors(self.path, flat, {"state": json.dumps(about)}, durably=True)
        except (OSError, SafetensorError) as error:
            reason = "the disk is full" if is_full(error) else str(error).splitlines()[0]
            raise StoreError(f"{self.path}: the state of the training cannot be written: {reason}") from error
        self._last = time.perf_counter()
        self._took = self._last - began


def _by_kind(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        found.setdefault(kind, {})[rest] = tensor
    return found
