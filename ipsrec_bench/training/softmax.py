"""Full-catalogue cross-entropy that keeps only a bounded part of the `[targets x items]` scores in memory.

On CUDA in bfloat16, the kernels of `kernels/cross_entropy.py` compute it and write no score to memory. This module is
for all other cases.

Scores of a block of targets are computed tile by tile: a first pass finds each target's log-partition, a second adds
every tile's share to both gradients. Between the passes, up to `KEPT` bytes of the tiles' probabilities are kept; the
others are recomputed. This bounds the memory for any catalogue, at the price of a third more multiplications for the
tiles that are not kept. On a CPU each step works on a tile in the cache, whereas whole rows of scores would go through
main memory at every step.

`torch.nn.functional.linear_cross_entropy` (torch 2.13 and later) cuts the batch instead of the catalogue: a chunk's
scores are still `[chunk x items]`, which at a million items is out of the cache for any useful chunk.
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ipsrec_bench.kernels.support import runs_kernels

ROWS, TILE = 256, 2048
"""Approximate number of targets, and number of items, at a time: a tile of their scores stays in a CPU's cache."""
CUDA_TILE = 32_768
"""Number of items at a time on CUDA, where few large products are faster than many small ones."""
WIDEST = 256
"""Largest width of vectors for which the kernels of `kernels/cross_entropy.py` have shared memory."""
KEPT = 128 << 20
"""Maximum bytes of probabilities kept between the passes: those of 256 targets and 131,000 items in float32."""
SHAPES = 64
"""Targets are padded to a multiple of this for products in bfloat16: oneDNN compiles a kernel for every new shape,
which takes longer than the product."""


def full_cross_entropy(
    users: Tensor, items: Tensor, targets: Tensor, *, first: int, dtype: torch.dtype, tile_parts: int = 1
) -> Tensor:
    """Return the mean of -log softmax(user . items)[target] over all items from `first` on.

    Args:
        users: `[N, d]`.
        items: `[V, d]`; rows before `first` are not classes.
        targets: int64 `[N]`, rows of `items`.
        first: 0, or 1 where row 0 is padding.
        dtype: dtype of the factors and results of matrix products; sums over tiles and both gradients are always
            float32. With bfloat16, scores (in the kernels only their factors) and
            probabilities within a tile are rounded to 8 bits, as in any mixed-precision training: a gradient then
            differs from the exact one by thousandths of its norm, and by 6% where scores near 18 leave a target one
            chance in 20,000 to be missed, as a plain loss in bfloat16 does.
        tile_parts: number of parts into which rows, tile and kept probabilities are cut if memory is short. The kernels
            of `kernels/cross_entropy.py` have no tiles in memory.
    """
    loss: Tensor = _CrossEntropy.apply(users.float(), items.float(), targets, first, dtype, tile_parts)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Computes gradients in the forward pass, while their inputs exist, and returns them in the backward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        users: Tensor,
        items: Tensor,
        targets: Tensor,
        first: int,
        dtype: torch.dtype,
        tile_parts: int,
    ) -> Tensor:
        if _fit_kernels(users, dtype):
            from ipsrec_bench.kernels.cross_entropy import loss_and_gradients  # Triton comes with torch for CUDA only
        else:
            loss_and_gradients = partial(_tile_by_tile, tile_parts=tile_parts)
        wanted = any(ctx.needs_input_grad[:2])  # type: ignore[attr-defined]
        loss, *gradients = loss_and_gradients(users, items, targets, first=first, dtype=dtype, gradients=wanted)
        # Not by `save_for_backward`, whose reference would outlive the step: a tensor without other references becomes
        # the weight's gradient itself and is added to in place; otherwise the whole catalogue is copied.
        ctx.gradients = gradients  # type: ignore[attr-defined]
        return loss

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None, None]:
        if ctx.gradients is None:  # type: ignore[attr-defined]
            raise RuntimeError("the gradients of this loss were already returned; compute the loss again")
        (user_gradient, item_gradient), ctx.gradients = ctx.gradients, None  # type: ignore[attr-defined]
        # The loss is usually the first term of a sum, so its own gradient is 1: checking this saves a pass over the
        # catalogue on a CPU; on a GPU the check would have to wait for the device.
        if gradient.is_cuda or gradient != 1:
            user_gradient.mul_(gradient)
            item_gradient.mul_(gradient)
        return user_gradient, item_gradient, None, None, None, None


