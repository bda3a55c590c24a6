"""Results of a study and its trials, as plain data: a search fills them in, a report shows them.

Nothing here imports optuna or torch, so that a report can read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TUNED = "tuned"
"""The variant of a model that has the best settings of a search: a row of its own, not part of an ablation."""


@dataclass(frozen=True)
class TrialResult:
    """One ended trial."""

    number: int
    settings: Mapping[str, Any]
    value: float
    """Mean over seeds of the best validation metric; of a pruned trial, what it had reached."""
    pruned: bool
    by_seed: tuple[float, ...]
    """Best validation metric of every seed that was trained to its end."""
    epochs: int
    """Trained, over all seeds."""
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """What a study found and what it took; trials in the order of their numbers."""

    name: str
    place: str
    """Its storage."""
    dataset: str
    model: str
    metric: str
    fingerprint: str
    """Of the dataset."""
    seeds: tuple[int, ...]
    sampler: str
    pruner: str
    default: Mapping[str, Any]
    """The settings that were there before."""
    trials: tuple[TrialResult, ...]
    seconds: float
    """Of training, over all trials, also those that failed or were killed: what a budget counts."""
    failed: int
    """Trials that ended in an error or were killed."""
    logarithmic: frozenset[str]
    """Settings that are searched by their logarithm."""
    importance: Mapping[str, float]
    """Share of each setting in what sets the best quarter of the trials apart (PED-ANOVA; Watanabe, Bansal and Hutter,
    IJCAI 2023); empty with one setting, or with too few trials."""
    fixed: Mapping[str, Any] | None = None
    """The settings that were not searched, as a cell has them; None if the study, of an older version, has none."""

    @property
    def pruned(self) -> int:
        """Number of trials that were given up."""
        return sum(trial.pruned for trial in self.trials)

    @property
    def epochs(self) -> int:
        """Trained, over all trials."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def complete(self) -> tuple[TrialResult, ...]:
        """Trials that were trained to their end, best first."""
        return tuple(sorted((t for t in self.trials if not t.pruned), key=lambda t: -t.value))

    @property
    def best(self) -> TrialResult | None:
        """The best trial."""
        return next(iter(self.complete), None)

    @property
    def default_trial(self) -> TrialResult | None:
        """The trial of the settings that were there before."""
        return next((t for t in self.trials if t.settings == self.default), None)
