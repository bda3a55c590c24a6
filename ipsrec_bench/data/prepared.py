"""The prepared form of a dataset: one immutable folder of memory-mapped arrays.

```
items.npy      int32, one per interaction, in user-then-time order; 1..items (0 is padding, never stored)
providers.npy  int32, likewise; 1 is the unknown provider, 2.. are known ones
times.npy      int64 or float64, likewise: whole numbers, other numbers, or micro- or nanoseconds since 1970
offsets.npy    int64, users + 1; user u's interactions are items[offsets[u]:offsets[u + 1]]
available_from.npy, available_until.npy    like times, one per item: the first and the last moment at which it exists;
               only where the data have a column for it; the smallest int64, or NaN, for an item without a value
users.parquet, items.parquet, providers.parquet    raw id <-> dense id
meta.json      format, fingerprint, unit of times, statistics, what reading found, source and the sha256 of its files
```
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipsrec_bench.data.lifetimes import FROM, UNTIL, Lifetimes, Moments, lifetimes_of
from ipsrec_bench.data.statistics import DatasetStatistics

UNKNOWN_PROVIDER = 1
PREPARED_FORMAT = 8


@dataclass(frozen=True)
class Reading:
    """Findings about the raw files that readers of the results should know."""

    notes: tuple[str, ...] = ()
    """Sentences, for people."""
    placeholders: dict[str, int] = field(default_factory=dict)
    """Interactions by placeholder for an unknown provider; empty texts are not included."""
    unlisted_actions: int | None = None
    """Interactions with an item that the item table does not list; None without such a table."""
    largest_providers: tuple[tuple[str, int], ...] = ()
    """The known providers with the most interactions, and their numbers of interactions."""
    stickiness_without_largest: float | None = None
    """The stickiness that remains if the first of them counts as unknown."""


@dataclass(frozen=True, eq=False)
class PreparedDataset:
    """A prepared dataset; the arrays are memory-mapped and read-only."""

    name: str
    path: Path
    items: NDArray[np.int32]
    providers: NDArray[np.int32]
    times: NDArray[np.int64] | NDArray[np.float64]
    offsets: NDArray[np.int64]
    num_items: int
    """Items are numbered 1 to `num_items`."""
    num_providers: int
    """Providers are numbered 1 (unknown) to `num_providers`."""
    fingerprint: str
    """sha256 of the arrays: equal fingerprints mean equal sequences at equal times, whose unit is apart."""
    stand_in: bool
    """Whether it is made-up data in the shape of a published dataset."""
    scale: float
    """Share of the users that were read; always 1 for a stand-in, which is generated small."""
    filter: str
    """Which users and items were kept, in words."""
    source: Mapping[str, Any]
    """The settings that it was read with, as plain JSON values."""
    files: Mapping[str, str]
    """sha256 of the raw files by name: the interactions, then the item table if there is one."""
    statistics: DatasetStatistics
    reading: Reading
    times_per_second: int
    """How many units of `times` make a second. The unit of numbers in a file is unknown; they count as seconds."""

    def __reduce__(self) -> tuple[Callable[[str, Path], "PreparedDataset"], tuple[str, Path]]:
        """Pickle the name and the absolute path: a copy in another process maps the same files."""
        return load_prepared, (self.name, self.path.absolute())

    @cached_property
    def lifetimes(self) -> Lifetimes:
        """When each item exists: as columns of the data say or, without them, from its first to its last interaction.

        Read or computed when it is first asked for.
        """
        return lifetimes_of(self._given_lifetimes, self.items, self.times)

    def lifetimes_before(self, end: float) -> Lifetimes:
        """Return `lifetimes` as they are without the interactions at `end` or later."""
        return lifetimes_of(self._given_lifetimes, self.items, self.times, end)

    @property
    def _given_lifetimes(self) -> dict[str, Moments]:
        files = {key: self.path / f"{key}.npy" for key in (FROM, UNTIL)}
        return {key: np.load(file, mmap_mode="r") for key, file in files.items() if file.exists()}

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    def ranges(self, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool `[interactions]`: whether a flat position lies in some `begins[i]` to `ends[i]` (exclusive)."""
        some = ends > begins
        change = np.zeros(len(self.items) + 1, dtype=np.int64)
        np.add.at(change, begins[some], 1)
        np.subtract.at(change, ends[some], 1)
        return np.cumsum(change[:-1]) > 0


def load_prepared(name: str, path: Path) -> PreparedDataset:
    """Map the prepared dataset in the folder `path`."""
    meta: dict[str, Any] = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    return PreparedDataset(
        name=name,
        path=path,
        items=np.load(path / "items.npy", mmap_mode="r"),
        providers=np.load(path / "providers.npy", mmap_mode="r"),
        times=np.load(path / "times.npy", mmap_mode="r"),
        offsets=np.load(path / "offsets.npy", mmap_mode="r"),
        num_items=meta["num_items"],
        num_providers=meta["num_providers"],
        fingerprint=meta["fingerprint"],
        stand_in=meta["stand_in"],
        scale=meta["source"]["scale"] or 1.0,
        filter=meta["filter"],
        source=meta["source"],
        files=meta["files"],
        statistics=DatasetStatistics(**meta["statistics"]),
        reading=Reading(
            notes=tuple(meta["reading"]["notes"]),
            placeholders=meta["reading"]["placeholders"],
            unlisted_actions=meta["reading"]["unlisted_actions"],
            largest_providers=tuple((name, count) for name, count in meta["reading"]["largest_providers"]),
            stickiness_without_largest=meta["reading"]["stickiness_without_largest"],
        ),
        times_per_second=meta["times_per_second"],
    )
