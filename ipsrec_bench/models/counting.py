"""Helpers of the counting models: popularity, tables of rows of unequal length, and merging picks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def popularity(items: NDArray[np.int32], num_items: int) -> Tensor:
    """Return float64 `[items + 1]`: each item's share of the interactions, strictly below 1.

    As a background it lies below every pick that scores 1 or more; added to integer scores it breaks their ties.
    """
    return torch.from_numpy(np.bincount(items, minlength=num_items + 1) / (len(items) + 1))


def largest(
    row: NDArray[np.int64], member: NDArray[np.int64], value: NDArray[np.float64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the `most` entries of largest value in each row, rows ascending; ties go to the lower member."""
    order = np.lexsort((member, -value, row))
    row, member, value = row[order], member[order], value[order]
    sizes = np.unique(row, return_counts=True)[1]
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = place < most
    return row[kept], member[kept], value[kept]


class Rows(nn.Module):
    """A table of rows of unequal length: row r holds `members` and `values` from `offsets[r]` to `offsets[r + 1]`."""

    offsets: Tensor
    members: Tensor
    values: Tensor

    def __init__(self) -> None:
        """Start without rows."""
        super().__init__()
        nothing = torch.zeros(0, dtype=torch.int64)
        for name, table in (("offsets", nothing), ("members", nothing), ("values", nothing.double())):
            self.register_buffer(name, table)

    def fill(
        self, row: NDArray[np.integer], member: NDArray[np.integer], value: NDArray[np.float64], num_rows: int
    ) -> None:
        """Store entries `[n]`, which must be sorted by `row`."""
        self.offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_rows))]))
        self.members = torch.from_numpy(member.astype(np.int64))
        self.values = torch.from_numpy(value.astype(np.float64))

    def count(
        self,
        row: NDArray[np.integer],
        member: NDArray[np.integer],
        num_rows: int,
        num_members: int,
        most: int | None = None,
    ) -> None:
        """Fill the table with the count of each pair, keeping only the `most` frequent of each row."""
        pairs, counts = np.unique(row.astype(np.int64) * num_members + member, return_counts=True)
        entries = pairs // num_members, pairs % num_members, counts.astype(np.float64)
        row, member, value = largest(*entries, most) if most else entries
        self.fill(row, member, value, num_rows)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the entries of `rows [n]`, concatenated: the index into `rows`, the members and the values."""
        begins = self.offsets[rows]
        sizes = self.offsets[rows + 1] - begins
        index = torch.repeat_interleave(sizes)
        ends = torch.cumsum(sizes, dim=0)
        entry = torch.arange(len(index), device=rows.device) + (begins - ends + sizes)[index]
        return index, self.members[entry], self.values[entry]


def merge(rows: Tensor, ids: Tensor, scores: Tensor, num_ids: int, how: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, ids and scores with each (row, id) once, its scores reduced by `how`: "sum" or "amax"."""
    pairs, place = torch.unique(rows * (num_ids + 1) + ids, return_inverse=True)
    joined = torch.zeros(len(pairs), dtype=torch.float64, device=rows.device)
    joined.scatter_reduce_(0, place, scores.double(), how, include_self=False)
    return pairs // (num_ids + 1), pairs % (num_ids + 1), joined
