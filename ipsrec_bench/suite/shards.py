"""Shares of a suite: the cells that one of several independent runs trains.

A cell's share depends on the cell alone: on the content of its key, except for what differs between machines. So
independent runs on several machines agree, and adding a model, a dataset or a seed to a suite moves no other cell. The
seeds of a row, whose cells cost the same, are dealt in turn, starting at a hash of the row. A cell that ranks the model
of another cell is in that one's share, where its weights are.
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
            fingerprints: fingerprints of the prepared datasets, by their label in the suite.
        """
        return frozenset(
            key for key, cell in cells if _place(cell, fingerprints[cell.dataset]) % self.count == self.number - 1
        )


def parse_shard(text: str) -> Shard:
    """Return the share that `text` names, like 3/16.

    Raises:
        BenchError: it is not a share.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise BenchError(f"--shard {text}: expected NUMBER/COUNT, for example 3/16")
    number, count = map(int, found.groups())
    if not 1 <= number <= count:
        raise BenchError(f"--shard {text}: shares are numbered from 1 to their count, for example 1/16 to 16/16")
    return Shard(number, count)


def _place(cell: Cell, fingerprint: str) -> int:
    """Return a number whose remainder determines the share; the next seed has the next number.

    The precision is left out, because `auto` resolves it on each machine, and all machines must agree on the shares.
    """
    settings = (cell.parent or cell).settings()
    settings.get("training", {}).pop("precision", None)
    row = json.dumps([fingerprint, settings], sort_keys=True)
    offset = int.from_bytes(hashlib.sha256(row.encode()).digest()[:8])
    return offset if cell.deterministic else offset + cell.seed
