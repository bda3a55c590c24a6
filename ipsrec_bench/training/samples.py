"""Training samples as windows over the flat arrays; nothing is copied until a batch is gathered.

Most tasks are computed on training targets and the histories before them; this is about those first.

A window is a run of at most `max_length` inputs that ends at some position, together with the number of its
last positions to predict from. The two kinds of samples differ only in their windows:

- `prefix`: one window per training target, which predicts from its last position alone (as RecBole does);
- `packed`: windows that predict from every position in one pass. A history of up to `max_length` inputs is one
  window. A longer one is cut into windows, each predicting only from positions that no other predicts from, so every
  target is predicted exactly once in an epoch, from its whole history or from more than `min_context` inputs. Ends
  of windows are `max_length - min_context` apart, at places drawn anew for every user and epoch. Over the epochs a
  target is predicted from contexts of many lengths up to `max_length`; a user's newest target always has the longest.
  Positions count from the beginning of the window, as they count from that of the history in ranking.

Either way the targets are the same, and a batch holds about `batch_size` of them.

Two other kinds of samples have no targets: the training part of a history (`history_windows`), and a single training
interaction (`interaction_windows`). A batch holds `batch_size` of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.models.stages import Samples

POOL_BATCHES = 4
"""Number of batches per pool. Batches are cut from shuffled pools sorted by length: this saves padding, but a batch's
lengths span only about a quarter of all lengths. A larger pool would make batches of one length, with in-batch
negatives that are all as old as their anchor."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Histories and their targets; without targets, the other tensors are empty."""

    histories: Histories
    predicted: Tensor
    """int64 `[N]`: the positions to predict from, as flat indices into `[B, L]`, ascending."""
    targets: Tensor
    """int64 `[N]`: the item that follows each of them."""
    target_providers: Tensor
    """int64 `[N]`: their providers."""
    newest: NDArray[np.int64] | None = None
    """The flat position of each history's newest target, `[B]`, by which tasks look up training interactions. None if
    there are no targets, or if the histories are not those of a dataset."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a split's training part, by the flat position after their last input."""

    ends: NDArray[np.int64]
    """The position of each window's newest target, one after its newest input."""
    fresh: NDArray[np.int64]
    """Number of the window's last positions that are predicted from."""
    offsets: NDArray[np.int64]
    max_length: int
    have_targets: bool = True
    """Whether a window predicts the next item from its last positions. If not, `fresh` counts it as one sample, and its
    newest input is as far as a task may see."""

    @property
    def targets(self) -> int:
        """Number of training targets in an epoch; of windows, where they have no targets."""
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
        if not self.have_targets:
            nothing = torch.empty(0, dtype=torch.int64, device=sequences.device)
            return Batch(sequences.gather(users, begins, ends, ask_at=ends - 1), nothing, nothing, nothing)
        histories = sequences.gather(users, begins, ends)
        width = histories.items.shape[1]
        row = np.repeat(np.arange(len(chosen)), fresh)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(fresh) - fresh, fresh)
        position = (ends - fresh)[row] + nth  # the flat position of the input that is predicted from
        predicted = sequences.to_device(row * width + position - begins[row])
        return Batch(histories, predicted, *sequences.at(position + 1), newest=ends)

    def _users_and_begins(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        newest = self.ends[chosen] if self.have_targets else self.ends[chosen] - 1  # a position of the user's own
        users = np.searchsorted(self.offsets, newest, side="right") - 1
        return users, np.maximum(self.offsets[users], self.ends[chosen] - self.max_length)


def windows_of(
    samples: Samples,
    data: PreparedDataset,
    split: Split,
    max_length: int,
    *,
    packing: np.random.Generator | None = None,
    min_context: int = 0,
    stride: float = 1.0,
) -> Windows:
    """Return the windows of a stage with these `samples`.

    Args:
        samples: what a batch consists of.
        data: the sequences.
        split: their split.
        max_length: maximum length of a history.
        packing: draws the places where packed histories are cut; None for targets as prefixes.
        min_context: as in `packed_windows`.
        stride: as in `history_windows`.
    """
    if samples == "histories":
        return history_windows(data, split, max_length, stride)
    if samples == "interactions":
        return interaction_windows(data, split)
    if packing is None:
        return prefix_windows(data, split, max_length)
    return packed_windows(data, split, max_length, min_context, packing)


def prefix_windows(data: PreparedDataset, split: Split, max_length: int) -> Windows:
    """Return one window per training target: every training interaction except each user's first."""
    ends = np.flatnonzero(data.ranges(data.offsets[:-1] + 1, split.train_ends))
    return Windows(ends, np.ones_like(ends), np.asarray(data.offsets), max_length)


def history_windows(data: PreparedDataset, split: Split, max_length: int, stride: float = 1.0) -> Windows:
    """Return windows without targets over the training part of each history, the newest ones full.

    They are `stride` (a share of `max_length`) apart. With 1, they hold every training interaction exactly once. Below
    1 they overlap, and the oldest one is full, too.
    """
    lengths = split.train_ends - data.offsets[:-1]
    step = max(int(stride * max_length), 1)
    windows = np.where(lengths > 0, 1 - (-np.maximum(lengths - max_length, 0) // step), 0)
    user = np.repeat(np.arange(data.num_users), windows)
    nth = (np.cumsum(windows)[user] - 1) - np.arange(len(user))  # counted from the newest, which is 0
    reach = lengths[user] - nth * step
    if step < max_length:
        reach = np.maximum(reach, np.minimum(lengths[user], max_length))
    ends = data.offsets[:-1][user] + reach
    return Windows(ends, np.ones_like(ends), np.asarray(data.offsets), max_length, have_targets=False)


def interaction_windows(data: PreparedDataset, split: Split) -> Windows:
    """Return a window without targets for every training interaction, which holds only that interaction."""
    ends = np.flatnonzero(split.trained(data)) + 1
    return Windows(ends, np.ones_like(ends), np.asarray(data.offsets), 1, have_targets=False)


def packed_windows(
    data: PreparedDataset, split: Split, max_length: int, min_context: int, rng: np.random.Generator
) -> Windows:
    """Return windows that predict every training target exactly once; `rng` draws where longer histories are cut.

    A `min_context` of `max_length` or more counts as `max_length - 1`: a window for each target beyond the first.
    """
    starts = np.asarray(data.offsets[:-1])
    inputs = np.maximum(split.train_ends - starts - 1, 0)
    stride = max(max_length - min_context, 1)
    # Windows end at the last input and at places `stride` apart before it, the first of these 1 to `stride` before it.
    # The oldest window is the last of them that holds its whole history, and predicts from all its positions.
    shift = rng.integers(1, stride, size=len(inputs), endpoint=True)
    later = np.where(inputs > max_length, 1 + np.maximum(-(-(inputs - shift - max_length) // stride), 0), 0)
    windows = np.where(inputs > 0, 1 + later, 0)
    user = np.repeat(np.arange(data.num_users), windows)
    nth = (np.cumsum(windows)[user] - 1) - np.arange(len(user))  # counted from the newest, which is 0
    reach = np.where(nth == 0, inputs[user], inputs[user] - shift[user] - (nth - 1) * stride)
    oldest = nth == windows[user] - 1
    before = np.where(oldest, 0, inputs[user] - shift[user] - nth * stride)
    return Windows(starts[user] + reach, reach - before, np.asarray(data.offsets), max_length)
