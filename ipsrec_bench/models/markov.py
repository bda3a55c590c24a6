"""Markov: what followed the newest item most often in training (a first-order Markov chain).

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation"
(WWW 2010): the maximum-likelihood estimate of the transition probability p(next | newest) is the transition's
share among all from the same item. Within one user it orders items as the plain number of transitions
does, which is the score; popularity orders equal numbers, and what never followed.
"""

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.counting import Rows
from ipsrec_bench.models.pop import Pop


class Markov(Pop):
    """The score of an item is how often it followed the newest one, plus its share of all interactions."""

    def __init__(self, config: ModelConfig, sizes: Sizes) -> None:
        """Begin without transitions."""
        super().__init__(config, sizes)
        self.transitions = Rows()

    def fit(self, log: TrainingLog) -> None:
        """Count the transitions between neighbouring interactions of one user."""
        super().fit(log)
        same = log.users[1:] == log.users[:-1]
        size = self.items + 1
        self.transitions.count(log.items[:-1][same], log.items[1:][same], size, size)

    def pick(self, histories: Histories) -> PickedScores:
        """Pick what ever followed the newest item of each history."""
        rows, items, counts = self.transitions.of(histories.last(histories.items))
        return PickedScores(rows, items, counts + self.background[items])
