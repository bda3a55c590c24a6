"""Markov: the items that most often followed the newest item in training (a first-order Markov chain).

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation"
(WWW 2010): the maximum-likelihood estimate of the transition probability p(next | newest) is the transition's
share of all transitions from the same item. For one user it orders items as the number of transitions does, so that
number is the score. Popularity breaks ties and orders the items that never followed.
"""

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.counting import Rows
from ipsrec_bench.models.pop import Pop


class Markov(Pop):
    """The score of an item is how often it followed the newest one, plus its share of all interactions."""

    def __init__(self, config: ModelConfig, sizes: Sizes) -> None:
        """Start without transitions."""
        super().__init__(config, sizes)
        self.transitions = Rows()

    def fit(self, log: TrainingLog) -> None:
        """Count the transitions between neighbouring interactions of one user."""
        super().fit(log)
        same = log.users[1:] == log.users[:-1]
        size = self.items + 1
        self.transitions.count(log.items[:-1][same], log.items[1:][same], size, size)

    def pick(self, histories: Histories) -> PickedScores:
        """Pick all items that followed the newest item of each history in training."""
        rows, items, counts = self.transitions.of(histories.last(histories.items))
        return PickedScores(rows, items, counts + self.background[items])
