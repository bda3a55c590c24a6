"""What is written to, and read from, the store, as typed records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ipsrec_bench.data.split import HeldOut, TargetSet
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.training.curve import Epoch

EXTERNAL = "external"
"""Type of cells whose ranks were made elsewhere and imported."""


@dataclass(frozen=True)
class Environment:
    """Where a cell ran; the columns of `environments`."""

    package: str
    python: str
    torch: str
    numpy: str
    duckdb: str
    platform: str
    processor: str
    cores: int
    threads: int
    device: str
    revision: str
    """Commit of the toolkit, with `+` if files were changed; empty where it is no git checkout."""


@dataclass(frozen=True, eq=False)
class CellRecord:
    """A cell that ended, complete or failed; a complete one carries its curve and its ranks by split."""

    key: str
    fingerprint: str
    type: str
    seed: int
    settings: str
    environment: Environment
    started: datetime
    seconds: float
    error: str | None = None
    train_seconds: float | None = None
    peak_memory: int | None = None
    parameters: int | None = None
    stop_metric: str | None = None
    best_epoch: int | None = None
    best_valid: float | None = None
    depth: int | None = None
    """Of imported lists: up to this rank they are known."""
    deterministic: bool = False
    """Whether no seed changes its ranks."""
    epochs: tuple[Epoch, ...] = ()
    ranks: Mapping[str, Ranks] | None = None
    """By split; anything with arrays `users`, `higher` and `ties`."""
    target_sets: Mapping[HeldOut, TargetSet] = field(default_factory=dict)
    """What the ranks are of, by split."""


@dataclass(frozen=True)
class PlannedCell:
    """One row of `run_cells`: a cell under the suite's labels."""

    key: str
    dataset: str
    model: str
    title: str
    type: str
    variant: str
    seed: int

    @property
    def label(self) -> str:
        """The row's name in tables, as a suite writes it."""
        return f"{self.model} {self.variant}".strip()

    @property
    def display(self) -> str:
        """The row's name in tables, as the field writes it."""
        return f"{self.title} {self.variant}".strip()
