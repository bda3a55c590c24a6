"""The state of a training after an epoch, from which a killed one goes on.

It is weights, Adam's moments, the learning curve, and of the best epoch its weights and validation ranks. Random
numbers are no part of it (see `streams`). It can only be gone on with where the next epoch would give the bits that it
would have given undisturbed: sums on another number of threads, another device or another version of torch are rounded
otherwise, so that the ranks would be those of no training that could be repeated.
"""

import contextlib
import json
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

FORMAT = 1
SECONDS = 30.0
"""Least time between two writes of a training's state."""
SHARE = 50
"""A write may take one part in so many of the time since the last one."""
FIRST_RATE = 100e6
"""Bytes a second that the first write is expected to manage, until it is known how long one takes."""


@dataclass(eq=False)
class Progress:
    """How far a training has come."""

    curve: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What validation gave of the best epoch beside its metric."""
    first_loss: float | None = None
    """The loss of the very first step, by which divergence is judged."""
    halved: bool = False
    """Whether an epoch was trained with half the tile, for want of memory."""


class StateFile:
    """The file of one training's state."""

    def __init__(self, path: Path, key: str, device: torch.device) -> None:
        """Take the file's path, the key of its cell, and where the training takes place."""
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
        """Return after how many epochs the state was written; 0 if there is none that can be gone on with."""
        about = self._about()
        return len(about["curve"]) if about else 0

    def _about(self) -> dict[str, Any] | None:
        """Return what the file says of itself; None if it is missing, damaged, or not this training's."""
        with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
            with safe_open(self.path, framework="pt") as file:
                about: dict[str, Any] = json.loads(file.metadata()["state"])
            if about["identity"] == self._identity:
                return about
        return None

    def restore(
        self, model: SequentialModel, optimiser: Optimiser, checkpoint: Path, text: Mapping[str, str]
    ) -> Progress:
        """Put model, optimiser and the best weights where the state says they were; return the progress.

        Without a state that can be gone on with nothing is changed, and the progress is none.

        Args:
            model: as it was built.
            optimiser: of its weights, before the first step.
            checkpoint: file of the best weights, which is written anew: it may be of a later epoch than the state.
            text: metadata of that file.
        """
        about = self._about()
        if about is None:
            return Progress()
        tensors = _by_kind(load_file(self.path))
        weights = model.state_dict()
        shapes = {name: weight.shape for name, weight in weights.items()}
        if {name: weight.shape for name, weight in tensors["weights"].items()} != shapes:
            return Progress()  # of other code
        model.load_state_dict(tensors["weights"])
        optimiser.load_state(tensors["moments"])
        curve = [Epoch(**epoch) for epoch in about["curve"]]
        best = curve[about["best"] - 1]
        write_tensors(checkpoint, tensors.get("best", tensors["weights"]), text, durably=False)
        facts = {name: fact.numpy().copy() for name, fact in tensors.get("facts", {}).items()}
        return Progress(curve, best, facts, about["first_loss"], about["halved"])

    def write(self, model: SequentialModel, optimiser: Optimiser, progress: Progress, checkpoint: Path) -> None:
        """Write the state after an epoch, if that is due.

        Args:
            model: after that epoch.
            optimiser: the same.
            progress: with that epoch on its curve.
            checkpoint: file of the best weights.

        Raises:
            StoreError: it cannot be written.
        """
        assert progress.best is not None
        began = time.perf_counter()
        if began - self._last < SECONDS:
            return
        tensors = {"weights": model.state_dict(), "moments": optimiser.state()}
        took = self._took
        if took is None:
            took = sum(one.nbytes for kind in tensors.values() for one in kind.values()) / FIRST_RATE
        if began - self._last < SHARE * took:
            return
        tensors["facts"] = {name: torch.from_numpy(np.ascontiguousarray(fact)) for name, fact in progress.facts.items()}
        if progress.best is not progress.curve[-1]:
            # That file alone would not do: the next epoch may be the best and replace it before it has a state.
            tensors["best"] = load_file(checkpoint)
        about = {
            "identity": self._identity,
            "curve": [asdict(epoch) for epoch in progress.curve],
            "best": progress.best.epoch,
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
