"""Candidates that exist at the time of a target: which items, and how many of them score at least so much."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.lifetimes import Lifetimes, Moments

Pairs = tuple[Tensor, Tensor]
"""Rows of a batch and items, int64 `[n]` each."""


@dataclass(frozen=True, eq=False)
class Block:
    """Items that are scored together for some rows of a batch."""

    items: Tensor
    """int64 `[T]`."""
    begin: int
    """The first of the rows for which an item of the block exists; the rows of a batch are ordered by step."""
    end: int
    """The row after the last of them."""
    hidden: Tensor | None
    """bool `[end - begin, T]`: whether an item does not exist at a row's step; None if each exists for every row."""


@dataclass(frozen=True, eq=False)
class Timetable:
    """When every item exists, in steps: step s is the s-th of the distinct times of the targets.

    Items are listed by the step from which on they exist. Those that exist at no step are not.
    """

    items: NDArray[np.int64]
    """The listed items, `[n]`."""
    first: NDArray[np.int32]
    """The first step at which a listed item exists, ascending."""
    last: NDArray[np.int32]
    """The last one."""
    first_of: Tensor
    """int32 `[items + 1]`: the same by item, on the model's device. Padding and items that are not listed begin after
    their end."""
    last_of: Tensor
    steps: NDArray[np.int32]
    """The step of each target."""

    @classmethod
    def of(cls, lifetimes: Lifetimes, times: Moments, device: torch.device) -> "Timetable":
        """Order the items of `lifetimes` for targets at `times`."""
        distinct, steps = np.unique(times, return_inverse=True)
        first = np.searchsorted(distinct, lifetimes.first).astype(np.int32)
        last = (np.searchsorted(distinct, lifetimes.last, side="right") - 1).astype(np.int32)
        listed = np.flatnonzero(first <= last)
        listed = listed[np.argsort(first[listed], kind="stable")]
        first_of, last_of = (
            torch.from_numpy(np.concatenate([[padding], side]).astype(np.int32)).to(device)
            for padding, side in ((0, first), (-1, last))
        )
        return cls(listed + 1, first[listed], last[listed], first_of, last_of, steps.astype(np.int32))

    def blocks(self, rows: NDArray[np.int32], size: int) -> Iterator[Block]:
        """Yield blocks of at most `size` items, which together have every pair of a row and an item that exists for it.

        Memory for all blocks together is a few numbers for each item; only one block has a number for each pair.

        Args:
            rows: the step of each row of a batch, ascending.
            size: maximum number of items in a block.
        """
        device = self.first_of.device
        steps = torch.from_numpy(rows).to(device)[:, None]
        meeting = np.flatnonzero((self.first <= rows[-1]) & (self.last >= rows[0]))
        throughout = (self.first[meeting] <= rows[0]) & (self.last[meeting] >= rows[-1])
        for places, everywhere in ((meeting[throughout], True), (meeting[~throughout], False)):
            for start in range(0, len(places), size):
                place = places[start : start + size]
                items = torch.from_numpy(self.items[place]).to(device)
                if everywhere:
                    yield Block(items, 0, len(rows), None)
                    continue
                begin = int(np.searchsorted(rows, self.first[place[0]]))
                end = int(np.searchsorted(rows, self.last[place].max(), side="right"))
                if begin < end:
                    now = steps[begin:end]
                    yield Block(items, begin, end, (self.first_of[items] > now) | (self.last_of[items] < now))

    def count(self, scores: NDArray[np.float64], own: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
        """Count the items that exist at each target's step by their scores, which are the same for all targets.

        Args:
            scores: `[items + 1]`; row 0, padding, is not an item.
            own: `[targets]`, the score that each target is ranked by.

        Returns:
            `higher` and `equal`, `[targets]`: items with a higher score than `own`, and with the same; the target may
            be among them.
        """
        levels, level_of = np.unique(scores[1:], return_inverse=True)
        level = level_of[self.items - 1].astype(np.int32)
        by_end = np.argsort(self.last, kind="stable")
        begun = np.searchsorted(self.first, self.steps, side="right")
        ended = np.searchsorted(self.last[by_end], self.steps)
        # Those above, then those with at least the same score.
        least = np.concatenate([np.searchsorted(levels, own, side="right"), np.searchsorted(levels, own)])
        found = count_at_least(level, np.tile(begun, 2), least)
        found -= count_at_least(level[by_end], np.tile(ended, 2), least)
        above, at_least = np.split(found, 2)
        return above, at_least - above


@dataclass(frozen=True, eq=False)
class Existing:
    """The items that exist at the times of a batch's rows."""

    timetable: Timetable
    rows: NDArray[np.int32]
    """The step of each row, ascending."""

    def holds(self, rows: Tensor, items: Tensor) -> Tensor:
        """Return bool `[n]`: whether each of `items [n]` exists for its row; both int64."""
        steps = torch.from_numpy(self.rows).to(rows.device)[rows]
        return (self.timetable.first_of[items] <= steps) & (steps <= self.timetable.last_of[items])

    def among(self, pairs: Pairs | None) -> Pairs | None:
        """Return those of `pairs` whose item exists for its row."""
        if pairs is None:
            return None
        there = self.holds(*pairs)
        return pairs[0][there], pairs[1][there]

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield the blocks of at most `size` items that exist for some row."""
        return self.timetable.blocks(self.rows, size)


def count_at_least(values: NDArray[np.int32], ends: NDArray[np.int64], least: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each query i, how many of the first `ends[i]` of `values` are at least `least[i]`.

    By a wavelet matrix (Claude, Navarro and Ordonez, 2015), one bit of the values after the other, so that memory is a
    few numbers for each value and query.

    Args:
        values: whole numbers from 0, `[n]`.
        ends: `[queries]`, 0 to n.
        least: `[queries]`, from 0.
    """
    bits = int(max(values.max(initial=0), least.max(initial=0))).bit_length()
    begins, found = np.zeros_like(ends), np.zeros(len(ends), dtype=np.int64)
    for bit in reversed(range(bits)):
        is_one = (values & (1 << bit)).astype(bool)
        ones = np.zeros(len(values) + 1, dtype=np.int32)
        np.cumsum(is_one, out=ones[1:])
        one_begins, one_ends = ones[begins], ones[ends]
        wants_one = (least >> bit) & 1 == 1
        found += np.where(wants_one, 0, one_ends - one_begins)
        zeros = len(values) - ones[-1]
        begins = np.where(wants_one, zeros + one_begins, begins - one_begins)
        ends = np.where(wants_one, zeros + one_ends, ends - one_ends)
        values = np.concatenate([values[~is_one], values[is_one]])
    return found + ends - begins
