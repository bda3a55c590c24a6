"""Random numbers without a history: those of an epoch depend only on the seed, the stage and the epoch.

A killed training that resumes from its state therefore draws the same numbers as an uninterrupted one, and draws during
validation do not affect the next epoch.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ipsrec_bench.kernels.dropout import Dropout

INIT, TEST = "init", "test"
"""What precedes the first epoch, and the ranking of test targets; between them are the stages of the training."""


@dataclass(frozen=True)
class Streams:
    """The generators of one epoch of one stage."""

    seed: int
    """Seed of the cell, 0 or above."""
    stage: str
    epoch: int = 0
    """From 1; 0 in a stage without epochs."""

    def generator(self, purpose: str) -> np.random.Generator:
        """Return a generator for `purpose`, independent of those for other purposes."""
        return np.random.default_rng(self._sequence(purpose))

    def start(self, *models: nn.Module) -> None:
        """Seed torch's generators, of the CPU and of every device, and restart the dropout of `models` from them."""
        torch.manual_seed(int(self._sequence("torch").generate_state(1, np.uint64)[0]))
        for model in models:
            for module in model.modules():
                if isinstance(module, Dropout):
                    module.restart()

    def _sequence(self, purpose: str) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, zlib.crc32(f"{self.stage}/{purpose}".encode()), self.epoch])
