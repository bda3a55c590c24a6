"""Batches of histories, gathered from the flat arrays on demand."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipsrec_bench.data.prepared import PreparedDataset


@dataclass(frozen=True, eq=False)
class Histories:
    """B histories of at most L interactions, padded on the right with 0."""

    users: Tensor
    """int64 `[B]`."""
    items: Tensor
    """int64 `[B, L]`."""
    providers: Tensor
    """int64 `[B, L]`."""
    lengths: Tensor
    """int64 `[B]`, 1 to L."""
    times: Tensor | None = None
    """float64 `[B, L]`: times of the interactions in seconds, 0 at padding. Numbers in a file, whose unit is unknown,
    count as seconds. None unless the model declares `uses_times`."""
    next_times: Tensor | None = None
    """float64 `[B]`: the time of the interaction that follows the history, which is when the next item is asked for.
    None unless the model declares `uses_times`."""

    @property
    def newest(self) -> Tensor:
        """int64 `[B, 1]`: the last real position of each history."""
        return (self.lengths - 1)[:, None]

    def last(self, states: Tensor) -> Tensor:
        """Return the states at each history's last real position, `[B, d]`, from `states [B, L, d]`."""
        return states[torch.arange(len(states), device=states.device), self.lengths - 1]


class ResidentSequences:
    """A dataset's flat arrays on one device, from which batches are gathered by index arithmetic."""

    def __init__(self, data: PreparedDataset, device: torch.device, *, times: bool = False) -> None:
        """Copy the arrays of `data` to `device`: 8 bytes per interaction, and 8 more with `times`."""
        self.device = device
        self._items = torch.from_numpy(np.array(data.items)).to(device)
        self._providers = torch.from_numpy(np.array(data.providers)).to(device)
        self.has_times = times
        self._times = torch.from_numpy(np.array(data.times / data.times_per_second)).to(device) if times else None

    def gather(
        self,
        users: NDArray[np.int64],
        begins: NDArray[np.int64],
        ends: NDArray[np.int64],
        *,
        ask_at: NDArray[np.int64] | None = None,
    ) -> Histories:
        """Return the histories made of the flat positions `begins[i]` up to, not including, `ends[i]`.

        L is the length of the longest. `next_times` are the times at the positions `ask_at`, by default `ends`: the
        position of a history's target.
        """
        lengths, begin = self.to_device(ends - begins), self.to_device(begins)
        steps = torch.arange(int((ends - begins).max()), device=self.device)
        real = steps < lengths[:, None]
        flat = torch.where(real, begin[:, None] + steps, 0)
        return Histories(
            users=self.to_device(users),
            items=torch.where(real, self._items[flat], 0).long(),
            providers=torch.where(real, self._providers[flat], 0).long(),
            lengths=lengths,
            times=None if self._times is None else torch.where(real, self._times[flat], 0.0),
            next_times=None if self._times is None else self._times[self.to_device(ends if ask_at is None else ask_at)],
        )

    def at(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return int64 item ids and provider ids at flat positions."""
        place = self.to_device(positions)
        return self._items[place].long(), self._providers[place].long()

    def to_device(self, array: NDArray[np.generic]) -> Tensor:
        """Return `array` as a tensor on the sequences' device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
