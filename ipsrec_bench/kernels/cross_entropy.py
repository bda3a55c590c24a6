"""The full-catalogue cross-entropy on CUDA, by two Triton kernels that write no score to memory.

On a GPU the products of the tiles in `softmax.py` take less time than writing and reading their scores. Here a block of
scores lives in registers. One kernel passes over the items as attention passes over keys: the running maximum and sum
give a target's log-partition, the running mean of item vectors its gradient. The other recomputes the scores of a block
of items and sums these items' gradients over all targets. That is 8 d V operations per target, and two exponentials per
score. Each sum has a fixed order, without atomic additions, so gradients are bit-identical on every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)
BLOCK = 64
"""Number of targets, and of items, in a block of scores. A larger one needs more registers than a thread has."""
PROGRAMS = 512
"""Approximate number of programs that pass over the items at once: four for each multiprocessor of an H100."""


def loss_and_gradients(
    users: Tensor, items: Tensor, targets: Tensor, *, first: int, dtype: torch.dtype, gradients: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return what `softmax.full_cross_entropy` defines, and its gradients `[N, d]` and `[V, d]` on request.

    Scores are float32 whatever the factors are; probabilities are rounded to `dtype` before their products. There must
    be at least one target.
    """
    (count, d), end = users.shape, len(items)
    factors, table = users.to(dtype).contiguous(), items.to(dtype).contiguous()
    rows, blocks = triton.cdiv(count, BLOCK), triton.cdiv(end - first, BLOCK)
    each = triton.cdiv(blocks, max(PROGRAMS // rows, 1))  # blocks of items that a program passes over
    parts = triton.cdiv(blocks, each)
    partitions = users.new_empty(parts, count)
    means = users.new_empty(parts, count, d)
    with torch.cuda.device_of(users):  # type: ignore[no-untyped-call]
        _partition_and_mean[rows, parts](factors, table, partitions, means, count, first, end, each, **shape(d))
        partition = partitions.logsumexp(dim=0)
        own = table[targets].float()  # rounded as in the mean, which is close to it where a model is nearly certain
        # A log-partition is above every score, except for rounding in different orders of summation.
        loss = (partition - (factors.float() * own).sum(dim=1)).clamp(min=0).mean()
        if not gradients:
            return loss, None, None
        mean = (means * (partitions - partition).exp()[:, :, None]).sum(dim=0)
        item_gradient = items.new_empty(items.shape)  # contiguous
        item_gradient[:first] = 0
        _item_gradient[(blocks,)](
            factors, table, targets.int(), partition * LOG2_E.value, item_gradient, count, first, end, **shape(d)
        )
    return loss, (mean - own) / count, item_gradient


def shape(d: int) -> dict[str, int]:
    """Return the constants that the kernels are compiled for, given vectors of width `d`.

    `D` is the power of two to which vectors are padded. Warps and pipeline stages are as many as registers and shared
    memory allow.
    """
    wide = max(triton.next_power_of_2(d), 16)
    warps, stages = (4, 3) if wide <= 2 * BLOCK else (8, 2)
    return {"d": d, "D": wide, "BLOCK": BLOCK, "num_warps": warps, "num_stages": stages}


@triton.jit  # type: ignore[untyped-decorator]
def _partition_and_mean(  # type: ignore[no-untyped-def]
    users,  # [count, d]
    items,  # [end, d]
    partitions,  # [parts, count]: the log of the sum of exponentials of the scores of a part of the items
    means,  # [parts, count, d]: the mean of these items' vectors, weighted by those exponentials
    count,
    first,
    end,
    each,  # blocks in a part
    d: tl.constexpr,
    D: tl.constexpr,  # the power of two to which d is padded
    BLOCK: tl.constexpr,
) -> None:
    row, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    part = tl.program_id(1)
    inside = (row < count)[:, None] & (column < d)[None, :]
    at = row[:, None] * d + column[None, :]
    user = tl.load(users + at, mask=inside, other=0.0)
    greatest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mean = tl.zeros([BLOCK, D], tl.float32)
    begin = first + part * each * BLOCK
    for start in range(begin, tl.minimum(begin + each * BLOCK, end), BLOCK):
        item = start + tl.arange(0, BLOCK)
        block = tl.load(
            items + item.to(tl.int64)[:, None] * d + column[None, :],
            mask=(item < end)[:, None] & (column < d)[None, :],
            other=0.0,
        )
        score = tl.dot(user, tl.trans(block), input_precision="ieee")
        score = tl.where((item < end)[None, :], score, float("-inf"))
        above = tl.maximum(greatest, tl.max(score, 1) * LOG2_E)
        weight = tl.exp2(score * LOG2_E - above[:, None])
        kept = tl.exp2(greatest - above)
        total = total * kept + tl.sum(weight, 1)
        mean = tl.dot(weight.to(block.dtype), block, mean * kept[:, None], input_precision="ieee")
        greatest = above
    tl.store(partitions + part * count + row, greatest / LOG2_E + tl.log(total), mask=row < count)
    tl.store(means + part * count * d + at, mean / total[:, None], mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _item_gradient(  # type: ignore[no-untyped-def]
    users,  # [count, d]
    items,  # [end, d]
    targets,  # [count]
    partition,  # [count]
    gradient,  # [end, d], of the mean loss
    count,
    first,
    end,
    d: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    item, column = first + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    inside = (item < end)[:, None] & (column < d)[None, :]
    at = item.to(tl.int64)[:, None] * d + column[None, :]
    block = tl.load(items + at, mask=inside, other=0.0)
    total = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, count, BLOCK):
        row = start + tl.arange(0, BLOCK)
        user = tl.load(
            users + row[:, None] * d + column[None, :],
            mask=(row < count)[:, None] & (column < d)[None, :],
            other=0.0,
        )
        target = tl.load(targets + row, mask=row < count, other=-1)
        log = tl.load(partition + row, mask=row < count, other=0.0)
        score = tl.dot(block, tl.trans(user), input_precision="ieee")
        probability = tl.exp2(score * LOG2_E - log[None, :])
        probability = tl.where(item[:, None] == target[None, :], probability - 1, probability)
        total = tl.dot(probability.to(block.dtype), user, total, input_precision="ieee")
    tl.store(gradient + at, total / count, mask=inside)
