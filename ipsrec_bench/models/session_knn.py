"""Nearest neighbours among the training histories of other users: the common part of V-SKNN and STAN.

The user's history s is compared with the training histories n of other users. Candidates are the `sample_size` of them
with the newest last interaction among those that share an item with s; the `neighbours` most similar candidates remain,
of equal ones the newer. Each neighbour adds a weight to the score of each of its items.

A training history counts each of its items once, at its last position there; so does s. The user's own training history
is never a neighbour: the literature compares sessions of unknown users, and a history's nearest neighbour is itself.

Products of sparse matrices do the counting. An item keeps its `sample_size` + 1 newest users only, which loses no
candidate: a user among the newest of all candidates is among the newest of each item that it shares.
"""

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import SessionKNNConfig
from ipsrec_bench.models.counting import Rows, largest
from ipsrec_bench.models.pop import Pop

Numbers = NDArray[np.float64]
PAIRS_AT_A_TIME = 1 << 22
"""Maximum number of pairs of a history's item and another user with it, and of items of neighbours, that are counted at
once; about 300 MB."""


@dataclass(frozen=True, eq=False)
class Sessions:
    """Histories to find neighbours for, B of them."""

    lengths: NDArray[np.int64]
    positions: sparse.csr_array
    """`[B, items + 1]`: the last position of each item, from 1."""
    times: Numbers | None
    """`[B]`: the time of the newest interaction, if the model uses times."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of a session and one of its neighbours, P of them, by session."""

    lengths: NDArray[np.int64]
    """`[P]`: lengths of the sessions."""
    similarities: Numbers
    """`[P]`."""
    newest: Numbers
    """`[P]`: position, in the session, of the newest item that it shares with the neighbour."""
    place: Numbers
    """`[P]`: position of that item in the neighbour."""


@dataclass(frozen=True, eq=False)
class _Tables:
    """The training histories; numbered by the time of their last interaction, the newest first."""

    positions: sparse.csr_array
    """`[histories, items + 1]`: the last position of each item in each history, from 1."""
    newest: sparse.csr_array
    """`[items + 1, histories]`: 1 for the newest histories with an item."""


