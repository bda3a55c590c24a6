"""Training samples as windows over the flat arrays; nothing is copied until a batch is gathered.

A window is a run of at most `max_length` inputs that ends at some position, together with how many of its
last positions are to be predicted from. The two ways to make samples differ in nothing else:

- `prefix`: one window per training target, which predicts from its last position alone (as RecBole does);
- `packed`: windows that predict from every position in one pass. A history of up to `max_length` inputs is one
  window. A longer one is covered by windows whose ends lie `max_length // 2` apart, and each predicts only from the
  positions that the window before it did not have, so that every target is predicted exactly once and from
  its whole history or at least half of `max_length`.

Either way the targets are the same, and a batch holds about `batch_size` of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split

POOL_BATCHES = 4
"""Batches are cut from shuffled pools of so many, sorted by length: less padding, at the price that a batch's lengths
span about a quarter of all lengths. A larger pool would make batches of one length, and of in-batch negatives that
are all as old as their anchor."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Histories and what follows them.

    `predicted [B, L]` marks the positions to predict from, `targets [N]` holds the item that follows each of
    them, in row-major order.
    """

    histories: Histories
    predicted: Tensor
    targets: Tensor
    target_providers: Tensor
    """int64 `[N]`: their providers."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a split's training part, by the flat position after their last input."""

    ends: NDArray[np.int64]
    """The position of each window's newest target, one after its newest input."""
    fresh: NDArray[np.int64]
    """How many of the window's last positions are predicted from."""
    offsets: NDArray[np.int64]
    max_length: int

    @property
    def targets(self) -> int:
        """Number of training targets in an epoch."""
        return int(self.fresh.sum())

    def batches(self, batch_size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return an epoch's batches as window indices, shuffled, about `batch_size` targets each."""
        order = rng.permutation(len(self.ends))
        pool = np.cumsum(self.fresh[order]) // (batch_size * POOL_BATCHES)
        _, begins = self._users_and_begins(order)
        order = order[np.lexsort((self.ends[order] - begins, pool))]
        batch = (np.cumsum(self.fresh[order]) - 1) // batch_size
        batches = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
        return [batches[i] for i in rng.permutation(len(batches))]

    def gather(self, sequences: ResidentSequences, chosen: NDArray[np.int64]) -> Batch:
        """Return the batch of the windows `chosen`."""
        users, begins = self._users_and_begins(chosen)
        ends, fresh = self.ends[chosen], self.fresh[chosen]
        histories = sequences.gather(users, begins, ends)
        steps = np.arange(histories.items.shape[1])
        lengths = (ends - begins)[:, None]
        predicted = (steps < lengths) & (steps >= lengths - fresh[:, None])
        positions = (begins[:, None] + steps + 1)[predicted]
        return Batch(histories, sequences.to_device(predicted), *sequences.at(positions))

    def _users_and_begins(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        users = np.searchsorted(self.offsets, self.ends[chosen], side="right") - 1
        return users, np.maximum(self.offsets[users], self.ends[chosen] - self.max_length)


def prefix_windows(data: PreparedDataset, split: Split, max_length: int) -> Windows:
    """Return one window per training target: all of the training part but each user's first interaction."""
    ends = np.flatnonzero(data.ranges(data.offsets[:-1] + 1, split.train_ends))
    return Windows(ends, np.ones_like(ends), np.asarray(data.offsets), max_length)


def packed_windows(data: PreparedDataset, split: Split, max_length: int) -> Windows:
    """Return windows that together predict every training target once."""
    starts = np.asarray(data.offsets[:-1])
    inputs = np.maximum(split.train_ends - starts - 1, 0)
    stride = max(1, max_length // 2)
    later = np.maximum(-(-(inputs - max_length) // stride), 0)
    windows = np.where(inputs > 0, 1 + later, 0)
    user = np.repeat(np.arange(data.num_users), windows)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
    reach = np.minimum(max_length + nth * stride, inputs[user])
    before = np.where(nth > 0, max_length + (nth - 1) * stride, 0)
    return Windows(starts[user] + reach, reach - before, np.asarray(data.offsets), max_length)
