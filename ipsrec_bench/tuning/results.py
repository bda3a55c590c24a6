"""Results of a study and its trials, as plain data: a search fills them in, a report shows them.

Nothing here imports optuna or torch, so that a report can read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TUNED = "tuned"
"""The variant of a model that has the best settings of a search: a separate row, not part of an ablation."""


@dataclass(frozen=True)
class TrialResult:
    """One ended trial."""

    number: int
    settings: Mapping[str, Any]
    value: float
    """Mean over seeds of the best validation metric; for a pruned trial, the value it had reached."""
    pruned: bool
    by_seed: tuple[float, ...]
    """Best validation metric of every seed that was trained to its end."""
    epochs: int
    """Number of trained epochs over all seeds."""
    seconds: float


@dataclass(frozen=True)
class StudyResult:
    """Results and costs of a study; trials in the order of their numbers."""

    name: str
    place: str
    """Storage of the study."""
    dataset: str
    model: str
    metric: str
    fingerprint: str
    """Fingerprint of the dataset."""
    seeds: tuple[int, ...]
    sampler: str
    pruner: str
    default: Mapping[str, Any]
    """The settings before the search."""
    trials: tuple[TrialResult, ...]
    seconds: float
    """Training time over all trials, including those that failed or were killed; budgets count this."""
    failed: int
    """Trials that ended in an error or were killed."""
    logarithmic: frozenset[str]
    """Settings that are searched by their logarithm."""
    importance: Mapping[str, float]
    """Relative importance of each setting for reaching the best quarter of the trials (PED-ANOVA; Watanabe, Bansal and
    Hutter, IJCAI 2023); empty with one setting, or with too few trials."""
    fixed: Mapping[str, Any] | None = None
    """The settings that were not searched, as in a cell; None in studies of older versions, which did not keep them."""

    @property
    def pruned(self) -> int:
        """Number of trials that were pruned."""
        return sum(trial.pruned for trial in self.trials)

    @property
    def epochs(self) -> int:
        """Number of trained epochs over all trials."""
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
        """The trial with the settings before the search."""
        return next((t for t in self.trials if t.settings == self.default), None)
