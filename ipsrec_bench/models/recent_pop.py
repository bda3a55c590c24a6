"""RecentPop: the items that occur most often in the newest part of the training data.

After Ji, Sun, Zhang and Li, "A Re-visit of the Popularity Baseline in Recommender Systems" (SIGIR 2020), which
counts popularity in a period before the moment of the recommendation. Here the period is the same for all users: the
newest share of all training interactions by time. Total popularity breaks ties.
"""

import numpy as np
import torch

from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.configs import RecentPopConfig
from ipsrec_bench.models.counting import popularity
from ipsrec_bench.models.pop import Pop


class RecentPop(Pop):
    """The score of an item is its number of interactions in the newest part, plus its share of all."""

    def __init__(self, config: RecentPopConfig, sizes: Sizes) -> None:
        """Take the share of interactions that counts as new."""
        super().__init__(config, sizes)
        self.share = config.share

    def fit(self, log: TrainingLog) -> None:
        """Count the interactions that are as new as the newest `share` of all."""
        since = np.quantile(log.times, 1.0 - self.share, method="higher")
        recent = torch.from_numpy(np.bincount(log.items[log.times >= since], minlength=self.items + 1))
        self.background = popularity(log.items, self.items) + recent
