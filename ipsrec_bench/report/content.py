"""The content of a report as a tree of dataclasses; templates decide how it looks."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Literal

from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.published.papers import HALF_DIGIT
from ipsrec_bench.stats.across import Friedman, MeanRank, Pooled, RelativeDifference
from ipsrec_bench.stats.effect import Estimate, NextTraining
from ipsrec_bench.stats.method import MethodTest
from ipsrec_bench.stats.paired import MeanTest, WinTieLoss
from ipsrec_bench.stats.power import SeedsNeeded
from ipsrec_bench.stats.practical import Practical
from ipsrec_bench.store.queries import CurvePoint, RankedUsers
from ipsrec_bench.store.records import DatasetRow, Environment
from ipsrec_bench.suite.cells import NOTHING_TO_TUNE, TUNED
from ipsrec_bench.tuning.results import StudyResult

Test = Literal["method", "paired-t", "randomisation", "wilcoxon"]
"""Tests of a comparison."""
MANY = 4
"""Number of models from which a sentence counts them instead of naming them."""
MAX_COLUMNS = 8
"""Maximum number of models side by side in the result table; the paper's has six."""


@dataclass(frozen=True)
class Row:
    """One row of the suite, a model or a variant, with its label in the suite and its display name."""

    label: str
    display: str
    model: str
    variant: str
    tuning: str = field(default="", compare=False)
    """Where its settings are from: `tuned, 20 trials`, `untuned`, `published settings`, or `nothing to tune`; empty if
    nothing is known. If it differs between datasets, the words say so."""
    control: str = field(default="", compare=False)
    """The providers that it was trained on, in words, where they replace the data's own; its label says so, too."""

    @property
    def tuned(self) -> bool:
        """Whether it has the best settings of a search."""
        return self.variant == TUNED or self.tuning.startswith(TUNED)

    @property
    def tunable(self) -> bool:
        """Whether a search could have changed it, as far as is known."""
        return self.tuning != NOTHING_TO_TUNE

    @property
    def named(self) -> str:
        """The display name, and in parentheses where its settings are from."""
        return f"{self.display} ({self.tuning})" if self.tuning else self.display

    @property
    def whole(self) -> bool:
        """Whether it is a whole model, tuned or not, rather than a variant of an ablation."""
        return self.variant in {"", TUNED}


