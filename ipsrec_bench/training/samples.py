"""Training samples as windows over the flat arrays; nothing is copied until a batch is gathered.

A window is a run of at most `max_length` inputs that ends at some position, together with how many of its
last positions are to be predicted from. The two ways to make samples differ in nothing else:

- `prefix`: one window per training target, which predicts from its last position alone (as RecBole does);
- `packed`: windows that predict from every position in one pass. A history of up to `max_length` inputs is one
  window. A longer one is cut into windows, each predicting only from the positions that no other does, so that every
  target is predicted exactly once in an epoch, from its whole history or from more than `min_context` inputs. Ends
  of windows lie `max_length - min_context` apart, at places drawn anew for every user and epoch: over the epochs a
  target is predicted from contexts of many lengths up to `max_length`, a user's newest from the longest alone.
  Positions count from the window's beginning, as they do in a history that is ranked.

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
    """Histories and what follows them."""

    histories: Histories
    predicted: Tensor
    """int64 `[N]`: the positions to predict from, counted through the rows of `[B, L]`, ascending."""
    targets: Tensor
    """int64 `[N]`: the item that follows each of them."""
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
        width = histories.items.shape[1]
        row = np.repeat(np.arange(len(chosen)), fresh)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(fresh) - fresh, fresh)
        position = (ends - fresh)[row] + nth  # the flat position of the input that is predicted from
        predicted = sequences.to_device(row * width + position - begins[row])
        return Batch(histories, predicted, *sequences.at(position + 1))

    def _users_and_begins(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        users = np.searchsorted(self.offsets, self.ends[chosen], side="right") - 1
        return users, np.maximum(self.offsets[users], self.ends[chosen] - self.max_length)


def prefix_windows(data: PreparedDataset, split: Split, max_length: int) -> Windows:
    """Return one window per training target: all of the training part but each user's first interaction."""
    ends = np.flatnonzero(data.ranges(data.offsets[:-1] + 1, split.train_ends))
    return Windows(ends, np.ones_like(ends), np.asarray(data.offsets), max_length)


def packed_windows(
    data: PreparedDataset, split: Split, max_length: int, min_context: int, rng: np.random.Generator
) -> Windows:
    """Return windows that together predict every training target once, longer histories cut at places drawn by `rng`.

    A `min_context` of `max_length` or more counts as `max_length - 1`: a window for each target beyond the first.
    """
    starts = np.asarray(data.offsets[:-1])
    inputs = np.maximum(split.train_ends - starts - 1, 0)
    stride = max(max_length - min_context, 1)
    # Windows end at the last input and at places `stride` apart before it, the first of these 1 to `stride` before it.
    # The oldest window is the last of them to hold its whole history, of whose positions it predicts from all.
    shift = rng.integers(1, stride, size=len(inputs), endpoint=True)
    later = np.where(inputs > max_length, 1 + np.maximum(-(-(inputs - shift - max_length) // stride), 0), 0)
    windows = np.where(inputs > 0, 1 + later, 0)
    user = np.repeat(np.arange(data.num_users), windows)
    nth = (np.cumsum(windows)[user] - 1) - np.arange(len(user))  # counted from the newest, which is 0
    reach = np.where(nth == 0, inputs[user], inputs[user] - shift[user] - (nth - 1) * stride)
    oldest = nth == windows[user] - 1
    before = np.where(oldest, 0, inputs[user] - shift[user] - nth * stride)
    return Windows(starts[user] + reach, reach - before, np.asarray(data.offsets), max_length)
