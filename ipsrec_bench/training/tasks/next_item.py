"""The next item: a loss of the target over the item catalogue (paper, eq. 6), as `training.objective` names it."""

from torch import Tensor

from ipsrec_bench.settings import Settings
from ipsrec_bench.training.tasks.api import Task, TrainingStep


class NextItem(Task[Settings]):
    """The loss of each target, given the user vector at its position."""

    per_target = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the targets."""
        return step.next_item_loss(step.main.user, step.batch.targets)