@dataclass(frozen=True)
class Score:
    """A metric of one row on one dataset: mean over users, then over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds; None with fewer than two, and for a deterministic row."""
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """One row against a reference, paired over users, with all seeds of both."""

    dataset: str
    metric: str
    row: Row
    reference: Row
    users: int
    seeds: int
    """Number of seeds of the row; 1 if it is deterministic."""
    reference_seeds: int
    mean: float
    reference_mean: float
    by_users: MeanTest
    """Over users, of the means over seeds: are these trained models different?"""
    method: MethodTest | None
    """Over users and the seeds of each row: are the methods different? None if a row that is not deterministic has
    fewer than three seeds."""
    effect: Estimate
    """d_z over users."""
    gain: Estimate | None
    """Relative to the reference; None where that is 0."""
    counts: WinTieLoss
    test: Test
    """The test of `p`, the declared one; `auto` is resolved."""
    low: float
    high: float
    """The declared interval of the difference, uncorrected; NaN where nothing varied."""
    p: float | None
    """Of the declared test, uncorrected; None where it needs more seeds."""
    margin: float | None
    """Declared, relative: smaller differences count as none."""
    alpha: float
    equivalence_p: float | None
    """That the difference is within the margin, corrected over the family; None without margin, or with too few seeds
    for the declared test."""
    practical: Practical | None
    """Probabilities that the difference is below, within and above the margin; None without a margin."""
    next_training: NextTraining | None
    """The difference of one more training of each; None where a row that is not deterministic has one seed."""
    adjusted_p: float | None = None
    """Corrected over the family, as are the two below."""
    adjusted_users_p: float | None = None
    """Of the paired t-test over users."""
    adjusted_method_p: float | None = None
    """Of the test of the methods; None where there is none. A comparison of the family without it counts as p = 1."""
    family: int = 1
    """Number of comparisons that are corrected together; 1 where nothing is corrected."""
    detectable: float | None = None
    """Smallest difference that the t-test finds with a power of 80% at the level of the family's hardest step: that of
    the methods if it is the declared test, else that over users. None where nothing varied, or where it would find no
    difference that a metric can have."""
    method_detectable: float | None = None
    """Likewise, that the test of the methods finds; None where there is none."""
    seeds_needed: SeedsNeeded | None = None
    """Seeds of each row with which the difference of interest would be found for the methods with a power of 80%: the
    margin, or the difference found if no margin is declared. None without the test of the methods, and where both rows
    are deterministic."""
    superiority: float | None = None
    """Probability that a user is better served by a training of the row than by one of the reference, by ranks; None
    for slices of the users."""
    fell_back: bool = False
    """Whether `auto` took the test over users because a row lacks the seeds for that of the methods."""
    deterministic: tuple[Row, ...] = ()
    """Those of the two rows that are deterministic."""
    cut_off: tuple[Row, ...] = ()
    """Those of the two rows with a training that was still improving when it ended."""

    @property
    def unequal(self) -> bool:
        """Whether one of two models is tuned and the other is not."""
        tunable = self.row.tunable and self.reference.tunable
        return tunable and self.row.tuned != self.reference.tuned and self.row.model != self.reference.model

    @property
    def without_seeds(self) -> bool:
        """Whether both rows are deterministic, so that a comparison of them is one of the methods."""
        return len(self.deterministic) == 2  # noqa: PLR2004 (both)

    @property
    def difference(self) -> float:
        """Mean difference to the reference."""
        return self.by_users.mean

    @property
    def significant(self) -> bool:
        """Whether the corrected test rejects "no difference"."""
        return self.adjusted_p is not None and self.adjusted_p < self.alpha

    @property
    def within_margin(self) -> bool:
        """Whether the difference found is smaller than the declared margin."""
        return self.margin is not None and abs(self.difference) <= self.margin * self.reference_mean

    @property
    def direction(self) -> str:
        """`better` or `worse` where the difference is significant and above the margin, else what else there is.

        `equivalent`: significant but within the margin, or shown to be within it. `undecided`: neither.
        """
        if self.significant and not self.within_margin:
            return "better" if self.difference > 0 else "worse"
        shown = self.equivalence_p is not None and self.equivalence_p < self.alpha
        return "equivalent" if self.significant or shown else "undecided"

    @property
    def verdict(self) -> str:
        """In words: better, worse, either of them within the margin, equivalent or undecided."""
        if self.significant and self.within_margin:
            return f"{'better' if self.difference > 0 else 'worse'}, within the margin"
        return self.direction

    @property
    def of_method(self) -> str:
        """The verdict on the methods, corrected like the declared one; the declared one if it is on the methods."""
        if self.method is None:
            return "too few seeds"
        return self._shown(self.adjusted_p if self.test == "method" else self.adjusted_method_p)

    @property
    def of_models(self) -> str:
        """The verdict on these trained models, by the paired t-test, corrected like the declared one."""
        return self._shown(self.adjusted_users_p)

    def _shown(self, p: float | None) -> str:
        if p is None or p >= self.alpha:
            return "undecided"
        word = "better" if self.difference > 0 else "worse"
        return f"{word}, within the margin" if self.within_margin else word

    @property
    def mark(self) -> str:
        """The mark in tables: `*` by the declared test; `°` if only the trained models are shown to differ.

        Empty where neither is shown, and within the margin.
        """
        if self.within_margin:
            return ""
        if self.significant:
            return "°" if self.fell_back else "*"
        return "°" if self.test == "method" and self.of_models != "undecided" else ""


@dataclass(frozen=True)
class AllPairsTable:
    """All pairs of whole models on one dataset and metric, tested at once over users (maxT)."""

    dataset: str
    metric: str
    rows: tuple[Row, ...]
    p: tuple[tuple[float, ...], ...]
    """Of every row against every other one, corrected for all pairs; symmetric, 1 on the diagonal."""
    letters: tuple[str, ...]
    """Of every row: two rows that share a letter are not shown to differ."""
    resamples: int
    critical: float
    """The |t| over users above which a pair differs, after the correction for all pairs."""


