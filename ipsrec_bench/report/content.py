"""What a report says, as one tree of dataclasses; how it looks is the templates' business."""

from dataclasses import dataclass
from datetime import datetime

from ipsrec_bench.stats.paired import PairedComparison
from ipsrec_bench.store.queries import CurvePoint, DatasetRow
from ipsrec_bench.store.records import Environment

MAX_COLUMNS = 8
"""Models that stand side by side in the result table; the paper's has six."""


@dataclass(frozen=True)
class Row:
    """One row of the suite: a model or a variant, under the suite's label and under its display name."""

    label: str
    display: str
    model: str
    variant: str


@dataclass(frozen=True)
class Score:
    """A metric of one row on one dataset: mean over users, then over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds; None with fewer than two."""
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A paired test of one row against a reference, on the per-user mean over the seeds that both have."""

    dataset: str
    metric: str
    row: Row
    reference: Row
    seeds: int
    test: PairedComparison
    reference_mean: float
    adjusted_p: float
    alpha: float

    @property
    def gain(self) -> float | None:
        """Relative difference to the reference, None where the reference is 0."""
        return self.test.difference / self.reference_mean if self.reference_mean else None

    @property
    def significant(self) -> bool:
        """Whether the corrected test rejects "no difference"."""
        return self.adjusted_p < self.alpha

    @property
    def verdict(self) -> str:
        """One word: better, worse, or undecided."""
        if not self.significant:
            return "undecided"
        return "better" if self.test.difference > 0 else "worse"


@dataclass(frozen=True)
class ResultCell:
    """One model's value in the result table."""

    score: Score | None
    """None while no seed of it is complete."""
    best: bool = False
    second: bool = False
    comparison: Comparison | None = None
    """Against the baseline; present for proposed models, whose improvement is shown."""


@dataclass(frozen=True)
class ResultLine:
    """One metric on one dataset, over all models."""

    dataset: str
    metric: str
    cells: tuple[ResultCell, ...]


@dataclass(frozen=True)
class ResultTable:
    """The paper's Table 2: datasets and metrics down, models across, improvement beside the proposed."""

    columns: tuple[Row, ...]
    proposed: frozenset[str]
    lines: tuple[ResultLine, ...]

    @property
    def models_down(self) -> bool:
        """Whether there are more models than a page is wide for, so that they had better go down."""
        return len(self.columns) > MAX_COLUMNS


@dataclass(frozen=True)
class AblationCell:
    """One value of the ablation table; variants carry their comparison with the whole model."""

    score: Score | None
    comparison: Comparison | None


@dataclass(frozen=True)
class AblationLine:
    """One row of the ablation table."""

    row: Row
    is_variant: bool
    cells: tuple[AblationCell, ...]


@dataclass(frozen=True)
class AblationTable:
    """The paper's Table 3: models and their variants down, datasets and metrics across."""

    columns: tuple[tuple[str, str], ...]
    """Dataset and metric."""
    lines: tuple[AblationLine, ...]


@dataclass(frozen=True)
class DatasetLine:
    """One dataset under the suite's label."""

    label: str
    statistics: DatasetRow


@dataclass(frozen=True)
class Curves:
    """Learning curves of one dataset."""

    dataset: str
    stop_metric: str
    points: tuple[tuple[Row, int, CurvePoint], ...]
    """Row, seed, epoch."""


@dataclass(frozen=True)
class CostLine:
    """What one row cost on one dataset, mean over its complete cells."""

    dataset: str
    row: Row
    parameters: int
    train_seconds: float
    seconds: float
    peak_memory: int
    best_epochs: tuple[int, ...]


@dataclass(frozen=True)
class MissingCell:
    """A cell of the suite without a result."""

    dataset: str
    row: Row
    seed: int
    error: str | None
    """Last line of the traceback if it failed, None if it has not run yet."""


@dataclass(frozen=True)
class Report:
    """Everything a page says about one run of a suite."""

    suite: str
    title: str
    description: str
    started: datetime
    cells: int
    missing: tuple[MissingCell, ...]
    scale: float
    """That the suite asks for."""
    left_out: tuple[str, ...]
    """Datasets of the suite that were not run, because their raw files were not there."""
    results: ResultTable
    comparisons: tuple[Comparison, ...]
    """Every row against the baseline, per dataset and metric."""
    ablation: AblationTable | None
    datasets: tuple[DatasetLine, ...]
    curves: tuple[Curves, ...]
    costs: tuple[CostLine, ...]
    seeds: int
    """Number of seeds that the suite asks for."""
    baseline_rule: str
    baseline_is_best: bool
    """Whether the baseline is chosen by its results, not declared."""
    family_rule: str
    protocol: tuple[tuple[str, str], ...]
    settings: tuple[tuple[Row, str], ...]
    """The resolved settings of every row's model."""
    environments: tuple[Environment, ...]
    alpha: float
    confidence: float
    suite_text: str
    overrides: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The title, and whether what it is about is real."""
        stand_ins = [line.statistics.stand_in for line in self.datasets]
        if not any(stand_ins):
            return self.title
        return f"{self.title} [{'stand-in data' if all(stand_ins) else 'with stand-in data'}]"

    @property
    def caution(self) -> str:
        """What stands beside every table: which datasets are made up, or samples. Empty where none is."""
        made_up = [line.label for line in self.datasets if line.statistics.stand_in]
        sampled = [
            f"{line.label} ({100 * line.statistics.scale:g}%)" for line in self.datasets if line.statistics.scale < 1
        ]
        parts = []
        if made_up:
            parts.append(
                f"Stand-in data at a scale of {self.scale:g}: {', '.join(made_up)}. Made up in the shape of the"
                " published datasets, of which these figures say nothing."
            )
        if sampled:
            parts.append(f"Samples of the users, chosen by a hash of their ids: {', '.join(sampled)}.")
        return " ".join(parts)
