"""The filter of ranking on CUDA: a Triton kernel that computes, compares and counts scores, and stores none."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128
"""Number of users, and of items, in a block of scores."""
STEP = 16
"""Elements of a vector that are multiplied at a time; more would need more registers than a thread has."""
PROGRAMS = 1024
"""Approximate number of programs that pass over the items at once: enough for all multiprocessors of a large GPU."""
ROOM = 1 << 22
"""Maximum number of near-tie pairs that the kernel can return."""


def screen(
    users: Tensor, items: Tensor, targets: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return how many rivals score above `high`, and the pairs of user and rival that score from `low` to `high`.

    Scores are sums of d products in float32, in any order. Rivals are all items except row 0 and the target. Return
    None if there are more than `ROOM` pairs, for example if a model gives all items the same score. There must be at
    least one user.

    Args:
        users: float32 `[B, d]`.
        items: float32 `[items + 1, d]`.
        targets: int64 `[B]`.
        low: float32 `[B]`.
        high: float32 `[B]`.

    Returns:
        int64 `[B]`; rows and items of the pairs, int64 `[n]` each, in no order.
    """
    (count, d), end = users.shape, len(items)
    rows, blocks = triton.cdiv(count, BLOCK), triton.cdiv(end - 1, BLOCK)
    each = triton.cdiv(blocks, max(PROGRAMS // rows, 1))  # blocks of items that a program passes over
    parts = triton.cdiv(blocks, each)
    above = targets.new_empty(parts, count, dtype=torch.int32)
    pairs = targets.new_empty(2, ROOM, dtype=torch.int32)
    found = targets.new_zeros(1)
    with torch.cuda.device_of(users):  # type: ignore[no-untyped-call]
        _screen[rows, parts](
            users.contiguous(), items.contiguous(), targets.int(), low, high, above, pairs[0], pairs[1], found,
            count, end, each, **shape(d),
        )  # fmt: skip
    near = int(found)
    if near > ROOM:
        return None
    row, item = pairs[:, :near].long()
    return above.sum(dim=0), row, item


def shape(d: int) -> dict[str, int]:
    """Return the constants that the kernel is compiled for, given vectors of width `d`."""
    return {"d": d, "STEP": STEP, "BLOCK": BLOCK, "ROOM": ROOM, "num_warps": 8, "num_stages": 2}


@triton.jit  # type: ignore[untyped-decorator]
def _screen(  # type: ignore[no-untyped-def]
    users,  # [count, d]
    items,  # [end, d]
    targets,  # [count]
    low,  # [count]
    high,  # [count]
    above,  # [parts, count]
    near_rows,  # [ROOM]
    near_items,  # [ROOM]
    found,  # [1]: the number of pairs, of which at most ROOM are written
    count,
    end,
    each,  # blocks in a part
    d: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
    ROOM: tl.constexpr,
) -> None:
    row, part = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    target = tl.load(targets + row, mask=row < count, other=0)
    lowest = tl.load(low + row, mask=row < count, other=float("inf"))  # above every score, for rows beyond the end
    highest = tl.load(high + row, mask=row < count, other=float("inf"))
    total = tl.zeros([BLOCK], tl.int32)
    begin = 1 + part * each * BLOCK
    for start in range(begin, tl.minimum(begin + each * BLOCK, end), BLOCK):
        item = start + tl.arange(0, BLOCK)
        score = tl.zeros([BLOCK, BLOCK], tl.float32)
        for step in range(0, d, STEP):
            column = step + tl.arange(0, STEP)
            user = tl.load(
                users + row[:, None] * d + column[None, :],
                mask=(row < count)[:, None] & (column < d)[None, :],
                other=0.0,
            )
            block = tl.load(
                items + item.to(tl.int64)[:, None] * d + column[None, :],
                mask=(item < end)[:, None] & (column < d)[None, :],
                other=0.0,
            )
            score = tl.dot(user, tl.trans(block), score, input_precision="ieee")
        rival = (item < end)[None, :] & (item[None, :] != target[:, None])
        total += tl.sum((rival & (score > highest[:, None])).to(tl.int32), 1)
        near = rival & (score >= lowest[:, None]) & (score <= highest[:, None])
        if tl.max(tl.max(near.to(tl.int32), 1), 0) > 0:  # most blocks have none
            slot = tl.atomic_add(
                found + tl.zeros([BLOCK, BLOCK], tl.int32), tl.full([BLOCK, BLOCK], 1, tl.int64), mask=near
            )
            kept = near & (slot < ROOM)
            tl.store(near_rows + slot, tl.broadcast_to(row[:, None], [BLOCK, BLOCK]), mask=kept)
            tl.store(near_items + slot, tl.broadcast_to(item[None, :], [BLOCK, BLOCK]), mask=kept)
    tl.store(above + part * count + row, total, mask=row < count)
