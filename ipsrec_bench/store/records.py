"""Typed records that are written to the store and read from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from ipsrec_bench.data.split import HeldOut, TargetSet
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.training.curve import Epoch

EXTERNAL = "external"
"""Type of cells whose ranks were computed elsewhere and imported."""
OUTPUT_FOLLOWS = "Last lines of its output:"
"""Line in a failed cell's `error` above the last lines of its process's output."""
_FRAME = re.compile(r'  File "')
_OWN_ERROR = re.compile(r"^ipsrec_bench\.errors\.\w+: ")
"""The type of an error of the toolkit, whose message is a sentence of its own."""


def columns_of(record: type) -> list[str]:
    """Return the columns that a dataclass is read from and written to: its fields, in their order."""
    return [field.name for field in fields(record)]


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
    """Commit of the toolkit, with `+` if files were changed; empty outside a git checkout."""


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
    """For imported lists, the rank up to which they are known."""
    deterministic: bool = False
    """Whether no seed changes its ranks."""
    split_name: str | None = None
    """Name of the split of its targets."""
    epochs: tuple[Epoch, ...] = ()
    ranks: Mapping[str, Ranks] | None = None
    """By split; anything with arrays `users`, `higher` and `ties`."""
    target_sets: Mapping[HeldOut, TargetSet] = field(default_factory=dict)
    """Targets and candidates of the ranks, by split."""


BESIDE_CELLS = frozenset({"environment", "epochs", "ranks", "target_sets"})
"""Fields of `CellRecord` that separate tables hold; every other field is a column of `cells`."""


@dataclass(frozen=True)
class PlannedCell:
    """One row of `run_cells`: a cell with the suite's labels."""

    key: str
    dataset: str
    model: str
    title: str
    type: str
    variant: str
    seed: int
    base: str = ""
    """Label of the dataset without control and protocol; empty where it is `dataset`."""
    control: str = ""
    """Choice of providers that replaces the dataset's own, in words."""
    protocol: str = ""
    """Name of the further protocol; empty for the suite's main one."""
    tuning: str = ""
    """Where the settings are from, in words, like `tuned, 20 trials`; empty where nothing is known."""

    @property
    def is_main(self) -> bool:
        """Whether it belongs to the main tables: the dataset's own providers, and the main protocol."""
        return not (self.control or self.protocol)

    @property
    def label(self) -> str:
        """The row's name in tables, as a suite writes it."""
        return f"{self.model} {self.variant}".strip()

    @property
    def display(self) -> str:
        """The row's name in tables, as the literature writes it."""
        return f"{self.title} {self.variant}".strip()


@dataclass(frozen=True)
class DatasetRow:
    """One row of `datasets`."""

    fingerprint: str
    name: str
    users: int
    items: int
    providers: int
    actions: int
    known_provider_actions: int
    mean_length: float
    repeat_share: float | None
    tie_share: float | None
    stickiness: float | None
    shuffled_stickiness: float | None
    stand_in: bool
    scale: float
    filter: str


@dataclass(frozen=True)
class RunDataset:
    """What one dataset of a run was made of."""

    fingerprint: str
    filter: str
    scale: float
    stand_in: bool
    source: Mapping[str, Any]
    """Resolved settings of the source."""
    files: Mapping[str, str]
    """sha256 of the raw files by name: of the interactions, then of the item table."""


def reason_of(error: str) -> str:
    """Return the line of a failed cell's `error` that gives the reason.

    With a traceback, this is the first line of the exception's message, which advice may follow, as in errors of CUDA.
    Without one, it is the last line above the process's output.
    """
    lines = error.strip().splitlines()
    if OUTPUT_FOLLOWS in lines[1:]:
        lines = lines[: lines.index(OUTPUT_FOLLOWS, 1)]
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    below = lines[frames[-1] + 1 :] if frames else []
    message = [line for line in below if line.strip() and not line.startswith(" ")]
    return _OWN_ERROR.sub("", (message or [line for line in lines if line.strip()][-1:] or [""])[0])
