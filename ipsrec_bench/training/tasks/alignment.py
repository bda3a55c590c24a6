"""The alignment of items with their providers (DIFF, SIGIR 2025).

For each history, the cosines of the vector x_i of every item and the vector a_j of every provider, divided by the
temperature, are softmax logits over j, and over i. The pairs (i, j) of one provider should be likely:

    l = -1/n sum_ij [provider_i = provider_j] (log softmax_j(cos(x_i, a_j) / t) + log softmax_i(cos(x_i, a_j) / t))

for the n real positions of a history. The loss is the mean of l over histories. As released, the padded columns, whose
cosine is 0, take part in the softmax, and the mean is over all rows, which divides the loss by the number of columns.

It needs a model with extra views of the items and providers of a history, and prefix samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import HISTORY_ITEMS, HISTORY_PROVIDERS
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import AlignmentConfig


class Alignment(Task[AlignmentConfig]):
    """Items and providers of the same history that belong together are positive pairs, all others are negative."""

    settings_type = AlignmentConfig

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over histories.

        Raises:
            ModelError: the model does not give the embeddings of a history, or the samples are packed.
        """
        extra, histories = step.main.extra, step.batch.histories
        if step.packed or not {HISTORY_ITEMS, HISTORY_PROVIDERS} <= set(extra):
            raise ModelError(
                f"alignment needs prefix samples and the extra views '{HISTORY_ITEMS}' and '{HISTORY_PROVIDERS}'"
            )
        cosines = F.normalize(extra[HISTORY_ITEMS], dim=-1) @ F.normalize(extra[HISTORY_PROVIDERS], dim=-1).transpose(
            1, 2
        )
        width = cosines.shape[1]
        providers = F.pad(histories.providers, (0, width - histories.providers.shape[1]))
        return alignment_loss(cosines, providers, histories.lengths, self.settings)


def alignment_loss(cosines: Tensor, providers: Tensor, lengths: Tensor, settings: AlignmentConfig) -> Tensor:
    """Return the loss of `cosines [B, L, L]` of items (rows) and providers (columns).

    Args:
        cosines: 0 at padding.
        providers: int64 `[B, L]`.
        lengths: int64 `[B]`.
        settings: those of the task.
    """
    width = cosines.shape[1]
    real = torch.arange(width, device=lengths.device) < lengths[:, None]
    paired = real if settings.unknown_class else real & (providers != UNKNOWN_PROVIDER)
    pairs = (providers[:, :, None] == providers[:, None]) & paired[:, :, None] & paired[:, None]
    logits = cosines / settings.temperature
    if settings.padding:
        by_item, by_provider = logits.log_softmax(2), logits.log_softmax(1)
    else:
        by_item = logits.masked_fill(~real[:, None], -torch.inf).log_softmax(2)
        by_provider = logits.masked_fill(~real[:, :, None], -torch.inf).log_softmax(1)
    # Entries at minus infinity are no pairs: they are replaced before they meet a factor of 0.
    sums = -(by_item + by_provider).masked_fill(~pairs, 0.0).sum((1, 2))
    mean = (sums / lengths).mean()
    return mean / width if settings.padding else mean
