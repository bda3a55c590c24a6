"""The contract between a model and the rest of the toolkit."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories


@dataclass(frozen=True)
class Sizes:
    """What a model must know of the dataset and the protocol to build its tables."""

    items: int
    """Items are 1 to `items`; 0 is padding."""
    providers: int
    """Providers are 1 (unknown) to `providers`; 0 is padding."""
    max_length: int


@dataclass(frozen=True, eq=False)
class Views:
    """What a model makes of histories: the user, and for contrastive models the same user seen otherwise."""

    user: Tensor
    """`[B, d]` for the last position, or `[B, L, d]` for every position; scored against the items."""
    provider: Tensor | None = None
    """The provider's view of the user, of the same shape; None if the model has no second view."""


class SequentialModel(nn.Module, ABC):
    """A model that turns histories into user vectors, to be scored against item vectors by dot product.

    Whether it is causal, whether it reads providers and how it is fitted is declared with its settings, in
    `ipsrec_bench.models.registry`.
    """

    @abstractmethod
    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the views at the last position `[B, d]`, or at every position `[B, L, d]`.

        At `every_position` the vector at t depends on the positions up to t only, and vectors at padded
        positions have no meaning. Only causal models are asked for it.
        """

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d]`; row 0 belongs to padding and is never a candidate."""


class CountingModel(SequentialModel):
    """A model without gradients, fitted in one pass over the training interactions."""

    @abstractmethod
    def fit(self, items: NDArray[np.int32], providers: NDArray[np.int32]) -> None:
        """Count over the training interactions, `[interactions]` each, in user-then-time order."""
