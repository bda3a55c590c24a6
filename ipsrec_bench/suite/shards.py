"""Shares of a suite: which of its cells one of several independent runs does.

A cell's share follows from the cell alone: from what makes its key, without what differs between machines. So runs on
machines that know nothing of each other agree, and a model, a dataset or a seed that a suite gains moves no other cell.
The seeds of a row, whose cells cost the same, are dealt one by one from a place that a hash of the row gives.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipsrec_bench.errors import BenchError
from ipsrec_bench.suite.cells import Cell


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`; the first is 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def keys(self, cells: Iterable[tuple[str, Cell]], fingerprints: Mapping[str, str]) -> frozenset[str]:
        """Return the keys of the cells in this share.

        Args:
            cells: key and cell, of the whole suite.
            fingerprints: of the prepared datasets, by their label in the suite.
        """
        return frozenset(
            key for key, cell in cells if _place(cell, fingerprints[cell.dataset]) % self.count == self.number - 1
        )


def parse_shard(text: str) -> Shard:
    """Return the share that `text` names, like 3/16.

    Raises:
        BenchError: it names none.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise BenchError(f"--shard {text}: expected NUMBER/COUNT, for example 3/16")
    number, count = map(int, found.groups())
    if not 1 <= number <= count:
        raise BenchError(f"--shard {text}: shares are numbered from 1 to their count, for example 1/16 to 16/16")
    return Shard(number, count)


def _place(cell: Cell, fingerprint: str) -> int:
    """Return a number whose remainder says the share; that of the next seed is the next number.

    The precision is left out, which `auto` resolves for each machine: all machines must agree on the shares.
    """
    settings = cell.settings()
    settings.get("training", {}).pop("precision", None)
    row = json.dumps([fingerprint, settings], sort_keys=True)
    offset = int.from_bytes(hashlib.sha256(row.encode()).digest()[:8])
    return offset if cell.deterministic else offset + cell.seed
