"""Popularity: every user is offered the items that occur most often in training."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import CountingModel, Sizes, Views
from ipsrec_bench.models.registry import PopConfig


class Pop(CountingModel):
    """The score of an item is its number of training interactions: a user vector of 1, item vectors of counts.

    Counts are exact in float32 up to 2^24.
    """

    counts: Tensor

    def __init__(self, config: PopConfig, sizes: Sizes) -> None:  # noqa: ARG002 (every model takes both)
        """Start from counts of zero."""
        super().__init__()
        self.register_buffer("counts", torch.zeros(sizes.items + 1, 1))

    def fit(self, items: NDArray[np.int32], providers: NDArray[np.int32]) -> None:  # noqa: ARG002
        """Count the training interactions of every item."""
        self.counts[:, 0] = torch.from_numpy(np.bincount(items, minlength=len(self.counts)))

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return 1 for every user, whatever the history."""
        return Views(self.counts.new_ones((*histories.items.shape[: 1 + every_position], 1)))

    def item_vectors(self) -> Tensor:
        """Return `[items + 1, 1]`: the counts."""
        return self.counts
