"""Losses over the item catalogue: the exact cross-entropy, and approximations of it.

Each maps user vectors `[N, d]`, item vectors `[V, d]` and targets `[N]` to a mean over the targets. Rows of the item
vectors before `first` (1 if row 0 is padding, else 0) are not items.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.precision import FIRST_CAPABILITY
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.softmax import full_cross_entropy


class CatalogueLoss(Protocol):
    """A loss of targets over the catalogue."""

    def __call__(self, users: Tensor, items: Tensor, targets: Tensor, *, first: int) -> Tensor:
        """Return the mean over the targets."""


def product_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the factors of matrix products in training; `auto` is bfloat16 where that is fast."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    fast = False
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY
    elif device.type == "cpu":
        if hasattr(torch.cpu, "get_capabilities"):
            capabilities = torch.cpu.get_capabilities()
            fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        else:  # an older torch, such as 2.8
            fast = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 (it has no public way)
    return torch.bfloat16 if fast else torch.float32


def exact(dtype: torch.dtype, tile_parts: int = 1) -> CatalogueLoss:
    """Return the cross-entropy over all items, with factors of products in `dtype` and tiles cut into `tile_parts`."""

    def loss(users: Tensor, items: Tensor, targets: Tensor, *, first: int) -> Tensor:
        return full_cross_entropy(users, items, targets, first=first, dtype=dtype, tile_parts=tile_parts)

    return loss


def scored(users: Tensor, items: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of the targets, `[N]`, and of their negatives, `[N, K]`.

    Args:
        users: `[N, d]`.
        items: `[V, d]`.
        targets: int64 `[N]`.
        negatives: int64 `[K]` where all targets share them, or `[N, K]`.
    """
    rows = _rows(items, negatives)
    against = users @ rows.T if negatives.dim() == 1 else (rows @ users[:, :, None])[:, :, 0]
    return (users * _rows(items, targets)).sum(dim=1), against


def softmax_loss(own: Tensor, against: Tensor) -> Tensor:
    """Return the mean of -log softmax of `own [N]` among itself and its negatives `against [N, K]`."""
    return -F.log_softmax(torch.cat([own[:, None], against], dim=1), dim=1)[:, 0].mean()


def bce_loss(own: Tensor, against: Tensor, power: float = 1.0) -> Tensor:
    """Return the mean binary cross-entropy of `own [N]` and `against [N, K]`, over K + 1 terms for each target.

    The likelihood of the positive, sigmoid(own), is raised to `power`. A score of -inf adds nothing.
    """
    terms = power * F.softplus(-own) + F.softplus(against).sum(dim=1)
    return (terms / (against.shape[1] + 1)).mean()


def gbce_power(calibration: float, negatives: int, others: int) -> float:
    """Return beta = alpha (t (1 - 1 / alpha) + 1 / alpha), the power of gBCE.

    alpha is the share of the `others`, the items that are not the target, that is sampled; t is `calibration`.
    """
    alpha = min(negatives / max(others, 1), 1.0)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def sampled_softmax(
    counts: NDArray[np.int64], negatives: int, rng: np.random.Generator, *, per_target: bool = False
) -> CatalogueLoss:
    """Return a softmax over each target and `negatives` items, drawn once per batch and shared by its targets.

    Items are drawn in proportion to `counts` + 1 (`counts [V]`: their training interactions), with replacement; with
    `per_target`, anew for each target. The partition of the softmax is estimated by importance sampling (Bengio and
    Senecal, IEEE TNN 2008): the exponential of a negative's score is divided by its expected number of draws, whose
    logarithm is subtracted from the score ("logQ correction"). The target itself is always included, without
    correction, and does not count as a negative if it is drawn, so the estimate of the partition is unbiased.
    """
    weights = counts + 1.0
    running = np.cumsum(weights)

    def loss(users: Tensor, items: Tensor, targets: Tensor, *, first: int) -> Tensor:
        below = running[first - 1] if first else 0.0
        mass = running[-1] - below
        draws = below + mass * rng.random((len(targets), negatives) if per_target else negatives)
        drawn = np.searchsorted(running, draws, side="right").clip(first, len(items) - 1)
        candidates = torch.from_numpy(drawn).to(targets.device)
        expected = torch.from_numpy(np.log(weights[drawn] / mass * negatives)).to(users)
        own, against = scored(users, items, targets, candidates)
        against = (against - expected).masked_fill(candidates == targets[:, None], -torch.inf)
        return softmax_loss(own, against)

    return loss


def bce(
    negatives: int, rng: np.random.Generator, *, calibration: float = 0.0, per_target: bool = False
) -> CatalogueLoss:
    """Return the binary cross-entropy of each target and `negatives` items, of SASRec (Kang and McAuley, ICDM 2018).

    Items are drawn uniformly, once per batch and shared by its targets, or with `per_target` anew for each target, as
    in SASRec with one negative. A target is never its own negative. With a `calibration` t above 0, it is gBCE
    (Petrov and Macdonald, RecSys 2023), which corrects for sampling by `gbce_power`: 1 is fully calibrated.
    """

    def loss(users: Tensor, items: Tensor, targets: Tensor, *, first: int) -> Tensor:
        size = (len(targets), negatives) if per_target else negatives
        candidates = torch.from_numpy(rng.integers(first, len(items), size=size)).to(targets.device)
        own, against = scored(users, items, targets, candidates)
        against = against.masked_fill(candidates == targets[:, None], -torch.inf)
        return bce_loss(own, against, gbce_power(calibration, negatives, len(items) - first - 1))

    return loss


def gbce(calibration: float, negatives: int, rng: np.random.Generator, *, per_target: bool = False) -> CatalogueLoss:
    """Return `bce` with a calibration."""
    return bce(negatives, rng, calibration=calibration, per_target=per_target)


def catalogue_loss(
    training: Training,
    dtype: torch.dtype,
    counts: Callable[[], NDArray[np.int64]],
    rng: np.random.Generator,
    tile_parts: int = 1,
) -> CatalogueLoss:
    """Return the loss that `training` names.

    Args:
        training: names the loss.
        dtype: dtype of the factors of products, in the exact loss.
        counts: returns the number of training interactions of each row of the items, for losses that need it.
        rng: draws negatives.
        tile_parts: number of parts into which the tiles of the exact loss are cut.
    """
    per_target = training.negatives_per == "target"
    match training.objective:
        case "softmax":
            return exact(dtype, tile_parts)
        case "sampled-softmax":
            return sampled_softmax(counts(), training.negatives, rng, per_target=per_target)
        case "bce":
            return bce(training.negatives, rng, per_target=per_target)
        case "gbce":
            return gbce(training.calibration, training.negatives, rng, per_target=per_target)


def _rows(items: Tensor, rows: Tensor) -> Tensor:
    """Look up `rows`; the gradient is sparse if `items` is a weight itself, not a function of weights."""
    return F.embedding(rows, items, sparse=items.is_leaf)
