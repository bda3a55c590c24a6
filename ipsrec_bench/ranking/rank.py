"""Exact ranks over the whole catalogue, counted tile by tile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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

Pairs = tuple[Tensor, Tensor]
"""Rows of a batch and items, int64 `[n]` each."""


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

    On a CPU, large tasks are ranked in parallel, with one batch of users in each of torch's threads.

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
    begins = np.maximum(data.offsets[targets.users], targets.positions - max_length)
    # Batches of similar lengths, because a batch is as wide as its longest history.
    order = np.argsort(targets.positions - begins, kind="stable")
    with torch.inference_mode():
        longest = longest_vector(model.item_vectors().float()) if isinstance(model, SequentialModel) else None
        background = Background.of(model.background) if isinstance(model, CountingModel) else None
    higher = np.empty(len(order), dtype=np.int32)
    ties = np.empty(len(order), dtype=np.int32)
    on_cpu = sequences.device.type == "cpu"
    at_once = max((USERS_ENCODED if on_cpu else USERS_ENCODED_ON_CUDA) // tile_parts, 1)
    users_per_batch = max((USERS_PER_BATCH if on_cpu else USERS_PER_BATCH_ON_CUDA) // tile_parts, 1)
    tile = (ITEMS_PER_TILE if on_cpu else ITEMS_PER_TILE_ON_CUDA) // tile_parts

    @torch.inference_mode()
    def rank(chosen: NDArray[np.int64]) -> None:
        positions, users = targets.positions[chosen], targets.users[chosen]
        wanted, _ = sequences.at(positions)
        masked = None
        if mask_history:
            masked = _pairs(sequences.gather(users, data.offsets[users], positions).items, wanted)
        if background is not None:
            assert isinstance(model, CountingModel)
            picked = model.pick(sequences.gather(users, begins[chosen], positions))
            counts = count_picked_ranks(picked, background, wanted, masked)
        else:
            assert isinstance(model, SequentialModel)
            parts = [slice(i, i + at_once) for i in range(0, len(chosen), at_once)]
            histories = (sequences.gather(users[part], begins[chosen[part]], positions[part]) for part in parts)
            user = torch.cat([model.encode(history, every_position=False).user for history in histories])
            counts = count_ranks(user, model.item_vectors(), wanted, masked, tile, longest)
        higher[chosen], ties[chosen] = (count.cpu().numpy() for count in counts)

    large = on_cpu and len(order) * data.num_items >= THREADS_PAY
    threads = torch.get_num_threads() if large else 1
    rounds = -(-len(order) // (users_per_batch * threads))
    batches = [batch for batch in np.array_split(order, max(rounds, 1) * threads) if len(batch)]
    if threads == 1:
        for batch in batches:
            rank(batch)
    else:
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for _ in pool.map(rank, batches):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
    if mask_history:
        count_as_misses(higher, ties, repeated(data, targets), data.num_items)
    return Ranks(np.asarray(targets.users), higher, ties)


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
        masked: pairs of row and item that are not candidates, without duplicates and without targets.
        tile: number of candidates scored at a time; the default depends on the device. At most `[B, tile]` scores are
            in memory at once; with a kernel, none.
        longest: the norm of the longest item vector, if it is known.

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
    for above, *pairs in _screened(users, items, targets, own - margin, own + margin, tile):
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
    marks = torch.empty(len(users), tile, device=users.device)  # 0 or 1: on a CPU three times cheaper than booleans
    for begin, first, last in zip(begins, bounds[:-1], bounds[1:], strict=True):
        candidates = items[begin : begin + tile]
        torch.matmul(users, candidates.T, out=scores[:, : len(candidates)])
        scores[:, len(candidates) :] = -torch.inf
        inside = by_target[first:last]
        scores[inside, targets[inside] - begin] = -torch.inf  # the target is not its own rival
        above = torch.gt(scores, high, out=marks).sum(dim=1)
        open_rows = (torch.ge(scores, low, out=marks).sum(dim=1) != above).nonzero()[:, 0]
        unsure = scores[open_rows]
        near = ((unsure >= low[open_rows]) & (unsure <= high[open_rows])).nonzero()
        yield above.long(), open_rows[near[:, 0]], begin + near[:, 1]


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
    not_higher = torch.searchsorted(background.ordered, own, right=True)
    higher = len(background.ordered) - not_higher
    ties = not_higher - torch.searchsorted(background.ordered, own)
    ties -= (background.scores[targets] == own).long()  # the target is not its own rival
    higher -= (background.scores[targets] > own).long()
    rows, items, scores = rows[~hit], items[~hit], scores[~hit]
    level, before = own[rows], background.scores[items]
    for now, sign in ((scores, 1), (before, -1)):
        higher += sign * torch.bincount(rows[now > level], minlength=len(own))
        ties += sign * torch.bincount(rows[now == level], minlength=len(own))
    return higher, ties


def _check_finite(scores: Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise ModelError("the model's scores are not finite numbers, so its targets cannot be ranked")


def exact_scores(users: Tensor, items: Tensor) -> Tensor:
    """Return the dot products `[n]` of the rows of `users` and `items`, `[n, d]` each, summed in float64."""
    return (users.double() * items.double()).sum(dim=1).float()