@dataclass(frozen=True)
class ResultCell:
    """One model's value in the result table."""

    score: Score | None
    """None while no seed is complete."""
    best: bool = False
    second: bool = False
    gain: float | None = None
    """Relative to the baseline; only for proposed models."""
    mark: str = ""
    """`*` or `°`, as `Comparison.mark`, if it is better."""
    letters: str = ""
    """With `family = "all-pairs"`: rows that share a letter are not shown to differ."""
    unequal: bool = False
    """Whether only one of the model and the baseline is tuned."""


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
    def unequal(self) -> bool:
        """Whether some improvement is of a tuned model over a baseline that is not, or the other way round."""
        return any(cell.unequal for line in self.lines for cell in line.cells)

    @property
    def models_down(self) -> bool:
        """Whether there are too many models for the width of a page, so that each gets a line instead of a column."""
        return len(self.columns) > MAX_COLUMNS


@dataclass(frozen=True)
class AblationCell:
    """One value of the ablation table; variants carry their comparison with the whole model."""

    score: Score | None
    comparison: Comparison | None = None


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

    @property
    def title(self) -> str:
        """What it shows: an ablation, tuned models beside their untuned ones, or both."""
        tuned = {line.row.variant == TUNED for line in self.lines if line.is_variant}
        if tuned == {True}:
            return "Tuned and untuned models"
        return "Ablation and tuned models" if True in tuned else "Ablation"


@dataclass(frozen=True)
class Slice:
    """One row against the baseline on a part of the users."""

    dimension: str
    name: str
    share: float
    """Of the test users."""
    comparison: Comparison


@dataclass(frozen=True)
class SliceTable:
    """All slices of one dataset for one row; their comparisons are one family."""

    dataset: str
    row: Row
    reference: Row
    metric: str
    slices: tuple[Slice, ...]
    too_small: tuple[str, ...]
    """Slices with too few users to compare."""
    everybody: tuple[str, ...]
    """Slices that contain all test users, which are not compared."""

    def named(self, verdict: str) -> list[str]:
        """Return the slices with this verdict, in words."""
        return [f"{s.dimension}: {s.name}" for s in self.slices if s.comparison.verdict == verdict]


@dataclass(frozen=True)
class NoveltyLine:
    """The report's metric of one row on one dataset, over all targets and over those that are new or repeated."""

    dataset: str
    row: Row
    users: tuple[int, ...]
    """Of all targets, of those with a new provider, of those with a repeated one, and of those with a repeated item."""
    means: tuple[float | None, ...]
    """Likewise; None where there is no such target."""


@dataclass(frozen=True)
class DatasetLine:
    """One dataset under the suite's label."""

    label: str
    statistics: DatasetRow
    """Its filter, scale and `stand_in` are those of this run."""
    split: SplitStatistics | None
    """Of the suite's split; None where a store of an older version lacks them."""
    source: tuple[tuple[str, str], ...]
    """Its sources in words: name and value."""
    test: RankedUsers | None = None
    """Test users that the run's cells rank and leave out; None where no cell recorded them."""
    valid: RankedUsers | None = None
    """Likewise, for validation."""
    control: str = ""
    """The providers that replace the data's own, in words; empty where they are the data's own."""

    @property
    def tested(self) -> str:
        """How many users are tested, and how many the protocol leaves out."""
        return _users(self.test, self.split.test_users if self.split else None)

    @property
    def validated(self) -> str:
        """Likewise, for the validation."""
        return _users(self.valid, self.split.valid_users if self.split else None)


def _users(ranked: RankedUsers | None, of_split: int | None) -> str:
    if ranked is not None and ranked.left_out:
        return f"{ranked.users:,} ({ranked.left_out:,} left out)"
    return "–" if of_split is None else f"{of_split:,}"


@dataclass(frozen=True)
class Curves:
    """Learning curves of one dataset."""

    dataset: str
    stop_metric: str
    points: tuple[tuple[Row, int, CurvePoint], ...]
    """Row, seed, epoch."""


@dataclass(frozen=True)
class HitCurve:
    """HR@N of one row on one dataset, mean over seeds, at cutoffs N up to the whole catalogue."""

    dataset: str
    row: Row
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SeedScore:
    """The report's metric for one training."""

    dataset: str
    row: Row
    seed: int
    value: float


