"""The contrastive losses of DuoRec (Qiu et al., WSDM 2022).

A history has three views: the main one; a second pass with other dropout (unsupervised); and the view of another
training history with the same target (supervised, or semantic), drawn anew for every batch. If no other training
target is this item, it is the history itself. Two of the views are a positive pair, and the negatives are both views
of all other histories (NT-Xent), those with the same target included.

A batch has one pair for each history: in packed samples for each window and its newest target, in prefix samples for
each target, as in the released code.
"""

from functools import partial

from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.training.contrast import pair_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import SameTargetContrastConfig


class SameTargetContrast(Task[SameTargetContrastConfig]):
    """Two dropout passes of a history, and two histories with the same target, are positive pairs."""

    settings_type = SameTargetContrastConfig

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the loss of the chosen pairs, or the weighted sum of both.

        Raises:
            ModelError: the step has no lookups in training interactions, and one of the losses needs them.
        """
        histories, which, user = step.batch.histories, self.settings.contrast, step.newest.user
        second = user if which == "su" else step.encode(histories).user
        semantic = user if which == "un" else step.encode(same_target(step)).user
        return self.contrast(user, second, semantic, histories.users)

    def contrast(self, user: Tensor, second: Tensor, semantic: Tensor, users: Tensor) -> Tensor:
        """Return the loss of views `[B, d]` of histories of `users [B]`.

        Args:
            user: the main views.
            second: those of the second pass; anything with `su`.
            semantic: those of histories with the same targets; anything with `un`.
            users: ids of the users.
        """
        settings = self.settings
        pair = partial(pair_loss, users=users, settings=settings)
        match settings.contrast:
            case "un":
                return pair(user, second)
            case "su":
                return pair(user, semantic)
            case "us":
                return pair(user, second) + settings.semantic_weight * pair(user, semantic)
            case "us_x":
                return pair(second, semantic)


def same_target(step: TrainingStep) -> Histories:
    """Return, for each history of the batch, another training history with the same newest target.

    Raises:
        ModelError: the step has no lookups in training interactions.
    """
    index, newest = step.sure_index, step.batch.newest
    if newest is None:
        raise ModelError("this task looks up training interactions, and the batch does not say where its targets are")
    return index.histories_before(index.another_of_same_target(newest, step.rng))
