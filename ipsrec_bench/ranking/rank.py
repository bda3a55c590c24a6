"""Exact ranks over the whole catalogue, counted tile by tile."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Targets
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.ranking.metrics import realistic_rank

USERS_PER_BATCH = 512
ITEMS_PER_TILE = 8192


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each user's target stands among all items; users ascending."""

    users: NDArray[np.int64]
    higher: NDArray[np.int32]
    """Items that score strictly higher than the target."""
    ties: NDArray[np.int32]
    """Other items that score the same."""

    @property
    def realistic(self) -> NDArray[np.int64]:
        """The realistic rank, from 1."""
        return realistic_rank(self.higher, self.ties)


@torch.inference_mode()
def rank_targets(
    model: SequentialModel,
    data: PreparedDataset,
    sequences: ResidentSequences,
    targets: Targets,
    max_length: int,
) -> Ranks:
    """Rank every target after its user's history, cut to its newest `max_length` interactions.

    Raises:
        ModelError: a score is not a finite number.
    """
    model.eval()
    items = model.item_vectors()
    begins = np.maximum(data.offsets[targets.users], targets.positions - max_length)
    # Histories of like length together: a batch is as wide as its longest.
    order = np.argsort(targets.positions - begins, kind="stable")
    higher = np.empty(len(order), dtype=np.int32)
    ties = np.empty(len(order), dtype=np.int32)
    for first in range(0, len(order), USERS_PER_BATCH):
        chosen = order[first : first + USERS_PER_BATCH]
        positions = targets.positions[chosen]
        histories = sequences.gather(targets.users[chosen], begins[chosen], positions)
        users = model.encode(histories, every_position=False).user
        counts = count_ranks(users, items, sequences.items_at(positions))
        higher[chosen], ties[chosen] = (count.cpu().numpy() for count in counts)
    return Ranks(np.asarray(targets.users), higher, ties)


def count_ranks(users: Tensor, items: Tensor, targets: Tensor, tile: int = ITEMS_PER_TILE) -> tuple[Tensor, Tensor]:
    """Count, for every user, the items that score higher than the target and the others that tie with it.

    The target is scored anew beside every tile, in the same matrix product as the items that it is compared
    with, so that equal vectors give equal scores. No more than `[B, tile + B]` scores exist at a time.

    Args:
        users: `[B, d]`.
        items: `[items + 1, d]`; row 0, padding, is no candidate.
        targets: int64 `[B]`, from 1.
        tile: candidates scored at a time.

    Returns:
        `higher [B]` and `ties [B]`, int64.

    Raises:
        ModelError: a vector is not finite, or too long for finite scores.
    """
    # |u . v| <= |u| |v|: one product of norms bounds every score.
    if not torch.isfinite(users.norm(dim=1).max() * items.norm(dim=1).max()):
        raise ModelError("the model's scores are not finite numbers, so its targets cannot be ranked")
    own_vectors = items[targets]
    rows = torch.arange(len(users), device=users.device)
    higher = torch.zeros(len(users), dtype=torch.int64, device=users.device)
    ties = torch.zeros_like(higher)
    for begin in range(1, len(items), tile):
        candidates = items[begin : begin + tile]
        scores = users @ torch.cat([candidates, own_vectors]).T
        own = scores[:, len(candidates) :].diagonal()[:, None]
        scores = scores[:, : len(candidates)]
        inside = (targets >= begin) & (targets < begin + len(candidates))
        higher += (scores > own).sum(dim=1)
        ties += (scores == own).sum(dim=1)
        # The target itself was counted wherever its own tile held it.
        self_score = scores[rows[inside], targets[inside] - begin]
        own = own[inside, 0]
        higher[inside] -= (self_score > own).long()
        ties[inside] -= (self_score == own).long()
    return higher, ties
