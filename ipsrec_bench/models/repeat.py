"""Repeat: a user's own items again, the most recent one first; popularity orders the others."""

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores
from ipsrec_bench.models.counting import merge
from ipsrec_bench.models.pop import Pop


class Repeat(Pop):
    """The score of an own item is 1 + the position of its last occurrence in the history."""

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the items of each history."""
        rows, positions = (histories.items > 0).nonzero(as_tuple=True)
        return PickedScores(*merge(rows, histories.items[rows, positions], 1.0 + positions, self.items, "amax"))
