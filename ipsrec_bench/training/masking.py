"""What tasks hide in histories, and the negatives that they compare it with.

Everything is computed for a whole batch at once. Draws come from numpy's generator, whose numbers do not depend on the
device.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories


@dataclass(frozen=True, eq=False)
class Segments:
    """Histories with a hidden segment, that segment, and one of another history, all at the same places."""

    context: Histories
    """The mask token fills the segment."""
    positive: Histories
    """The mask token fills everything but the segment."""
    negative: Histories
    """As the positive, with a segment of another history in its place."""


def real_places(histories: Histories) -> Tensor:
    """Return bool `[B, L]`, true where there is an interaction."""
    return torch.arange(histories.items.shape[1], device=histories.items.device) < histories.lengths[:, None]


def uniform(like: Tensor, rng: np.random.Generator, *shape: int) -> Tensor:
    """Return float64 of `shape`, drawn uniformly from [0, 1), on the device of `like`."""
    return torch.from_numpy(rng.random(shape)).to(like.device)


def draw_each(histories: Histories, ratio: float, rng: np.random.Generator) -> Tensor:
    """Return bool `[B, L]`, true with probability `ratio` at every real place."""
    return (uniform(histories.items, rng, *histories.items.shape) < ratio) & real_places(histories)


def draw_share(histories: Histories, ratio: float, rng: np.random.Generator) -> Tensor:
    """Return bool `[B, L]`, true at `ratio` of the real places of each history, rounded, and at one at least."""
    drawn = uniform(histories.items, rng, *histories.items.shape).masked_fill(~real_places(histories), 2.0)
    count = (histories.lengths * ratio + 0.5).floor().clamp(min=1)
    return drawn.argsort(dim=1).argsort(dim=1) < count[:, None]


def hide(histories: Histories, hidden: Tensor, mask_token: int) -> Histories:
    """Return the histories with the mask token, of provider 0, where `hidden [B, L]` is true."""
    items, providers = histories.items, histories.providers
    return replace(histories, items=items.masked_fill(hidden, mask_token), providers=providers.masked_fill(hidden, 0))


def items_outside(items: Tensor, rows: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Return an item for each of `rows [N]`, drawn uniformly from the items that this row of `items [B, L]` lacks.

    A row that has all of the `count` items gets item 1 or the last one.
    """
    # Number r of the items that a row lacks is r plus the number of its distinct items that are smaller. These are
    # those whose value, less the number of distinct items before them, is at most r.
    sorted_items = items.sort(dim=1).values
    distinct = sorted_items > 0
    distinct[:, 1:] &= sorted_items[:, 1:] != sorted_items[:, :-1]
    before = distinct.cumsum(dim=1)
    shifted = torch.where(distinct, sorted_items - before + 1, count + 1)
    lacking = (count - before[:, -1])[rows].clamp(min=1)
    number = 1 + (uniform(items, rng, len(rows)) * lacking).long()
    return (number + (shifted[rows] <= number[:, None]).sum(dim=1)).clamp(max=count)


def draw_segments(histories: Histories, mask_token: int, rng: np.random.Generator) -> Segments:
    """Draw a segment of every history of at least two items, and one of another history; others are left out.

    A segment has 1 to n // 2 of the n items, uniformly. The negative one is drawn uniformly from all segments of its
    length in the other histories, or from the same one where no other is long enough.
    """
    chosen = (histories.lengths > 1).nonzero()[:, 0]
    lengths, items = histories.lengths[chosen], histories.items
    draws = uniform(items, rng, 3, len(items))[:, chosen]
    size = 1 + (draws[0] * (lengths // 2)).long()
    begin = (draws[1] * (lengths - size + 1)).long()
    # Of every history, the segments of these sizes, numbered through all histories.
    ends = (histories.lengths - size[:, None] + 1).clamp(min=0).cumsum(dim=1)
    own = lengths - size + 1
    others = ends[:, -1] - own
    number = (draws[2] * torch.where(others > 0, others, own)).long()
    before_own = ends.gather(1, chosen[:, None])[:, 0] - own
    number += torch.where((others == 0) | (number >= before_own), torch.where(others == 0, before_own, own), 0)
    row = torch.searchsorted(ends, number[:, None], right=True)[:, 0]
    other_begin = number - torch.where(row > 0, ends.gather(1, (row - 1).clamp(min=0)[:, None])[:, 0], 0)
    places = torch.arange(items.shape[1], device=items.device)
    inside = (places >= begin[:, None]) & (places < (begin + size)[:, None])
    real = places < lengths[:, None]
    of_other = (places - begin[:, None] + other_begin[:, None]).clamp(0, items.shape[1] - 1)
    kept, taken = items[chosen], items[row[:, None], of_other]
    nothing = torch.zeros_like(kept)

    def made(inner: Tensor | int, outer: Tensor | int) -> Histories:
        ids = torch.where(real, torch.where(inside, inner, outer), nothing)
        return Histories(histories.users[chosen], ids, nothing, lengths)

    return Segments(made(mask_token, kept), made(kept, mask_token), made(taken, mask_token))
