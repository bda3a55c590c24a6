"""Ranks of held-out items, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.ranking.metrics import expected_metric, metric, of_users, realistic_rank
from ipsrec_bench.suite.schema import Ties


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

    def mean(self, name: str, ties: Ties = "realistic") -> float:
        """Return the mean over users of the metric `name`, like `ndcg@10`, with ties counted as `ties` says."""
        is_expected = ties == "expected"
        values = expected_metric(name, self.higher, self.ties) if is_expected else metric(name, self.realistic)
        return float(of_users(self.users, values).mean())