class SessionKNN(Pop):
    """The score of an item is 1 + a sum over the neighbours that have it, divided by the largest such sum."""

    number_of: Tensor
    times: Tensor

    def __init__(self, config: SessionKNNConfig, sizes: Sizes) -> None:
        """Take the numbers of neighbours and of candidates."""
        super().__init__(config, sizes)
        self.neighbours, self.sample_size = config.neighbours, config.sample_size
        self.histories = Rows()
        self.register_buffer("number_of", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("times", torch.zeros(0, dtype=torch.float64))
        self._tables: tuple[Tensor, _Tables] | None = None

    @abstractmethod
    def position_weights(self, positions: Numbers, lengths: Numbers) -> Numbers:
        """Return the weights of a session's items at `positions [n]` in sessions of `lengths [n]`."""

    def similarities(self, products: Numbers, histories: NDArray[np.int64], times: Numbers | None) -> Numbers:  # noqa: ARG002 (for derived classes)
        """Return the similarities `[n]` of sessions and training histories.

        Args:
            products: the sums of the weights of the items that they share, `[n]`.
            histories: numbers of the training histories.
            times: times of the sessions' newest interactions, if the model uses times.
        """
        return products

    @abstractmethod
    def item_weights(self, matches: Matches, pair: NDArray[np.int64], at: Numbers) -> Numbers:
        """Return what items of neighbours add to their scores, `[n]`.

        Args:
            matches: the pairs of session and neighbour.
            pair: for each item, its pair among the `matches`.
            at: position of each item in its neighbour.
        """

    def fit(self, log: TrainingLog) -> None:
        """Number the training histories by time and store their items with their last positions."""
        super().fit(log)
        users, begins, lengths = np.unique(log.users, return_index=True, return_counts=True)
        last = log.seconds[begins + lengths - 1]
        order = np.lexsort((users, -last))
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        number_of = np.full(int(users.max()) + 1, -1, dtype=np.int64)
        number_of[users] = number
        self.number_of, self.times = torch.from_numpy(number_of), torch.from_numpy(last[order])
        position = np.arange(len(log.users)) - np.repeat(begins, lengths) + 1
        keys = number_of[log.users] * (self.items + 1) + log.items
        keys, newest = np.unique(keys[::-1], return_index=True)
        row, item = np.divmod(keys, self.items + 1)
        self.histories.fill(row, item, position[::-1][newest].astype(np.float64), len(users))

    def pick(self, histories: Histories) -> PickedScores:
        """Pick the items of each history's neighbours."""
        tables, sessions = self._built(), self._sessions(histories)
        candidates = sessions.positions.astype(bool) @ np.diff(tables.newest.indptr)
        size = tables.positions.nnz // tables.positions.shape[0] + 1
        cost = np.cumsum(candidates + size * np.minimum(candidates, self.neighbours))
        cuts = np.searchsorted(cost, np.arange(0, cost[-1], PAIRS_AT_A_TIME), side="right")
        bounds = np.unique([0, *cuts, len(sessions.lengths)]).tolist()
        owners = histories.users.cpu().numpy()
        own = np.where(owners < len(self.number_of), self.number_of.cpu().numpy()[owners % len(self.number_of)], -1)
        blocks = [self._scores(tables, sessions, own, slice(begin, end)) for begin, end in pairwise(bounds)]
        row, item, score = (
            torch.from_numpy(np.concatenate(parts)).to(histories.items.device) for parts in zip(*blocks, strict=True)
        )
        # Rounded, so that sums which differ only in the order of their terms are ties.
        return PickedScores(row, item, 1.0 + score.float().double())

    def _sessions(self, histories: Histories) -> Sessions:
        items, lengths = histories.items.cpu().numpy(), histories.lengths.cpu().numpy()
        rows, places = np.nonzero(items)
        keys = rows * (self.items + 1) + items[rows, places]
        keys, newest = np.unique(keys[::-1], return_index=True)
        row, item = np.divmod(keys, self.items + 1)
        at = (places[::-1][newest] + 1).astype(np.float64)
        times = None if histories.times is None else histories.last(histories.times).cpu().numpy()
        return Sessions(lengths, _by_rows(row, item, at, (len(items), self.items + 1)), times)

    def _built(self) -> _Tables:
        """Return the tables, which are built from the buffers when they are first needed."""
        if self._tables is None or self._tables[0] is not self.histories.members:
            offsets, members, values = (
                buffer.cpu().numpy()
                for buffer in (self.histories.offsets, self.histories.members, self.histories.values)
            )
            positions = sparse.csr_array((values, members, offsets), shape=(len(offsets) - 1, self.items + 1))
            by_item = sparse.csr_array((np.ones_like(values), members, offsets), shape=positions.shape).T.tocsr()
            place = np.arange(by_item.nnz) - np.repeat(by_item.indptr[:-1], np.diff(by_item.indptr))
            kept = place <= self.sample_size
            row = np.repeat(np.arange(by_item.shape[0]), np.diff(by_item.indptr))[kept]
            newest = _by_rows(row, by_item.indices[kept], by_item.data[kept], by_item.shape)
            self._tables = self.histories.members, _Tables(positions, newest)
        return self._tables[1]

    def _scores(
        self, tables: _Tables, sessions: Sessions, own: NDArray[np.int64], rows: slice
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Numbers]:
        """Return rows, items and scores of a block of sessions."""
        positions, lengths = sessions.positions[rows], sessions.lengths[rows]
        times = None if sessions.times is None else sessions.times[rows]
        session, neighbour, similarity = self._nearest(tables, positions, lengths, own[rows], times)
        theirs = tables.positions[neighbour]
        ours = positions[session]
        # Both products have the entries of the items that the two share, in one order.
        at_ours, at_theirs = _ones(theirs).multiply(ours).tocsr(), theirs.multiply(_ones(ours)).tocsr()
        newest = np.maximum.reduceat(at_ours.data, at_ours.indptr[:-1]) if len(session) else np.zeros(0)
        is_newest = at_ours.data == np.repeat(newest, np.diff(at_ours.indptr))
        matches = Matches(lengths[session], similarity, newest, at_theirs.data[is_newest])
        pair = np.repeat(np.arange(len(session)), np.diff(theirs.indptr))
        weights = self.item_weights(matches, pair, theirs.data)
        added = sparse.csr_array((weights, theirs.indices, theirs.indptr), shape=theirs.shape)
        each = _by_rows(session, np.arange(len(session)), np.ones(len(session)), (len(lengths), len(session)))
        scores = (each @ added).tocsr()
        largest_of = np.ones(len(lengths))
        found = np.diff(scores.indptr) > 0
        if found.any():
            largest_of[found] = np.maximum.reduceat(scores.data, scores.indptr[:-1][found])
        row = np.repeat(np.arange(len(lengths)), np.diff(scores.indptr))
        return row + rows.start, scores.indices.astype(np.int64), scores.data / largest_of[row]

    def _nearest(
        self,
        tables: _Tables,
        positions: sparse.csr_array,
        lengths: NDArray[np.int64],
        own: NDArray[np.int64],
        times: Numbers | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Numbers]:
        """Return the neighbours of a block of sessions: rows, numbers of histories, and similarities."""
        of_entry = np.repeat(lengths, np.diff(positions.indptr)).astype(np.float64)
        weights = self.position_weights(positions.data, of_entry)
        weighted = sparse.csr_array((weights, positions.indices, positions.indptr), shape=positions.shape)
        products = (weighted @ tables.newest).tocsr()
        products.sort_indices()  # the newest histories first
        row = np.repeat(np.arange(len(lengths)), np.diff(products.indptr))
        others = products.indices != own[row]
        row, history, product = row[others], products.indices[others].astype(np.int64), products.data[others]
        sizes = np.bincount(row, minlength=len(lengths))
        candidate = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < self.sample_size
        row, history, product = row[candidate], history[candidate], product[candidate]
        found = self.similarities(product, history, None if times is None else times[row])
        return largest(row, history, found.astype(np.float32).astype(np.float64), self.neighbours)


def _by_rows(
    row: NDArray[np.int64], column: NDArray[np.integer], value: Numbers, shape: tuple[int, int]
) -> sparse.csr_array:
    """Return the matrix with these entries, which are ordered by row."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))])
    return sparse.csr_array((value, column, offsets), shape=shape)


def _ones(matrix: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