@dataclass(frozen=True)
class SurfacePoint:
    """A metric at one lambda and tau."""

    lambda_: float
    tau: float
    value: float
    comparison: Comparison | None = None
    """With the whole model; None for the whole model itself, and for trials."""


@dataclass(frozen=True)
class Surface:
    """A metric over lambda and tau."""

    dataset: str
    model: str
    metric: str
    split: str
    points: tuple[SurfacePoint, ...]


@dataclass(frozen=True)
class Tuned:
    """A study, with two tests of whether its best settings improve on those before."""

    study: StudyResult
    gain: MeanTest | None
    """Best minus default over the seeds of their trials, on the targets that the best was chosen by, which favours it;
    None with one seed, or where the default is the best or was not trained to its end."""
    fresh: Comparison | None
    """On the run's test ranks, with seeds that no trial had; None where the run does not have both rows."""
    trained: bool = False
    """Whether the run has a row with the best settings on such seeds, as `run --tuned` makes it."""

    @property
    def adjusted_p(self) -> float | None:
        """P of the gain, times the number of complete trials that the best was chosen among (Bonferroni)."""
        return min(1.0, self.gain.p * max(1, len(self.study.complete) - 1)) if self.gain else None


@dataclass(frozen=True)
class ProtocolCell:
    """One row under one protocol."""

    score: Score | None
    """None while no seed is complete."""
    rank: int | None
    """Among the rows of the table that are complete under the protocol, 1 for the best; ties share the better rank."""


@dataclass(frozen=True)
class ProtocolLine:
    """One row on one dataset, under each protocol."""

    dataset: str
    row: Row
    cells: tuple[ProtocolCell, ...]
    """In the order of the table's protocols."""


@dataclass(frozen=True)
class ProtocolOrder:
    """The order of the rows under a further protocol, beside that under the main one."""

    dataset: str
    protocol: str
    tau: float | None
    """Kendall's tau-b; None with fewer than two rows."""
    rows: int
    """Number of rows that are complete under both."""
    best: Row | None
    """The best of them under this protocol."""
    main_best: Row | None
    """The best of them under the main protocol."""

    @property
    def sentence(self) -> str:
        """How far the orders agree, and which rows are best; empty where there is no order."""
        if self.tau is None or self.best is None or self.main_best is None:
            return ""
        said = (
            f"On {self.dataset}, Kendall's tau-b between the order of {self.rows} models under the main protocol and"
            f" under {self.protocol} is {self.tau:.2f}; of these {self.rows}, the best is"
        )
        if self.best == self.main_best:
            return f"{said} {self.best.display} under both."
        return f"{said} {self.main_best.display} under the main one and {self.best.display} under this one."


@dataclass(frozen=True)
class ProtocolTable:
    """The protocols of a suite side by side."""

    metric: str
    protocols: tuple[str, ...]
    """Their names, the main one first."""
    differences: tuple[str, ...]
    """What each of them changes of the main one; empty for that one."""
    other: tuple[str, ...]
    """Names of those that have other targets or candidates than the main one."""
    lines: tuple[ProtocolLine, ...]
    orders: tuple[ProtocolOrder, ...]
    left_out: tuple[str, ...]
    """A sentence for each cell under a further protocol that cannot be paired with those beside it."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """A sentence for each dataset and further protocol."""
        return tuple(order.sentence for order in self.orders if order.tau is not None)


@dataclass(frozen=True)
class OrderLine:
    """The place of one row in the order on one dataset."""

    dataset: str
    row: Row
    value: float
    """The report's metric."""
    rank: int
    low: int
    """Interval of the rank over resamples of users and seeds."""
    high: int
    next: Row | None
    """The row after this one; None for the last."""
    above: float | None
    """Share of the resamples in which this row is above the next."""
    trainings: int
    """Number of trainings, which are resampled; 1 for a deterministic row."""
    one_training: bool
    """Whether it is not deterministic, but has one training, so that its seeds cannot be resampled."""


