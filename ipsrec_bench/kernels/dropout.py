"""Dropout with masks that cost little on a CPU; on other devices it is torch's own."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout, with masks that cost little on a CPU.

    PyTorch draws a CPU's masks element by element from one Mersenne Twister, which takes longer than a Transformer's
    matrix products. Here a mask is cut from the raw output of SFC64 (numpy), seeded from torch's generator for the
    first mask after a `restart`: 8 bits per element if they express the rate exactly, as they do 0.5, and 16
    otherwise. A mask cannot be redrawn, which `torch.utils.checkpoint` would need.
    """

    def __init__(self, rate: float) -> None:
        """Zero each element with probability `rate`."""
        super().__init__()
        self.rate = rate
        self._bits = 8 if (rate * 256).is_integer() else 16
        self._noise: np.random.SFC64 | None = None

    def restart(self) -> None:
        """Reseed at the next mask: later masks then depend only on the state of torch's generator at that point."""
        self._noise = None

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of its shape, unchanged outside training."""
        if not self.training or not self.rate:
            return x
        return x * self._factors(x.shape) if x.device.type == "cpu" else F.dropout(x, self.rate)

    def _factors(self, shape: torch.Size) -> Tensor:
        """Return float32 of `shape`: 0 with probability `rate`, rounded to 16 bits, and 1 / (1 - rate) otherwise."""
        if self._noise is None:
            self._noise = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))
        noise = self._noise.random_raw(-(-shape.numel() * self._bits // 64)).view(f"i{self._bits // 8}")[
            : shape.numel()
        ]
        half = 2 ** (self._bits - 1)
        least = min(round(self.rate * 2 * half), 2 * half - 1) - half
        factors = torch.empty(shape)
        torch.ge(torch.from_numpy(noise).view(shape), least, out=factors)
        return factors.mul_(1 / (1 - self.rate))
