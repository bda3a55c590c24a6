"""Exact ranks over the whole catalogue, or the items that exist at the time of a target, counted tile by tile."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.repeats import count_as_misses
from ipsrec_bench.data.split import Targets, repeated
from ipsrec_bench.errors import ModelError
from ipsrec_bench.kernels.support import runs_kernels
from ipsrec_bench.models.api import CountingModel, Model, PickedScores, SequentialModel
from ipsrec_bench.ranking.available import Block, Existing, Pairs, Timetable
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.suite.schema import MaskHistory

USERS_PER_BATCH, USERS_PER_BATCH_ON_CUDA = 512, 4096
"""Maximum number of users scored together. On a GPU, launching the work of 512 users takes as long as doing it."""
USERS_ENCODED, USERS_ENCODED_ON_CUDA = 64, 1024
"""Number of users whose histories are encoded together: 64 users' states stay in a CPU's cache."""
ITEMS_PER_TILE, ITEMS_PER_TILE_ON_CUDA = 2048, 16_384
"""Number of items scored at a time: a batch's scores stay in a CPU's cache, and a float32 can count them."""
THREADS_PAY = 1 << 25
"""Minimum number of pairs of user and item for which ranking one batch per thread is faster."""
PAIRS_AT_A_TIME = 1 << 16


def rank_targets(
    model: Model,
    data: PreparedDataset,
    sequences: ResidentSequences,
    targets: Targets,
    max_length: int,
    *,
    mask_history: MaskHistory = False,
    tile_parts: int = 1,
) -> Ranks:
    """Rank every target after its user's history, cut to its newest `max_length` interactions.

    On a CPU, large tasks are ranked in parallel, with one batch of users in each of torch's threads. If targets have
    lifetimes of items, the candidates are the items that exist at the time of the target, and the target itself.

    Args:
        model: scores every item for every user.
        data: the sequences.
        sequences: the same, on the model's device.
        targets: what to rank, and after which history.
        max_length: maximum length of the history that the model sees.
        mask_history: exclude the items of the user's whole history from the candidates. A target among them is a
            miss; with `true` the split has no such target.
        tile_parts: number of parts into which batches of users and tiles of items are cut if memory is short.

    Raises:
        ModelError: a score is not a finite number.
    """
    model.eval()
    on_cpu = sequences.device.type == "cpu"
    sizes = (
        (USERS_PER_BATCH, USERS_ENCODED, ITEMS_PER_TILE)
        if on_cpu
        else (USERS_PER_BATCH_ON_CUDA, USERS_ENCODED_ON_CUDA, ITEMS_PER_TILE_ON_CUDA)
    )
    users_per_batch, at_once, tile = (max(size // tile_parts, 1) for size in sizes)
    ranker = _Ranker(model, data, sequences, targets, max_length, bool(mask_history), _Sizes(at_once, tile))
    large = on_cpu and len(targets.users) * data.num_items >= THREADS_PAY
    threads = torch.get_num_threads() if large else 1
    rounds = -(-len(targets.users) // (users_per_batch * threads))
    batches = [batch for batch in np.array_split(ranker.order(), max(rounds, 1) * threads) if len(batch)]
    if threads == 1:
        for batch in batches:
            ranker.rank(batch)
    else:
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for _ in pool.map(ranker.rank, batches):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
    higher, ties = ranker.counts()
    if mask_history:
        count_as_misses(higher, ties, repeated(data, targets), data.num_items)
    return Ranks(np.asarray(targets.users), higher, ties)


@dataclass(frozen=True)
class _Sizes:
    encoded: int
    """Number of users whose histories are encoded together."""
    tile: int
    """Number of items scored at a time."""


@dataclass(frozen=True, eq=False)
class _Ranker:
    """Ranks batches of targets, and collects the counts of all."""

    model: Model
    data: PreparedDataset
    sequences: ResidentSequences
    targets: Targets
    max_length: int
    masks: bool
    """Whether the items of a user's history are no candidates."""
    sizes: _Sizes

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """Where each history begins."""
        return np.maximum(self.data.offsets[self.targets.users], self.targets.positions - self.max_length)

    @cached_property
    def timetable(self) -> Timetable | None:
        """When items exist; None if all are candidates."""
        lifetimes, times = self.targets.lifetimes, self.data.times[self.targets.positions]
        return None if lifetimes is None else Timetable.of(lifetimes, times, self.sequences.device)

    @cached_property
    def longest(self) -> Tensor | None:
        """The norm of the longest item vector."""
        if not isinstance(self.model, SequentialModel):
            return None
        with torch.inference_mode():
            return longest_vector(self.model.item_vectors().float())

    @cached_property
    def background(self) -> "Background | None":
        """A counting model's scores of the items that it does not pick."""
        return Background.of(self.model.background) if isinstance(self.model, CountingModel) else None

    @cached_property
    def own(self) -> NDArray[np.float64]:
        """The score of each target; filled by `rank` where the rest is counted for all targets together."""
        return np.empty(len(self.targets.users))

    @cached_property
    def found(self) -> NDArray[np.int32]:
        """Items above each target, and ties, `[2, targets]`; filled by `rank`."""
        return np.empty((2, len(self.targets.users)), dtype=np.int32)

    def order(self) -> NDArray[np.int64]:
        """Return the targets in the order of batches.

        Batches are of similar lengths, because a batch is as wide as its longest history; or of similar times, because
        items that exist at no time of a batch need no scores.
        """
        # Threads share these, so they are computed before.
        _ = self.longest, self.background, self.own, self.found
        lengths = self.targets.positions - self.begins
        return np.argsort(lengths if self.timetable is None else self.timetable.steps, kind="stable")

    @torch.inference_mode()
    def rank(self, chosen: NDArray[np.int64]) -> None:
        """Rank a batch of targets."""
        sequences, positions, users = self.sequences, self.targets.positions[chosen], self.targets.users[chosen]
        wanted, _ = sequences.at(positions)
        masked = existing = None
        if self.masks:
            masked = _pairs(sequences.gather(users, self.data.offsets[users], positions).items, wanted)
        if self.timetable is not None:
            existing = Existing(self.timetable, self.timetable.steps[chosen])
            masked = existing.among(masked)
        if self.background is not None:
            assert isinstance(self.model, CountingModel)
            picked = self.model.pick(sequences.gather(users, self.begins[chosen], positions))
            own, higher, ties = move_picked(picked, self.background, wanted, masked, existing)
            if existing is None:
                counted = self.background.count(own)
                higher, ties = higher + counted[0], ties + counted[1]
            else:
                self.own[chosen] = own.cpu().numpy()
        else:
            assert isinstance(self.model, SequentialModel)
            vectors, tile = self.model.item_vectors(), self.sizes.tile
            higher, ties = count_ranks(self._encoded(chosen), vectors, wanted, masked, tile, self.longest, existing)
        self.found[:, chosen] = torch.stack([higher, ties]).cpu().numpy()

    def counts(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the items above each target and the ties, `[targets]` each, when all batches are ranked."""
        higher, ties = self.found
        if self.background is not None and self.timetable is not None:
            counted = self.timetable.count(self.background.scores.cpu().numpy(), self.own)
            higher, ties = ((one + more).astype(np.int32) for one, more in zip(self.found, counted, strict=True))
        return higher, ties

    def _encoded(self, chosen: NDArray[np.int64]) -> Tensor:
        assert isinstance(self.model, SequentialModel)
        at_once = self.sizes.encoded
        by_length = np.argsort((self.targets.positions - self.begins)[chosen], kind="stable")
        users = []
        for part in (chosen[by_length[i : i + at_once]] for i in range(0, len(chosen), at_once)):
            histories = self.sequences.gather(self.targets.users[part], self.begins[part], self.targets.positions[part])
            users.append(self.model.encode(histories, every_position=False).user)
        return torch.cat(users)[self.sequences.to_device(np.argsort(by_length))]


def _pairs(histories: Tensor, targets: Tensor) -> Pairs:
    """Return the distinct items of each row of `histories [B, L]`, without 0 and without the row's target.

    A target is not its own rival; a masked target is counted as a miss after the others are ranked.
    """
    ordered = histories.sort(dim=1).values
    fresh = ordered != ordered.roll(1, dims=1)
    fresh[:, 0] = True
    rows, places = (fresh & (ordered > 0) & (ordered != targets[:, None])).nonzero(as_tuple=True)
    return rows, ordered[rows, places]


def count_ranks(
    users: Tensor,
    items: Tensor,
    targets: Tensor,
    masked: Pairs | None = None,
    tile: int | None = None,
    longest: Tensor | None = None,
    existing: Existing | None = None,
) -> tuple[Tensor, Tensor]:
    """Count, for every user, the items that score higher than the target and the others that tie with it.

    A score is the dot product, rounded to float32 only once, at the end (`exact_scores`). Matrix products do not give
    that: their last bits depend on the shape of the product, so even equal vectors may get different scores. The
    float32 product is a filter: it decides pairs whose score differs from the target's by more than the error bound;
    the few others are rescored in float64. Given the vectors, ranks do not depend on the tile, the batch or the number
    of threads.

    Args:
        users: `[B, d]`.
        items: `[items + 1, d]`; row 0, padding, is not a candidate.
        targets: int64 `[B]`, from 1.
        masked: pairs of row and item that are not candidates, without duplicates and without targets; with `existing`,
            only of items that exist for their row.
        tile: number of candidates scored at a time; the default depends on the device. At most `[B, tile]` scores are
            in memory at once; with a kernel, none.
        longest: the norm of the longest item vector, if it is known.
        existing: the candidates of each user, in the order of their times; all items if None.

    Returns:
        `higher [B]` and `ties [B]`, int64.

    Raises:
        ModelError: a vector is not finite, or too long for finite scores.
    """
    users, items = users.float(), items.float()
    d = users.shape[1]
    # |u . v| <= |u| |v|: one product of norms bounds every score, and with it the error of a sum of d products.
    norms = (users.norm(dim=1, dtype=torch.float64) * (longest_vector(items) if longest is None else longest)).float()
    _check_finite(norms)
    own = exact_scores(users, items[targets])
    # In units of 2^-24 norms: d for a product's sum, 1 for the exact score's rounding, 1 for the bound's, 2 to spare
    # for second-order terms. A product or sum that underflows loses less than the smallest normal number instead.
    margin = norms * ((d + 4) * 2.0**-24) + 2 * d * torch.finfo(torch.float32).tiny
    higher = torch.zeros(len(users), dtype=torch.int64, device=users.device)
    ties = torch.zeros_like(higher)
    tile = tile or (ITEMS_PER_TILE if users.device.type == "cpu" else ITEMS_PER_TILE_ON_CUDA)
    bounds = own - margin, own + margin
    if existing is None:
        found = _screened(users, items, targets, *bounds, tile)
    else:
        found = _screened_blocks(users, items, targets, *bounds, existing.blocks(tile))
    for above, *pairs in found:
        higher += above
        for row, item in zip(*(torch.split(part, PAIRS_AT_A_TIME) for part in pairs), strict=True):
            exact = exact_scores(users[row], items[item])
            higher += torch.bincount(row[exact > own[row]], minlength=len(users))
            ties += torch.bincount(row[exact == own[row]], minlength=len(users))
    for row, item in zip(*(torch.split(pairs, PAIRS_AT_A_TIME) for pairs in masked or ()), strict=True):
        exact = exact_scores(users[row], items[item])
        higher -= torch.bincount(row[exact > own[row]], minlength=len(users))
        ties -= torch.bincount(row[exact == own[row]], minlength=len(users))
    return higher, ties


def _screened(
    users: Tensor, items: Tensor, targets: Tensor, low: Tensor, high: Tensor, tile: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield how many rivals score above `high`, `[B]`, and the pairs of row and rival from `low` to `high`, by tile.

    On CUDA, one kernel does this for all items, unless there are more pairs than it has room for.
    """
    if runs_kernels(users.device):
        from ipsrec_bench.kernels.screen import screen  # Triton comes with torch for CUDA only

        found = screen(users, items, targets, low, high)
        if found is not None:
            yield found
            return
    low, high = low[:, None], high[:, None]
    by_target = targets.argsort()
    begins = range(1, len(items), tile)
    bounds = torch.searchsorted(targets[by_target], torch.tensor([*begins, len(items)], device=targets.device)).tolist()
    scores = torch.empty(len(users), tile, device=users.device)
    marks = torch.empty_like(scores)
    for begin, first, last in zip(begins, bounds[:-1], bounds[1:], strict=True):
        candidates = items[begin : begin + tile]
        torch.matmul(users, candidates.T, out=scores[:, : len(candidates)])
        scores[:, len(candidates) :] = -torch.inf
        inside = by_target[first:last]
        scores[inside, targets[inside] - begin] = -torch.inf  # the target is not its own rival
        above, rows, columns = _decided(scores, low, high, marks)
        yield above, rows, begin + columns


def _screened_blocks(
    users: Tensor, items: Tensor, targets: Tensor, low: Tensor, high: Tensor, blocks: Iterable[Block]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the same as `_screened`, for the rivals that exist, block by block."""
    scores, marks = torch.empty(0, device=users.device), torch.empty(0, device=users.device)
    for block in blocks:
        rows = slice(block.begin, block.end)
        pairs = (block.end - block.begin, len(block.items))
        if pairs[0] * pairs[1] > len(scores):
            scores, marks = torch.empty(2, pairs[0] * pairs[1], device=users.device)
        here, there = (part[: pairs[0] * pairs[1]].view(pairs) for part in (scores, marks))
        torch.matmul(users[rows], items[block.items].T, out=here)
        if block.hidden is not None:
            here.masked_fill_(block.hidden, -torch.inf)
        ordered, place = block.items.sort()
        found = torch.searchsorted(ordered, targets[rows]).clamp_(max=len(ordered) - 1)
        inside = (ordered[found] == targets[rows]).nonzero()[:, 0]
        here[inside, place[found[inside]]] = -torch.inf  # the target is not its own rival
        above, near, columns = _decided(here, low[rows, None], high[rows, None], there)
        total = torch.zeros(len(users), dtype=torch.int64, device=users.device)
        total[rows] = above
        yield total, block.begin + near, block.items[columns]


def _decided(scores: Tensor, low: Tensor, high: Tensor, marks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many `scores [B, T]` are above `high [B, 1]`, `[B]`, and rows and columns of those from `low` to it.

    `marks` is a buffer like `scores`; it becomes 0 or 1: on a CPU three times cheaper than booleans.
    """
    above = torch.gt(scores, high, out=marks).sum(dim=1)
    open_rows = (torch.ge(scores, low, out=marks).sum(dim=1) != above).nonzero()[:, 0]
    unsure = scores[open_rows]
    near = ((unsure >= low[open_rows]) & (unsure <= high[open_rows])).nonzero()
    return above.long(), open_rows[near[:, 0]], near[:, 1]


def longest_vector(vectors: Tensor) -> Tensor:
    """Return the largest norm of the rows of `vectors [n, d]`, in float64, where no float32's square underflows."""
    parts = torch.split(vectors, PAIRS_AT_A_TIME)
    return torch.stack([part.norm(dim=1, dtype=torch.float64).max() for part in parts]).max()


@dataclass(frozen=True, eq=False)
class Background:
    """A counting model's scores of the items that it does not pick."""

    scores: Tensor
    """float64 `[items + 1]`; row 0, padding, is not a candidate."""
    ordered: Tensor
    """float64 `[items]`, ascending."""

    @classmethod
    def of(cls, scores: Tensor) -> "Background":
        """Order the scores once for all users.

        Raises:
            ModelError: a score is not a finite number.
        """
        _check_finite(scores)
        return cls(scores, scores[1:].sort().values)

    def count(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many items have a higher score than each of `own [B]`, and how many have the same."""
        not_higher = torch.searchsorted(self.ordered, own, right=True)
        return len(self.ordered) - not_higher, not_higher - torch.searchsorted(self.ordered, own)


def count_picked_ranks(
    picked: PickedScores, background: Background, targets: Tensor, masked: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """Count, for every user, the items that score higher than the target and the others that tie with it.

    All items are first counted with their background score, by bisection; picked ones are then moved to their own.

    Args:
        picked: the scores of the picked items.
        background: the scores of all others.
        targets: int64 `[B]`, from 1.
        masked: pairs of row and item that are not candidates, without duplicates and without targets.

    Returns:
        `higher [B]` and `ties [B]`, int64.

    Raises:
        ModelError: a score is not a finite number.
    """
    own, higher, ties = move_picked(picked, background, targets, masked)
    all_higher, all_ties = background.count(own)
    return all_higher + higher, all_ties + ties


def move_picked(
    picked: PickedScores,
    background: Background,
    targets: Tensor,
    masked: Pairs | None = None,
    existing: Existing | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each target's own score, and what changes in the counts of candidates by their background scores.

    The target is taken out of the counts, picked items get their own scores, and masked ones lose theirs.

    Args:
        picked: the scores of the picked items.
        background: the scores of all others.
        targets: int64 `[B]`, from 1.
        masked: pairs of row and item that are not candidates, without duplicates and without targets; with `existing`,
            only of items that exist for their row.
        existing: the items that are counted for each user; all if None.

    Returns:
        `own [B]`, float64, and what to add to `higher [B]` and `ties [B]`, int64.

    Raises:
        ModelError: a score is not a finite number.
    """
    _check_finite(picked.scores)
    rows, items, scores = picked.rows, picked.items, picked.scores
    if masked is not None:
        size = len(background.scores)
        candidates = ~torch.isin(rows * size + items, masked[0] * size + masked[1])
        gone = torch.full_like(masked[0], -torch.inf, dtype=torch.float64)
        rows = torch.cat([rows[candidates], masked[0]])
        items = torch.cat([items[candidates], masked[1]])
        scores = torch.cat([scores[candidates], gone])
    own = background.scores[targets]
    hit = items == targets[rows]
    own[rows[hit]] = scores[hit]
    counted = torch.ones_like(targets, dtype=torch.bool)
    moved = ~hit
    if existing is not None:
        counted = existing.holds(torch.arange(len(targets), device=targets.device), targets)
        moved &= existing.holds(rows, items)
    # The target is not its own rival.
    higher = -((background.scores[targets] > own) & counted).long()
    ties = -((background.scores[targets] == own) & counted).long()
    rows, items, scores = rows[moved], items[moved], scores[moved]
    level, before = own[rows], background.scores[items]
    for now, sign in ((scores, 1), (before, -1)):
        higher += sign * torch.bincount(rows[now > level], minlength=len(own))
        ties += sign * torch.bincount(rows[now == level], minlength=len(own))
    return own, higher, ties


def _check_finite(scores: Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise ModelError("the model's scores are not finite numbers, so its targets cannot be ranked")


def exact_scores(users: Tensor, items: Tensor) -> Tensor:
    """Return the dot products `[n]` of the rows of `users` and `items`, `[n, d]` each, summed in float64."""
    return (users.double() * items.double()).sum(dim=1).float()
