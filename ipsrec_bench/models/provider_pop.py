"""ProviderPop: the most popular items of the providers in the history, the newest provider first.

Each provider contributes its `assortment` most popular items, counted within the provider. All other items are ordered
by overall popularity. Interactions with an unknown provider contribute nothing.
"""

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ProviderPopConfig
from ipsrec_bench.models.counting import Rows, merge
from ipsrec_bench.models.pop import Pop


class ProviderPop(Pop):
    """The score of a provider's item is 1 + the provider's last position in the history + the item's share."""

    def __init__(self, config: ProviderPopConfig, sizes: Sizes) -> None:
        """Take the number of items that each provider contributes."""
        super().__init__(config, sizes)
        self.providers = sizes.providers
        self.assortment = config.assortment
        self.assortments = Rows()

    def fit(self, log: TrainingLog) -> None:
        """Count the interactions of every provider with every item."""
        super().fit(log)
        self.assortments.count(log.providers, log.items, self.providers + 1, self.items + 1, self.assortment)
        self.assortments.values /= len(log.items) + 1  # a share below 1 never lifts an item above a newer provider's

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the items of each history's known providers."""
        rows, positions = (histories.providers > UNKNOWN_PROVIDER).nonzero(as_tuple=True)
        providers = histories.providers[rows, positions]
        rows, providers, newness = merge(rows, providers, 1.0 + positions, self.providers, "amax")
        index, items, share = self.assortments.of(providers)
        return PickedScores(*merge(rows[index], items, newness[index] + share, self.items, "amax"))
