"""Pop: every user is recommended the items that occur most often in training."""

import torch

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import CountingModel, PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.counting import popularity


class Pop(CountingModel):
    """The score of an item is its share of the training interactions, whatever the history."""

    def __init__(self, config: ModelConfig, sizes: Sizes) -> None:  # noqa: ARG002 (every model takes both)
        """Remember the number of items."""
        super().__init__(sizes)
        self.items = sizes.items

    def fit(self, log: TrainingLog) -> None:
        """Count the training interactions of every item."""
        self.background = popularity(log.items, self.items)

    def pick(self, histories: Histories) -> PickedScores:
        """Pick nothing: the background scores every item."""
        nothing = torch.zeros(0, dtype=torch.int64, device=histories.items.device)
        return PickedScores(nothing, nothing, nothing.double())
