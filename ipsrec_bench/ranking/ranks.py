"""Ranks of held-out items, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import realistic_rank


@dataclass(frozen=True, eq=False)
class Ranks:
    """The position of each user's target among all items; users ascending."""

    users: NDArray[np.int64]
    higher: NDArray[np.int32]
    """Items that score strictly higher than the target."""
    ties: NDArray[np.int32]
    """Other items that score the same."""

    @property
    def realistic(self) -> NDArray[np.int64]:
        """The realistic rank, from 1."""
        return realistic_rank(self.higher, self.ties)
