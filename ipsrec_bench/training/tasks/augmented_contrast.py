"""The contrastive loss between two augmented views of a history (CL4SRec, Xie et al., ICDE 2022).

Each history of the batch is changed by two different operators (`ipsrec_bench.training.augmentation`), and the states
after their last interactions are a positive pair. The negatives are both views of all other histories (NT-Xent).

A batch has one pair for each history: in packed samples for each window, mostly a user's whole history, as in the
paper; in prefix samples for each prefix, as in the released code.
"""

from torch import Tensor

from ipsrec_bench.training import augmentation
from ipsrec_bench.training.contrast import pair_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import AugmentedContrastConfig


class AugmentedContrast(Task[AugmentedContrastConfig]):
    """Two augmentations of a history are a positive pair."""

    settings_type = AugmentedContrastConfig
    samples = frozenset({"targets", "histories"})

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the histories and both views.

        Raises:
            ModelError: an operator hides items, and the model has no mask token.
        """
        views = step.encode(augmentation.views(step, 2, self.settings).histories)
        first, second = views.user.chunk(2)
        return self.contrast(first, second, step.batch.histories.users)

    def contrast(self, first: Tensor, second: Tensor, users: Tensor) -> Tensor:
        """Return the loss of two views `[B, d]` of histories of `users [B]`."""
        return pair_loss(first, second, users, self.settings)
