"""Ranks of held-out items, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import metric, of_users, realistic_rank


@dataclass(frozen=True, eq=False)
class Ranks:
    """The position of each target among all items; users ascending.

    A user has several targets only if the protocol takes all interactions after a cut; they are in order of time.
    """

    users: NDArray[np.int64]
    higher: NDArray[np.int32]
    """Items that score strictly higher than the target."""
    ties: NDArray[np.int32]
    """Other items that score the same."""

    @property
    def realistic(self) -> NDArray[np.int64]:
        """The realistic rank, from 1."""
        return realistic_rank(self.higher, self.ties)

    def mean(self, name: str) -> float:
        """Return the mean over users of the metric `name`, like `ndcg@10`."""
        return float(of_users(self.users, metric(name, self.realistic)).mean())
