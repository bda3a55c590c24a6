"""ItemKNN: item-based nearest neighbours, by the cosine similarity of their users.

Sarwar, Karypis, Konstan and Riedl, "Item-based Collaborative Filtering Recommendation Algorithms" (WWW 2001),
section 3.1.1 on the binary matrix of users and items: sim(i, j) = |U_i & U_j| / sqrt(|U_i| |U_j|), where U_i are the
users of i. Each item contributes its `neighbours` most similar items, itself excluded. An item's score is the sum of
its similarities to the interactions of the history. Items that no interaction contributes are ordered by popularity.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ItemKNNConfig
from ipsrec_bench.models.counting import Rows, largest, merge
from ipsrec_bench.models.pop import Pop

PAIRS_AT_A_TIME = 1 << 22
"""Maximum number of pairs of items with a common user that are counted at once; about 300 MB."""


class ItemKNN(Pop):
    """The score of an item is 1 + the sum of its similarities to the interactions of the history."""

    def __init__(self, config: ItemKNNConfig, sizes: Sizes) -> None:
        """Take the number of neighbours."""
        super().__init__(config, sizes)
        self.neighbours = config.neighbours
        self.similar = Rows()

    def fit(self, log: TrainingLog) -> None:
        """Compute every item's most similar items, a block of items at a time."""
        super().fit(log)
        shape = (self.items + 1, int(log.users.max()) + 1)
        users_of = sparse.csr_array((np.ones(len(log.items)), (log.items, log.users)), shape=shape)
        users_of.data[:] = 1.0  # duplicates were summed when the matrix was made
        items_of = users_of.T.tocsr()
        users = np.diff(users_of.indptr).astype(np.int64)
        # Upper bound on the entries in row i of the product: the items of each of i's users, summed.
        pairs = np.cumsum(users_of @ np.diff(items_of.indptr))
        cuts = np.searchsorted(pairs, np.arange(0, pairs[-1], PAIRS_AT_A_TIME), side="right")
        bounds = np.unique([0, *cuts, shape[0]])
        blocks = [
            _nearest((users_of[begin:end] @ items_of).tocoo(), begin, users, self.neighbours)
            for begin, end in pairwise(bounds.tolist())
        ]
        item, neighbour, similarity = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        self.similar.fill(item, neighbour, similarity, shape[0])

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the neighbours of each history's items."""
        rows, positions = (histories.items > 0).nonzero(as_tuple=True)
        index, items, similarity = self.similar.of(histories.items[rows, positions])
        rows, items, similarity = merge(rows[index], items, similarity, self.items, "sum")
        # Rounded, so that sums which differ only in the order of their terms are ties.
        return PickedScores(rows, items, 1.0 + similarity.float().double())


def _nearest(
    common: sparse.coo_array, begin: int, users: NDArray[np.int64], neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return item, neighbour and cosine of the most similar items of a block that starts at item `begin`.

    `common` counts common users, `[block, items + 1]`, and `users` those of each item, `[items + 1]`.
    """
    item, other = common.coords[0].astype(np.int64) + begin, common.coords[1].astype(np.int64)
    different = item != other
    item, other = item[different], other[different]
    return largest(item, other, common.data[different] / np.sqrt(users[item] * users[other]), neighbours)
