"""V-SKNN: nearest neighbours of the user's history, in which newer items weigh more.

Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms" (User Modeling and User-Adapted
Interaction, 2018), with the weights of its code (rn5l/session-rec, `vsknn.py`). The history s has L interactions, and
its item i stands last at position p(i) = 1 to L. With the neighbours N of `ipsrec_bench.models.session_knn`:

    sim(s, n) = sum over the items i that s and n share of p(i) / L
    score(j)  = sum over the neighbours n in N that have j of sim(s, n) / (L - p(i*) + 1)

where i* is the newest item of s that n has. Items of the history may be recommended. What no neighbour has is ordered
by popularity.
"""

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.models.session_knn import Matches, Numbers, SessionKNN


class VSKNN(SessionKNN):
    """A shared item counts by its position; a neighbour counts by the newest item that it shares."""

    def position_weights(self, positions: Numbers, lengths: Numbers) -> Numbers:
        """Return p / L."""
        return positions / lengths

    def item_weights(self, matches: Matches, pair: NDArray[np.int64], at: Numbers) -> Numbers:  # noqa: ARG002 (of all derived classes)
        """Return sim(s, n) / (L - p(i*) + 1), the same for all items of a neighbour."""
        weight: Numbers = matches.similarities / (matches.lengths - matches.newest + 1)
        return weight[pair]
