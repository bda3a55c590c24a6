"""Contrastive losses between two views of the same users (paper, section 2.3), without a loop over the batch.

Each of N samples has two views, row i of one tensor and row i of the other, which are a positive pair. Every predicted
position is a sample, so a user may have several: many in packed training, some among the prefixes of one batch. The
losses take an owner per sample, and vectors of one owner are never each other's negatives. The owner is the user
(eq. 12: "the other users in the batch") or, with `same_user_negatives`, the sample itself. The latter is the released
code, whose samples are prefixes and whose loss ignores users.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.training.tasks.configs import PairContrastConfig


def item_to_provider(user: Tensor, provider: Tensor, owners: Tensor, tau: float) -> Tensor:
    """Return eq. 12, averaged over the batch: one direction, negatives from the provider side.

    Args:
        user: item views `[N, d]`, the anchors.
        provider: provider views `[N, d]`; row i is the positive of anchor i, and the rows of other owners are
            its negatives.
        owners: ids `[N]`.
        tau: temperature; the similarity is the dot product (of normalised vectors: the cosine).
    """
    hidden = _alike(owners).fill_diagonal_(False)
    similarity = _without(user / tau @ provider.T, hidden)
    return F.cross_entropy(similarity, torch.arange(len(user), device=user.device))


def symmetric(user: Tensor, provider: Tensor, owners: Tensor, tau: float) -> Tensor:
    """Return the mean of eq. 12 in both directions; arguments as in `item_to_provider`."""
    forth = item_to_provider(user, provider, owners, tau)
    return (forth + item_to_provider(provider, user, owners, tau)) / 2


def nt_xent(user: Tensor, provider: Tensor, owners: Tensor, tau: float) -> Tensor:
    """Return NT-Xent (Chen et al., ICML 2020) over the 2N stacked views; arguments as in `item_to_provider`.

    Each of the 2N vectors is an anchor; its positive is the other view of its sample, its negatives are *both* views
    of all samples of other owners. This is the loss of the released code.
    """
    n = len(user)
    both = torch.cat([user, provider])
    positive = torch.arange(2 * n, device=user.device).roll(n)
    hidden = _alike(owners).repeat(2, 2)
    hidden[torch.arange(2 * n, device=user.device), positive] = False
    similarity = _without(both / tau @ both.T, hidden)
    return F.cross_entropy(similarity, positive)


def pair_loss(first: Tensor, second: Tensor, users: Tensor, settings: PairContrastConfig) -> Tensor:
    """Return NT-Xent between the two views `[B, d]` of histories of `users [B]`."""
    owners = torch.arange(len(users), device=users.device) if settings.same_user_negatives else users
    return contrastive_loss(first, second, owners, contrast="nt-xent", similarity=settings.similarity, tau=settings.tau)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean distance between the two views `[B, d]` of a sample (Wang and Isola, ICML 2020)."""
    return (first - second).square().sum(dim=1).sqrt().mean()


def uniformity(views: Tensor) -> Tensor:
    """Return log of the mean of exp(-2 distance) over all pairs of `views [B, d]`.

    Wang and Isola (ICML 2020) square the distance; DuoRec's code, whose measure this is, does not.
    """
    return torch.pdist(views).mul(-2).exp().mean().log()


def _alike(owners: Tensor) -> Tensor:
    """Return bool `[N, N]`, true where two samples have the same owner."""
    owners = owners.int()  # half the traffic of int64
    return owners[:, None] == owners


def _without(similarity: Tensor, hidden: Tensor) -> Tensor:
    """Hide pairs from a softmax over rows of `similarity`, in place.

    Autograd need not record it: softmax gives an entry at minus infinity the probability 0, and so the gradient 0.
    """
    with torch.no_grad():
        return similarity.masked_fill_(hidden, -torch.inf)


CONTRASTS = {"item-to-provider": item_to_provider, "symmetric": symmetric, "nt-xent": nt_xent}


def contrastive_loss(
    user: Tensor, provider: Tensor, owners: Tensor, *, contrast: str, similarity: str, tau: float
) -> Tensor:
    """Return the loss `contrast` between the views `[N, d]` of the samples of `owners [N]`."""
    if similarity == "cosine":
        user, provider = F.normalize(user, dim=1), F.normalize(provider, dim=1)
    return CONTRASTS[contrast](user, provider, owners, tau)
