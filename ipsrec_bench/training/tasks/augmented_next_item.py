"""The next item after augmented histories, without a contrastive loss.

Each history of the batch is changed by one operator (`ipsrec_bench.training.augmentation`), and predicts the item that
followed its newest interaction: after `mask` and `reorder` the target of the history, after `crop` and `slide` what
the user had next. It shows whether a contrastive loss helps by its contrast or by the augmented data alone, a
comparison that Zhou et al. (WWW 2024, "Is contrastive learning necessary?") make.
"""

import torch
from torch import Tensor

from ipsrec_bench.training import augmentation
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import AugmentedNextItemConfig


class AugmentedNextItem(Task[AugmentedNextItemConfig]):
    """The loss of the item that followed an augmented history."""

    settings_type = AugmentedNextItemConfig

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the histories.

        Raises:
            ModelError: an operator hides items, and the model has no mask token.
        """
        items, lengths = step.batch.histories.items, step.batch.histories.lengths
        changed = augmentation.views(step, 1, self.settings)
        inside = items.gather(1, changed.ends.clamp(max=items.shape[1] - 1)[:, None])[:, 0]
        targets = torch.where(changed.ends < lengths, inside, step.newest_targets)
        return step.next_item_loss(step.encode(changed.histories).user, targets)
