"""Repeat: the items of the user's history, the most recent first; all others by popularity."""

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores
from ipsrec_bench.models.counting import merge
from ipsrec_bench.models.pop import Pop


class Repeat(Pop):
    """The score of an item in the history is 1 + the position of its last occurrence."""

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the items of each history."""
        rows, positions = (histories.items > 0).nonzero(as_tuple=True)
        return PickedScores(*merge(rows, histories.items[rows, positions], 1.0 + positions, self.items, "amax"))
