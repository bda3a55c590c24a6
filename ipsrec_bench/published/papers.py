"""The papers' numbers, read and checked, and a check of their own arithmetic."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from pydantic import Field, model_validator

from ipsrec_bench.settings import Settings

HALF_DIGIT = 5e-5
"""Maximum rounding error of a value printed with four decimals."""
HALF_PERCENT_DIGIT = 5e-4
"""Maximum rounding error of a percentage printed with one decimal, as a share."""


class PublishedDataset(Settings):
    """One line of a paper's table of datasets, as printed."""

    title: str
    users: int
    items: int
    actions: int
    providers: int | None = None
    """None if the paper gives none, as the next one."""
    provider_actions: int | None = None
    max_length: int


class PublishedRow(Settings):
    """The model of one row, or column, of a paper's tables."""

    title: str
    type: str = ""
    """The model's name here; if empty, the row's own."""
    settings: Mapping[str, float] = Field({})
    """Settings that distinguish it from other rows of its type; none if it is the model itself."""
    common: Mapping[str, float] = Field({})
    """Settings that the paper gives for it."""
    training: Mapping[str, str | float] = Field({})
    """Training settings that distinguish it from other rows of its type."""


class PublishedValues(Settings):
    """One metric on one dataset."""

    values: tuple[float, ...]
    gains: tuple[float, ...] = ()
    """Printed percentages of the proposed rows, in the order of the rows."""


class PublishedTable(Settings):
    """One table: rows, and values by dataset and metric."""

    rows: tuple[str, ...]
    values: dict[str, dict[str, PublishedValues]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for dataset, metrics in self.values.items():
            for metric, line in metrics.items():
                if len(line.values) != len(self.rows):
                    raise ValueError(f"{dataset} {metric} has {len(line.values)} values for {len(self.rows)} rows")
        return self


class Paper(Settings):
    """One paper."""

    title: str
    short: str
    doi: str
    proposed: tuple[str, ...] = ()
    """Rows whose printed gains over the others are in the tables."""
    test: str = "none"
    padding: int = 0
    """Number of padding ids in each of its counts of users, items and providers."""
    note: str = ""
    """What a reader of its numbers should know, in a sentence."""
    protocol: dict[str, Any]
    training: dict[str, Any]
    """Settings with the same names as a suite's: the paper's and, where it is silent, its code's."""
    datasets: dict[str, PublishedDataset]
    rows: dict[str, PublishedRow]
    results: PublishedTable
    ablation: PublishedTable | None = None

    def type_of(self, row: str) -> str:
        """Return the model of a row."""
        return self.rows[row].type or row

    def value(self, dataset: str, metric: str, row: str) -> float | None:
        """Return the value printed for a row, in whichever table has it; None if none has."""
        for table in (self.results, self.ablation):
            line = None if table is None else table.values.get(dataset, {}).get(metric)
            if table is not None and line is not None and row in table.rows:
                return line.values[table.rows.index(row)]
        return None


@dataclass(frozen=True)
class GainCheck:
    """A printed percentage, and the one computed from the printed values."""

    dataset: str
    metric: str
    row: str
    printed: float
    """As a share."""
    recomputed: float
    against: str
    """The best baseline by the printed values."""
    agrees: bool
    """Whether both agree within the rounding of values and percentage."""
    explained_by: str
    """A baseline against which the printed percentage agrees, if it does not against the best; else empty."""


@cache
def papers() -> Mapping[str, Paper]:
    """Return all papers by the names of their files."""
    found = {}
    for file in sorted(resources.files("ipsrec_bench.published").iterdir(), key=lambda file: file.name):
        name, dot, kind = file.name.rpartition(".")
        if dot and kind == "toml":
            found[name] = Paper.model_validate(tomllib.loads(file.read_text("utf-8")))
    return found


def check_gains(paper: Paper) -> Iterator[GainCheck]:
    """Recompute every printed percentage of the paper's table of results against the best baseline of its line."""
    table = paper.results
    for dataset, metrics in table.values.items():
        for metric, line in metrics.items():
            value = dict(zip(table.rows, line.values, strict=True))
            baselines = [row for row in table.rows if row not in paper.proposed]
            best = max(baselines, key=value.__getitem__)
            shown = [row for row in table.rows if row in paper.proposed]
            for row, percent in zip(shown, line.gains, strict=True):
                printed = percent / 100
                fitting = [name for name in baselines if _may_be(printed, value[row], value[name])]
                yield GainCheck(
                    dataset,
                    metric,
                    row,
                    printed,
                    value[row] / value[best] - 1,
                    best,
                    agrees=best in fitting,
                    explained_by=fitting[0] if fitting and best not in fitting else "",
                )


def _may_be(gain: float, ours: float, theirs: float) -> bool:
    """Return whether values that round to `ours` and `theirs` can have a gain that rounds to `gain`."""
    low = (ours - HALF_DIGIT) / (theirs + HALF_DIGIT) - 1
    high = (ours + HALF_DIGIT) / (theirs - HALF_DIGIT) - 1
    return low - HALF_PERCENT_DIGIT <= gain <= high + HALF_PERCENT_DIGIT
