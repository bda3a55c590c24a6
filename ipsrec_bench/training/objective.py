"""The training objective: a loss over the catalogue plus lambda times a contrastive loss (paper, eq. 13)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import ProviderPredictor, SequentialModel
from ipsrec_bench.models.configs import ContrastiveConfig, NeuralConfig, ProviderPredictionConfig
from ipsrec_bench.training.catalogue import CatalogueLoss, exact
from ipsrec_bench.training.contrast import contrastive_loss
from ipsrec_bench.training.samples import Batch


@dataclass(frozen=True)
class Losses:
    """Means over a batch's targets; `total` is what is minimised."""

    total: Tensor
    cross_entropy: Tensor
    """Or the approximation of it that training uses."""
    contrastive: Tensor | None
    """None if lambda is 0 or the settings have no contrastive loss."""


EXACT = exact(torch.float32)
CASTING_PAYS = 1000
"""Minimum number of tokens in a batch for which products in bfloat16 save more time than casting takes."""


def batch_losses(
    model: SequentialModel,
    config: NeuralConfig,
    batch: Batch,
    *,
    packed: bool,
    catalogue_loss: CatalogueLoss = EXACT,
    dtype: torch.dtype = torch.float32,
) -> Losses:
    """Return the losses of one batch; the factors of the model's matrix products are in `dtype` if that saves time.

    Every predicted position is one sample: its target is scored against the items, and its two views are one
    positive pair of the contrastive loss.

    Raises:
        ModelError: the model does not provide an output that a configured loss needs.
    """
    tokens = batch.histories.items
    pays = model.mixed_precision and dtype != torch.float32 and tokens.numel() >= CASTING_PAYS
    if pays:
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            views = model.encode(_filled_up(batch.histories), every_position=packed)
        count = len(tokens)
        user = views.user[:count].float()
        provider = None if views.provider is None else views.provider[:count].float()
    else:
        views = model.encode(batch.histories, every_position=packed)
        user, provider = views.user, views.provider
    owners = batch.histories.users
    if packed:
        if user.shape[:2] != tokens.shape:
            raise ModelError(
                f"for every position of histories {tuple(tokens.shape)}, the model returned views {tuple(user.shape)};"
                " they must have the histories' width"
            )
        owners = owners[batch.predicted // user.shape[1]]
        user = user.flatten(0, 1)[batch.predicted]
        provider = provider.flatten(0, 1)[batch.predicted] if provider is not None else None
    cross_entropy = catalogue_loss(user, model.item_vectors(), batch.targets, first=0 if config.padding_class else 1)
    total, contrastive = cross_entropy, None
    if isinstance(config, ContrastiveConfig) and config.lambda_:
        if provider is None:
            raise ModelError(
                "the settings include a contrastive loss, but the model has no second view; set lambda = 0"
            )
        if config.same_user_negatives:
            owners = torch.arange(len(user), device=user.device)
        contrastive = contrastive_loss(
            user, provider, owners, contrast=config.contrast, similarity=config.similarity, tau=config.tau
        )
        total = total + config.lambda_ * contrastive
    if isinstance(config, ProviderPredictionConfig) and config.attribute_weight:
        if not isinstance(model, ProviderPredictor):
            raise ModelError(
                "the settings include the prediction of providers, but the model is not a ProviderPredictor; set"
                " attribute_weight = 0"
            )
        total = total + config.attribute_weight * provider_loss(model.provider_logits(user), batch.target_providers)
    if config.weight_norm:
        total = total + config.weight_norm * _weight_norms(model)
    return Losses(total, cross_entropy, contrastive)


def _filled_up(histories: Histories) -> Histories:
    """Add padding histories, at most an eighth, so that batches have few different sizes.

    oneDNN compiles a kernel for every new shape, which takes longer than the product.
    """
    count = len(histories.items)
    missing = -count % (1 << max(count.bit_length() - 4, 0))
    if not missing:
        return histories
    return Histories(
        users=F.pad(histories.users, (0, missing)),
        items=F.pad(histories.items, (0, 0, 0, missing)),
        providers=F.pad(histories.providers, (0, 0, 0, missing)),
        lengths=F.pad(histories.lengths, (0, missing), value=1),
    )


def provider_loss(logits: Tensor, providers: Tensor) -> Tensor:
    """Return the binary cross-entropy of "the next item's provider is p", averaged over targets and known providers.

    Args:
        logits: `[N, providers + 1]`.
        providers: int64 `[N]`; a target with an unknown provider has no positive.
    """
    # With labels y in {0, 1}, the loss of a logit x is softplus(x) - y x.
    known = logits[:, UNKNOWN_PROVIDER + 1 :]
    own = logits.gather(1, providers[:, None])[:, 0].masked_fill(providers == UNKNOWN_PROVIDER, 0.0)
    return (F.softplus(known).sum() - own.sum()) / max(known.numel(), 1)


def _weight_norms(model: SequentialModel) -> Tensor:
    """Return the sum of the Euclidean norms of the model's weight tensors, without biases."""
    norms = [p.norm() for name, p in model.named_parameters() if not name.endswith("bias")]
    return torch.stack(norms).sum()