def of_one_training(rows: Iterable[Row]) -> str:
    """Return, after a space, what an order says of rows whose seeds cannot be resampled; empty without such rows."""
    names = list(dict.fromkeys(row.display for row in rows))
    if not names:
        return ""
    have = "has one training, so its seeds" if len(names) == 1 else "have one training each, so their seeds"
    who = " and ".join(names) if len(names) < MANY else f"{len(names)} models"
    return f" {who} {have} are not resampled: this is an order of trained models, not of methods."


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the rows agree, or the orders of all pairs of seeds."""

    dataset: str
    """Empty where two datasets are compared."""
    between: str
    """What is compared, in words."""
    tau: float
    """Kendall's tau-b; the mean over the pairs where there are several."""
    lowest: float | None
    """The lowest of several pairs."""
    pairs: int
    rows: int
    """Number of rows that have both values; the most where pairs differ."""


@dataclass(frozen=True)
class Order:
    """The order of the rows and its stability."""

    metric: str
    resamples: int
    confidence: float
    lines: tuple[OrderLine, ...]
    agreements: tuple[Agreement, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """A sentence for each dataset."""
        pairs: dict[str, tuple[OrderLine, OrderLine]] = {}
        for first, second in pairwise(self.lines):
            if first.dataset == second.dataset:
                pairs.setdefault(first.dataset, (first, second))
        return tuple(
            f"On {dataset}, {first.row.display} is first, and stays above {second.row.display} in"
            f" {100 * first.above:.0f}% of {self.resamples:,} resamples of users"
            + (" and seeds." if max(first.trainings, second.trainings) > 1 else ".")
            + of_one_training([line.row for line in (first, second) if line.one_training])
            for dataset, (first, second) in pairs.items()
            if first.above is not None
        )


@dataclass(frozen=True)
class SampledLine:
    """One row ranked among all candidates, and among sampled ones."""

    dataset: str
    row: Row
    full: float
    full_rank: int
    sampled: float
    """Expected value with sampled negatives."""
    sampled_rank: int


@dataclass(frozen=True)
class Sampled:
    """What sampled negatives would have said."""

    metric: str
    draws: int
    lines: tuple[SampledLine, ...]
    taus: tuple[tuple[str, float], ...]
    """For each dataset, Kendall's tau-b of the two orders."""
    left_out: tuple[str, ...]
    """A sentence for each dataset or row that is left out, with the reason."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """A sentence for each dataset, and for what is left out."""
        said = (
            f"On {dataset}, Kendall's tau-b between the order of the models with all candidates and with {self.draws}"
            f" sampled negatives is {tau:.2f}."
            for dataset, tau in self.taus
        )
        return (*said, *self.left_out)


@dataclass(frozen=True)
class CostLine:
    """The cost of one row on one dataset, mean over its complete cells, and its result."""

    dataset: str
    row: Row
    parameters: int
    train_seconds: float
    seconds: float
    peak_memory: int
    best_epochs: tuple[int, ...]
    """Of its trainings; empty for a counting model."""
    value: float
    """The report's metric."""


@dataclass(frozen=True)
class PublishedLine:
    """One of our values beside the paper's."""

    dataset: str
    metric: str
    row: Row
    theirs: float
    ours: float
    seeds: int
    low: float | None
    high: float | None
    """Prediction interval of one more training of ours on the same users: mean +- t sd sqrt(1 + 1 / seeds). None with
    one seed, or if seeds do not vary."""
    gain: float | None = None
    """Largest gain that the paper prints for this dataset and metric: its best proposed row minus its best baseline.
    None if it proposes none."""

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs

    @property
    def width(self) -> float | None:
        """Width of our interval over the paper's gain: an interval that is as wide as the gain confirms nothing."""
        if self.low is None or self.high is None or not self.gain or self.gain <= 0:
            return None
        return (self.high - self.low) / self.gain

    @property
    def inside(self) -> bool | None:
        """Whether theirs, as it is rounded, lies inside our interval; None where there is none."""
        if self.low is None or self.high is None:
            return None
        return self.low - HALF_DIGIT <= self.theirs <= self.high + HALF_DIGIT


@dataclass(frozen=True)
class EffectLine:
    """A difference that a paper prints, and whether it comes out here."""

    dataset: str
    metric: str
    row: Row
    reference: Row
    """The paper's best baseline on this dataset and metric, among the rows that the run has."""
    published: float
    """Difference of the printed values."""
    ours: Estimate
    """Our difference with the declared interval."""
    ratio: Estimate | None
    """Ours over theirs (ER); None where the printed values are equal."""
    gap: Estimate
    """Published relative improvement minus ours (delta RI)."""


@dataclass(frozen=True)
class PaperTables:
    """A paper's own tables, and where its printed percentages do not follow from its printed values."""

    title: str
    short: str
    doi: str
    datasets: tuple[tuple[str, tuple[int | None, ...]], ...]
    """Its table of datasets: title; users, items, interactions, providers, interactions with providers."""
    results: ResultTable
    ablation: AblationTable | None
    flagged: tuple[str, ...]
    note: str
    """What a reader of its numbers should know; may be empty."""

    @property
    def prints_gains(self) -> bool:
        """Whether the paper prints percentages, which can be recomputed."""
        return bool(self.results.proposed)


@dataclass(frozen=True)
class AgainstPaper:
    """Ours beside a paper's."""

    paper: PaperTables
    lines: tuple[PublishedLine, ...]
    effects: tuple[EffectLine, ...]
    """Of the paper's proposed rows, on real data."""
    differences: tuple[str, ...]
    """Of protocol, settings and data."""
    not_compared: tuple[str, ...]
    """Datasets of the paper's names that are not compared, and why."""


@dataclass(frozen=True)
class SettingsLine:
    """The resolved settings of one row's model."""

    row: Row
    dataset: str
    """The dataset that they are for; empty if they are equal on all datasets."""
    settings: str
    """In words; empty if the model has none."""


@dataclass(frozen=True)
class CellLine:
    """One cell, with its key, its data and its environment."""

    dataset: str
    row: Row
    seed: int | None
    """None for a deterministic cell, which serves every seed."""
    key: str
    fingerprint: str
    environment: int
    """Its number in the report's list."""
    seconds: float
    peak_memory: int | None


@dataclass(frozen=True)
class MissingCell:
    """A cell of the suite without a result."""

    dataset: str
    row: Row
    seed: int
    error: str | None
    """Why it failed, in one line; None if it has not run yet."""
    seconds: float | None = None
    """How long it had run when it failed."""
    log: tuple[str, ...] = ()
    """Lines of its whole traceback and of the last output of its process."""


@dataclass(frozen=True)
class CutOff:
    """Trainings of one row that were still improving when their last allowed epoch ended."""

    dataset: str
    row: Row
    cells: int
    """Number of these trainings."""
    of: int
    """Number of complete cells of the row."""
    epochs: int
    """Maximum number of epochs."""


@dataclass(frozen=True)
class RelativeGain:
    """How much better one row is than its reference on one dataset, as a share of the reference's mean."""

    dataset: str
    reference: Row
    seeds: int
    """Number of seeds of the row; 1 if it is deterministic."""
    reference_seeds: int
    difference: RelativeDifference
    """Its interval is cut at -1: no metric is negative, so no gain is below -100%."""

    @property
    def varies(self) -> bool:
        """Whether it has an error, so that it can be pooled with others."""
        return self.difference.test.standard_error > 0


@dataclass(frozen=True)
class RowAcross:
    """One row over all datasets."""

    row: Row
    gains: tuple[RelativeGain, ...]
    pooled: Pooled | None
    """None with fewer than two datasets whose gains have an error."""
    lacks: tuple[str, ...]
    """Datasets on which this row is not compared: it or its reference is missing there."""
    undefined: tuple[str, ...] = ()
    """Datasets on which it is compared but has no gain, because the reference's mean is 0."""

    @property
    def unpooled(self) -> list[str]:
        """Datasets whose gain has no error, so that it cannot be pooled."""
        return [gain.dataset for gain in self.gains if not gain.varies]

    @property
    def over(self) -> str:
        """The datasets of the pooled gain, in words."""
        pooled = len(self.gains) - len(self.unpooled)
        return f"{pooled} of {len(self.gains)} datasets" if self.unpooled else f"all {pooled} datasets"

    @property
    def gain(self) -> float:
        """Its pooled gain, or that on its only dataset; -infinity without any."""
        if self.pooled is not None:
            return self.pooled.test.mean
        return max((gain.difference.test.mean for gain in self.gains), default=-math.inf)


@dataclass(frozen=True)
class Standing:
    """One row among all whole models."""

    row: Row
    rank: MeanRank | None
    """Its mean rank; None if it lacks a dataset."""
    lacks: tuple[str, ...]
    """Datasets on which it has no complete seed."""
    one_training: bool
    """Whether it has one training on some dataset without being deterministic, so that its seeds are not resampled."""
    wins: tuple[tuple[int, int, int], ...]
    """Against each row in the order of the standings: number of datasets on which it is better, equal and worse."""


@dataclass(frozen=True)
class AcrossDatasets:
    """What all datasets of the suite say together, on the report's metric."""

    metric: str
    datasets: tuple[str, ...]
    rows: tuple[RowAcross, ...]
    """The rows of the report's findings, the one with the highest gain first."""
    standings: tuple[Standing, ...]
    """All whole models, the best mean rank first, those without one last; empty with one dataset."""
    friedman: Friedman | None
    """Of the rows with a mean rank; None with few datasets, where the test finds next to nothing."""
    enough: int
    """Number of datasets from which Friedman's test is made."""

    @property
    def several(self) -> bool:
        """Whether there are datasets to pool or to rank over."""
        return len(self.datasets) > 1

    @property
    def cut(self) -> bool:
        """Whether an interval of a gain is cut at -100%."""
        lows = [gain.difference.test.low for row in self.rows for gain in row.gains]
        lows += [low for row in self.rows if row.pooled for low in (row.pooled.test.low, row.pooled.low)]
        return any(low <= -1 for low in lows)


@dataclass(frozen=True)
class FairnessLine:
    """What one row was given on one dataset: a search, and training."""

    dataset: str
    row: Row
    complete: int | None
    """Complete trials of the search that its settings are from; None without one, as for the next five."""
    pruned: int | None
    failed: int | None
    search_seconds: float | None
    """Seconds of training of all trials."""
    searched: int | None
    """Number of searched settings."""
    seen: float | None
    """Share of the space that trials have tried, mean over the settings; see `StudyResult.seen`."""
    train_seconds: float | None
    """Seconds of training of the final trainings, mean over seeds."""
    epochs: int | None
    """Epochs that a training may take; None for a model that counts."""
    best_epochs: tuple[int, ...]
    rising: int
    """Number of trainings that were still improving when their last epoch ended."""
    exhausted: bool = False
    """Whether its search has tried every point of a finite space, so that a larger budget would bring nothing."""

    @property
    def trials(self) -> int | None:
        """Number of complete and pruned trials, which the budget counts."""
        return None if self.complete is None else self.complete + (self.pruned or 0)


@dataclass(frozen=True)
class Fairness:
    """How fair the comparison was: what each row was given."""

    lines: tuple[FairnessLine, ...]
    sentences: tuple[str, ...]
    """What was tuned, and whether budgets were equal; what favours some rows first."""
    not_tuned: str = ""
    """Of these, the one that names rows which are not tuned though others are; empty if there is none."""
    unequal: tuple[str, ...] = ()
    """Datasets on which budgets were not equal."""
    first: tuple[str, ...] = ()
    """What the first screen says of budgets that favour no row, in sentences on all datasets."""


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
    """The suite's."""
    left_out: tuple[str, ...]
    """Datasets of the suite that were not run, because their raw files were not there."""
    cut_off: tuple[CutOff, ...]
    """Rows with trainings whose best epoch is the last one allowed."""
    metric: str
    """Of summary, charts and slices."""
    findings: tuple[Comparison, ...]
    """The comparisons that the page begins with: proposed rows, or all, on `metric`."""
    across: AcrossDatasets
    """What all datasets say together about the rows of the findings."""
    results: ResultTable
    comparisons: tuple[Comparison, ...]
    """Every row against the baseline, by dataset and metric."""
    all_pairs: tuple[AllPairsTable, ...]
    """With `family = "all-pairs"`."""
    controls: tuple[Comparison, ...]
    """Every row that uses providers against itself on data with other providers, per dataset, control and metric. The
    display name of the reference ends with the control, like "IPSRec-S, shuffled providers"."""
    control_gains: tuple[Comparison, ...]
    """The references of `controls` against the baselines of their rows."""
    ablation: AblationTable | None
    slices: tuple[SliceTable, ...]
    novelty: tuple[NoveltyLine, ...]
    protocols: ProtocolTable | None
    """None if the suite has one protocol."""
    order: Order | None
    """None if no dataset has two complete rows."""
    sampled: Sampled | None
    """None without a dataset with two rows."""
    datasets: tuple[DatasetLine, ...]
    curves: tuple[Curves, ...]
    hits: tuple[HitCurve, ...]
    seed_scores: tuple[SeedScore, ...]
    surfaces: tuple[Surface, ...]
    fairness: Fairness
    tuned: tuple[Tuned, ...]
    """Studies of the run's models on the run's data, with the run's settings."""
    other_studies: tuple[str, ...]
    """Studies of the run's models on its data that were made under other settings, and what differs; then how many are
    of the suite's further protocols."""
    unread_studies: tuple[str, ...]
    """A sentence for each tuning study that could not be read: where it lies and what is wrong with it."""
    costs: tuple[CostLine, ...]
    published: tuple[AgainstPaper, ...]
    seeds: int
    """Number of seeds that the suite asks for."""
    split: str
    """The suite's split with its shares."""
    baseline_rule: str
    chosen_on_test: tuple[str, ...]
    """Datasets whose best baseline is chosen on the test targets, because validation ranks are missing."""
    family_rule: str
    test: str
    """The declared test, as the setting names it."""
    test_rule: str
    """The declared test, in words."""
    slice_rule: str
    """The test of slices, in words."""
    correction_rule: str
    interval_rule: str
    protocol: tuple[tuple[str, str], ...]
    settings: tuple[SettingsLine, ...]
    """The resolved settings of every row's model."""
    provenance: tuple[CellLine, ...]
    environments: tuple[Environment, ...]
    warnings: tuple[str, ...]
    """How cells of one table differ that should be alike."""
    notes: tuple[str, ...]
    """Why something is not compared, or cannot differ."""
    alpha: float
    confidence: float
    suite_text: str
    overrides: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The title, marked if data are stand-ins."""
        stand_ins = [line.statistics.stand_in for line in self.datasets]
        if not any(stand_ins):
            return self.title
        return f"{self.title} [{'stand-in data' if all(stand_ins) else 'with stand-in data'}]"

    @property
    def targets_of(self) -> str:
        """Whose targets the dataset table describes."""
        split = f"under the split {self.split}"
        left_out = any(line.test is not None and line.test.left_out for line in self.datasets)
        return f"{split}, also of the users left out" if left_out else split

    @property
    def caution(self) -> str:
        """Caution beside every table: which datasets are stand-ins, samples or have changed providers; may be empty."""
        made_up = [line.label for line in self.datasets if line.statistics.stand_in]
        sampled = [
            f"{line.label} ({100 * line.statistics.scale:g}%)" for line in self.datasets if line.statistics.scale < 1
        ]
        parts = []
        if made_up:
            parts.append(
                f"Stand-in data at a scale of {self.scale:g}: {', '.join(made_up)}. Generated in the shape of the"
                " published datasets, about which these figures say nothing."
            )
        if sampled:
            parts.append(f"Samples of the users, chosen by a hash of their ids: {', '.join(sampled)}.")
        changed = [f"{line.label} ({line.control})" for line in self.datasets if line.control]
        if changed:
            parts.append(f"The providers are not the data's own: {', '.join(changed)}.")
        return " ".join(parts)


@dataclass(frozen=True)
class PastRun:
    """One run of a suite, as the store knows it now."""

    run: int
    started: datetime
    versions: tuple[str, ...]
    """Of ipsrec-bench, with which its cells were trained."""
    cells: int
    complete: int
    failed: int
    changes: tuple[str, ...] | None
    """A clause for each setting that differs from the run before; None for the first run."""
    values: Mapping[tuple[str, Row], float]
    """By dataset and row, the metric, mean over seeds."""


@dataclass(frozen=True)
class History:
    """The runs of a suite."""

    metric: str
    runs: tuple[PastRun, ...]
    """Newest first."""
