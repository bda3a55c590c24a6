"""The next item, and the first item of a history that is shorter than the maximum length, as LRURec is released."""

import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.tasks.api import Task, TrainingStep


class NextOrFirstItem(Task[Settings]):
    """The loss of each target, and of each first item given an empty history.

    Public code that pads on the left and trains every position trains the last padded one to predict the first item.
    A history of the maximum length has no padding. An empty history is one of a single item with the id 0.
    """

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the targets and the first items."""
        histories = step.batch.histories
        most = histories.items.shape[1] if step.index is None else step.index.max_length
        firsts = histories.items[histories.lengths < most, 0]
        nothing = torch.zeros_like(histories.items[:1, :1])
        times = nothing if histories.times is None else torch.zeros_like(histories.times[:1, :1])
        empty = Histories(
            histories.users[:1], nothing, nothing, torch.ones_like(histories.lengths[:1]), times, times[:, 0]
        )
        state = step.encode(empty).user
        states = torch.cat([step.main.user, state.expand(len(firsts), -1)])
        return step.next_item_loss(states, torch.cat([step.batch.targets, firsts]))
