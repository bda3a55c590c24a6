"""STAN: nearest neighbours of the user's history with three decays, in position, in time and within the neighbour.

Garg, Gupta, Malhotra, Vig and Shroff, "Sequence and Time Aware Neighborhood for Session-based Recommendations: STAN"
(SIGIR 2019). The history s has L interactions; its item i stands last at position p(i) = 1 to L, and its newest
interaction is at time t. A training history n has |n| distinct items, item j last at position p_n(j), and its newest
interaction is at time t_n. With the neighbours N of `ipsrec_bench.models.session_knn`:

    sim(s, n) = sum over the items i that s and n share of exp((p(i) - L) / lambda_1) / sqrt(|n|)
                * exp(-|t - t_n| / (lambda_2 T))
    score(j)  = sum over the neighbours n in N that have j of sim(s, n) * exp(-|p_n(j) - p_n(i*)| / lambda_3)

where i* is the newest item of s that n has. The cosine's other norm is the same for all n and is left out.

Two things are not as in the paper. There, lambda_2 is in days; here it is a share of T, the time from the first to the
last training interaction, because datasets have times in different units. There, a neighbour's last interaction is
always in the past; here, under leave-one-out, it may be later than t, and distance in time counts both ways. The code
of session-rec takes, for i*, the shared item that is newest in n instead of in s.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.configs import STANConfig
from ipsrec_bench.models.session_knn import Matches, Numbers, SessionKNN


class STAN(SessionKNN):
    """A shared item counts by its position, a neighbour by its time, and its items by their distance from i*."""

    span: Tensor

    def __init__(self, config: STANConfig, sizes: Sizes) -> None:
        """Take the three decays."""
        super().__init__(config, sizes)
        self.position_decay, self.time_decay = config.position_decay, config.time_decay
        self.item_decay = config.item_decay
        self.register_buffer("span", torch.zeros(1, dtype=torch.float64))

    def fit(self, log: TrainingLog) -> None:
        """Number the training histories, and measure the time T from the first interaction to the last."""
        super().fit(log)
        seconds = log.seconds
        self.span = torch.tensor([seconds.max() - seconds.min()], dtype=torch.float64)

    def position_weights(self, positions: Numbers, lengths: Numbers) -> Numbers:
        """Return exp((p - L) / lambda_1)."""
        return np.exp((positions - lengths) / self.position_decay)

    def similarities(self, products: Numbers, histories: NDArray[np.int64], times: Numbers | None) -> Numbers:
        """Return the products, divided by the root of the neighbour's size, with the decay in time."""
        assert times is not None
        sizes = torch.diff(self.histories.offsets).cpu().numpy()[histories]
        unit = self.time_decay * (self.span.item() or 1.0)
        decayed: Numbers = np.exp(-np.abs(times - self.times.cpu().numpy()[histories]) / unit)
        found: Numbers = products / np.sqrt(sizes) * decayed
        return found

    def item_weights(self, matches: Matches, pair: NDArray[np.int64], at: Numbers) -> Numbers:
        """Return sim(s, n) * exp(-|p_n(j) - p_n(i*)| / lambda_3)."""
        decayed: Numbers = np.exp(-np.abs(at - matches.place[pair]) / self.item_decay)
        return matches.similarities[pair] * decayed
