"""Sequential rules: the items that followed the newest item in training, directly or a few steps later.

Kamehkhosh, Jannach and Ludewig, "A Comparison of Frequent Pattern Techniques and a Deep Learning Method for
Session-Based Recommendation" (TempRec at RecSys 2017), and Ludewig and Jannach (UMUAI 2018). With the newest item i of
the history, over all training histories n and their positions x < y:

    score(j) = sum of 1 / (y - x) where n has i at x, j at y, and y - x is at most `steps`

The paper divides by a number that is the same for all j. Each item keeps its `rules` strongest rules; all other items
are ordered by popularity. With `steps = 1` this is Markov.
"""

import numpy as np
from scipy import sparse

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import SequentialRulesConfig
from ipsrec_bench.models.counting import Rows, largest
from ipsrec_bench.models.pop import Pop


class SequentialRules(Pop):
    """The score of an item is 1 + the weight of the rule from the newest item."""

    def __init__(self, config: SequentialRulesConfig, sizes: Sizes) -> None:
        """Take the length of rules and their number."""
        super().__init__(config, sizes)
        self.steps, self.most = config.steps, config.rules
        self.rules = Rows()

    def fit(self, log: TrainingLog) -> None:
        """Sum the weights of all rules, one distance after the other."""
        super().fit(log)
        shape = (self.items + 1, self.items + 1)
        total = sparse.csr_array(shape, dtype=np.float64)
        for step in range(1, min(self.steps, len(log.items) - 1) + 1):
            same = log.users[step:] == log.users[:-step]
            if not same.any():
                break
            ends = log.items[:-step][same], log.items[step:][same]
            total = total + sparse.coo_array((np.full(len(ends[0]), 1 / step), ends), shape=shape).tocsr()
        found = total.tocoo()
        # Rounded, so that sums which differ only in the order of their terms are ties.
        weights = found.data.astype(np.float32).astype(np.float64)
        row, item, weight = largest(
            found.coords[0].astype(np.int64), found.coords[1].astype(np.int64), weights, self.most
        )
        self.rules.fill(row, item, weight, shape[0])

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the items to which the newest item of each history has a rule."""
        rows, items, weights = self.rules.of(histories.last(histories.items))
        return PickedScores(rows, items, 1.0 + weights)
