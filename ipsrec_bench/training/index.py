"""Lookups in the training interactions of a split, for tasks. It holds no held-out interaction."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Split
from ipsrec_bench.models.api import TrainingLog


class TrainingIndex:
    """Lookups in the training interactions; each is built when it is first asked for."""

    def __init__(self, data: PreparedDataset, sequences: ResidentSequences, split: Split, max_length: int) -> None:
        """Take the data, and the maximum length of a history."""
        self._data, self._sequences, self._split, self.max_length = data, sequences, split, max_length
        self.num_items, self.num_users, self.num_providers = data.num_items, data.num_users, data.num_providers

    @cached_property
    def log(self) -> TrainingLog:
        """The training interactions, one entry each, ordered by user, then time."""
        inside = self._split.trained(self._data)
        users = np.repeat(np.arange(self._data.num_users), np.diff(self._data.offsets))
        data = self._data
        items, providers, times = data.items[inside], data.providers[inside], data.times[inside]
        return TrainingLog(users[inside], items, providers, times, data.times_per_second)

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """The training interactions of each item, int64 `[items + 1]`."""
        return np.bincount(self.log.items, minlength=self.num_items + 1)

    @cached_property
    def item_providers(self) -> NDArray[np.int64]:
        """The provider with which each item occurs most often in training, as `TrainingLog.item_providers`."""
        return self.log.item_providers(self.num_items)

    @cached_property
    def _missing_before(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each distinct training item of each user: how many smaller items the user lacks, and the users' bounds.

        The number is increased by the user's number times the number of items, so that all are in ascending order.
        """
        pairs = np.unique(self.log.users * (self.num_items + 1) + self.log.items)
        users, items = np.divmod(pairs, self.num_items + 1)
        begins = np.searchsorted(users, np.arange(self.num_users + 1))
        return users * self.num_items + items - 1 - (np.arange(len(pairs)) - begins[users]), begins

    def other_items(self, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return, for each of `users [N]`, an item without a training interaction of the user, drawn uniformly.

        A user who has all items gets any of them.
        """
        missing, begins = self._missing_before
        had = begins[users + 1] - begins[users]
        had = np.where(had == self.num_items, 0, had)
        # The nth item that the user lacks has n + 1 for its place among them, and the user's smaller items before it.
        nth = rng.integers(self.num_items - had)
        smaller = np.searchsorted(missing, users * self.num_items + nth, side="right") - begins[users]
        found: NDArray[np.int64] = 1 + nth + np.where(had > 0, smaller, 0)
        return found

    @cached_property
    def _targets_by_item(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the training targets ordered by their item, and where each item's begin, `[items + 2]`."""
        data = self._data
        positions = np.flatnonzero(data.ranges(data.offsets[:-1] + 1, self._split.train_ends))
        items = np.asarray(data.items)[positions]
        order = np.argsort(items, kind="stable")
        return positions[order], np.searchsorted(items[order], np.arange(self.num_items + 2))

    def same_target(self, items: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return, for each of `items [N]`, the position of a training target that is the same item, drawn uniformly.

        Raises:
            ValueError: one of the items is no training target.
        """
        positions, begins = self._targets_by_item
        counts = begins[items + 1] - begins[items]
        if not counts.all():
            raise ValueError("an item is no training target")
        found: NDArray[np.int64] = positions[begins[items] + rng.integers(counts)]
        return found

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """The rank of each training target among those of its item, by flat position; -1 at other positions."""
        positions, begins = self._targets_by_item
        ranks = np.full(len(self._data.items), -1, dtype=np.int64)
        ranks[positions] = np.arange(len(positions)) - np.repeat(begins[:-1], np.diff(begins))
        return ranks

    def another_of_same_target(self, positions: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return, for each training target at flat `positions [N]`, the position of another one that is the same item.

        It is drawn uniformly from all others. A target whose item is no other training target gives itself.

        Raises:
            ValueError: a position is not that of a training target.
        """
        targets, begins = self._targets_by_item
        items, own = np.asarray(self._data.items)[positions], self._ranks[positions]
        if (own < 0).any():
            raise ValueError("a position is not that of a training target")
        others = begins[items + 1] - begins[items] - 1
        drawn = rng.integers(np.maximum(others, 1))
        found: NDArray[np.int64] = targets[begins[items] + drawn + ((drawn >= own) & (others > 0))]
        return found

    def histories_before(self, positions: NDArray[np.int64]) -> Histories:
        """Return the histories before the interactions at flat `positions [N]`, cut to the maximum length.

        Raises:
            ValueError: a position is not that of a training target.
        """
        users = np.searchsorted(self._data.offsets, positions, side="right") - 1
        if (positions >= self._split.train_ends[users]).any() or (positions <= self._data.offsets[users]).any():
            raise ValueError("a position is not that of a training target")
        begins = np.maximum(self._data.offsets[users], positions - self.max_length)
        return self._sequences.gather(users, begins, positions)