def _fit_kernels(users: Tensor, dtype: torch.dtype) -> bool:
    """Return whether the kernels can take these factors; float32 products are left to cuBLAS."""
    return dtype == torch.bfloat16 and users.shape[1] <= WIDEST and runs_kernels(users.device)


def _tile_by_tile(
    users: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    first: int,
    dtype: torch.dtype,
    gradients: bool,
    tile_parts: int = 1,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the loss, and its gradients `[N, d]` and `[V, d]` if `gradients` is set."""
    count = len(users)
    rows, size = (count, CUDA_TILE) if users.is_cuda else (ROWS, TILE)
    rows, size, room = max(rows // tile_parts, 1), size // tile_parts, KEPT // tile_parts
    blocks = max(round(count / rows), 1)
    begins = range(first, len(items), size)
    own = items[targets]
    # Rounded like the scores in the partition, which include it, so that rounding makes no loss negative.
    own_scores = (users.to(dtype).float() * own.to(dtype).float()).sum(dim=1).to(dtype).float()
    losses = torch.empty_like(own_scores)
    user_gradient, item_gradient = (torch.zeros_like(users), torch.empty_like(items)) if gradients else (None, None)
    for from_row, to_row in pairwise(count * block // blocks for block in range(blocks + 1)):
        block, wanted = users[from_row:to_row], targets[from_row:to_row]
        factors = F.pad(block, (0, 0, 0, -len(block) % SHAPES)).to(dtype) if dtype != torch.float32 else block
        tiles, kept = _partitions(factors, items, begins, room if gradients else 0)
        tiles = tiles[: len(block)]
        partition = tiles.logsumexp(dim=1)
        losses[from_row:to_row] = partition - own_scores[from_row:to_row]
        if user_gradient is None or item_gradient is None:
            continue
        # softmax over all = softmax within the tile, times the tile's share.
        shares = (tiles - partition[:, None]).exp() / count
        weighted = torch.zeros_like(factors)
        by_target = wanted.argsort()
        edges = torch.tensor([*begins, len(items)], device=wanted.device)
        bounds = torch.searchsorted(wanted[by_target], edges).tolist()
        for index, (begin, share) in enumerate(zip(begins, shares.unbind(dim=1), strict=True)):
            tile = items[begin : begin + size].to(dtype)
            probabilities = kept[index] if index < len(kept) else (factors @ tile.T).softmax(dim=1)
            inside = by_target[bounds[index] : bounds[index + 1]]
            probabilities[inside, wanted[inside] - begin] = 0
            user_gradient[from_row:to_row].addcmul_((probabilities @ tile)[: len(block)], share[:, None])
            torch.mul(block, share[:, None], out=weighted[: len(block)])
            products = probabilities.T @ weighted
            if from_row:
                item_gradient[begin : begin + size] += products
            else:
                item_gradient[begin : begin + size] = products
        kept.clear()  # before those of the next block are allocated
    if user_gradient is not None and item_gradient is not None:
        # The target's probability minus 1 is added separately: where a model is nearly certain, bfloat16 would lose it.
        missing = torch.expm1(-losses)[:, None] / count
        user_gradient.addcmul_(own, missing)
        item_gradient[:first] = 0
        item_gradient.index_put_((targets,), users * missing, accumulate=True)  # deterministic on CUDA, too
    return losses.mean(), user_gradient, item_gradient


def _partitions(factors: Tensor, items: Tensor, begins: range, room: int) -> tuple[Tensor, list[Tensor]]:
    """Return the log-partition of each tile, `[N, tiles]`, and the probabilities of the first tiles that fit `room`.

    Tiles of `items` begin at `begins`; `room` is in bytes. Products are computed in the dtype of `factors`.
    """
    partitions, kept = [], []
    for begin in begins:
        scores = (factors @ items[begin : begin + begins.step].to(factors.dtype).T).float()
        within = scores.softmax(dim=1)
        # The largest probability is that of the largest score, and at least 1 over the tile's items.
        partitions.append(scores.amax(dim=1) - within.amax(dim=1).log())
        room -= within.numel() * factors.dtype.itemsize
        if room >= 0:
            kept.append(within.to(factors.dtype))
    return torch.stack(partitions, dim=1), kept
