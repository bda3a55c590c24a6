"""What is minimised: full-catalogue cross-entropy plus lambda times a contrastive loss (paper, eq. 13)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.registry import ContrastiveConfig
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.samples import Batch


@dataclass(frozen=True)
class Losses:
    """Means over a batch's targets; `total` is what is minimised."""

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor | None
    """None where lambda is 0 or the model has no second view."""


def batch_losses(model: SequentialModel, config: Settings, batch: Batch, *, packed: bool) -> Losses:
    """Return the losses of one batch.

    Every predicted position is one sample: its target is scored against all real items (the padding class
    takes no part), and its two views are one positive pair of the contrastive loss.
    """
    views = model.encode(batch.histories, every_position=packed)
    user, provider = views.user, views.provider
    owners = batch.histories.users
    if packed:
        user = user[batch.predicted]
        provider = provider[batch.predicted] if provider is not None else None
        owners = owners[:, None].expand_as(batch.predicted)[batch.predicted]
    cross_entropy = F.cross_entropy(user @ model.item_vectors()[1:].T, batch.targets - 1)
    if provider is None or not isinstance(config, ContrastiveConfig) or config.lambda_ == 0:
        return Losses(cross_entropy, cross_entropy, None)
    contrastive = item_to_provider(user, provider, owners, config.tau)
    return Losses(cross_entropy + config.lambda_ * contrastive, cross_entropy, contrastive)


def item_to_provider(user: Tensor, provider: Tensor, owners: Tensor, tau: float) -> Tensor:
    """Return the contrastive loss of eq. 12, averaged over the batch.

    Args:
        user: item views `[N, d]`, the anchors.
        provider: provider views `[N, d]`; row i is the positive of anchor i, and the rows of *other users* are
            its negatives. Other rows of the same user are neither.
        owners: user ids `[N]`.
        tau: temperature; the similarity is the dot product.
    """
    similarity = user @ provider.T / tau
    same_user = owners[:, None] == owners
    same_user.fill_diagonal_(False)
    similarity = similarity.masked_fill(same_user, -torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(user), device=user.device))
