"""Histories as some public code lays them out: padded on the left, with positions that count from the newest item."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.batches import Histories


def positions_of(histories: Histories, *, backward: bool) -> Tensor:
    """Return each place's position: `[L]` counted from the oldest item, or `[B, L]` backward from the newest one."""
    steps = torch.arange(histories.items.shape[1], device=histories.items.device)
    return (histories.newest - steps).clamp(min=0) if backward else steps


def padded_left(histories: Histories, width: int) -> Histories:
    """Move the padding to the left and fill it up to `width`, as real items with the id 0 at time 0."""
    length = histories.items.shape[1]
    steps = torch.arange(width, device=histories.items.device) - (width - histories.lengths)[:, None]
    real, places = steps >= 0, steps.clamp(0, length - 1)
    moved = {
        name: torch.where(real, ids.gather(1, places), 0)
        for name in ("items", "providers", "times")
        if (ids := getattr(histories, name)) is not None
    }
    return replace(histories, lengths=torch.full_like(histories.lengths, width), **moved)


def padded_right(states: Tensor, histories: Histories) -> Tensor:
    """Return the states `[B, W, d]` of `padded_left(histories, W)` at the places of `histories`, `[B, L, d]`."""
    width = states.shape[1]
    steps = torch.arange(histories.items.shape[1], device=states.device)
    places = (steps + (width - histories.lengths)[:, None]).clamp(max=width - 1)
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))


def similar(users: Tensor, *, cosine: bool, temperature: float) -> Tensor:
    """Return user vectors whose product with item vectors is their score over `temperature`.

    With `cosine`, the item vectors must have length 1.
    """
    users = F.normalize(users, dim=-1) if cosine else users
    return users if temperature == 1 else users / temperature
