"""The contrastive loss between the item stream and the provider stream of a model (MSSR).

It needs a model with the extra views `item-stream` and `provider-stream`.
"""

import torch
from torch import Tensor

from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import ITEM_STREAM, PROVIDER_STREAM
from ipsrec_bench.training.contrast import contrastive_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import StreamContrastConfig


class StreamContrast(Task[StreamContrastConfig]):
    """The vectors of both streams at a predicted position are a positive pair, in NT-Xent over the batch."""

    settings_type = StreamContrastConfig
    per_target = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the vectors of both streams.

        Raises:
            ModelError: the model has no two streams.
        """
        extra, owners = step.main.extra, step.main.owners
        if not {ITEM_STREAM, PROVIDER_STREAM} <= set(extra):
            raise ModelError(f"stream-contrast needs the extra views '{ITEM_STREAM}' and '{PROVIDER_STREAM}'")
        if self.settings.same_user_negatives:
            owners = torch.arange(len(owners), device=owners.device)
        return contrastive_loss(
            extra[ITEM_STREAM],
            extra[PROVIDER_STREAM],
            owners,
            contrast="nt-xent",
            similarity=self.settings.similarity,
            tau=self.settings.tau,
        )
