"""Results of a study and its trials, as plain data: a search fills them in, a report shows them.

Nothing here imports optuna or torch, so that a report can read it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ipsrec_bench.suite.cells import REFIT
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.words import counted

_TUNED = re.compile(r"tuned, ([0-9,]+) trials?")
"""What `StudyResult.words` returns."""


def trials_in(words: str) -> int | None:
    """Return the number of trials of `StudyResult.words`; None if `words` are others."""
    found = _TUNED.fullmatch(words)
    return int(found[1].replace(",", "")) if found else None


def parts_of(name: str) -> tuple[str, ...]:
    """Return the keys of a setting: one of `tau`, two of `training.learning_rate`, three of `tasks.NAME.weight`."""
    table, _, rest = name.partition(".")
    if table == "tasks" and rest:
        task, _, key = rest.rpartition(".")  # the name of a task may hold dots
        return (table, task, key)
    return (table, *((rest,) if rest else ()))


def split_settings(settings: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a cell's settings without those called `names`, and these alone by their names.

    A setting that a cell leaves out at its default counts as that default if it belongs to the training, else as None.
    """
    config, training = dict(settings.get("config", {})), dict(settings.get("training", {}))  # an import has neither
    training.pop(REFIT, None)  # no trial trains again
    settings = {name: value for name, value in settings.items() if name != REFIT}  # where a model that counts has it
    tasks = {task: dict(table) for task, table in config.get("tasks", {}).items()}
    searched: dict[str, Any] = {}
    for name in names:
        table, *rest = parts_of(name)
        if not rest:
            searched[name] = config.pop(name, None)
        elif table == "training":
            default = Training.model_fields[rest[0]].default if rest[0] in Training.model_fields else None
            searched[name] = training.pop(rest[0], default)
        else:
            searched[name] = tasks.get(rest[0], {}).pop(rest[1], None)
    if tasks:
        config["tasks"] = tasks
    return {**settings, "config": config, **({"training": training} if "training" in settings else {})}, searched


def as_table(chosen: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return chosen settings as the table of a model or a variant; `tasks` are the further tasks that it has."""
    table: dict[str, Any] = {}
    if any(parts_of(name)[0] == "tasks" for name in chosen):
        table["tasks"] = {task: dict(own) for task, own in tasks.items()}
    for name, value in chosen.items():
        *outer, key = parts_of(name)
        inner = table
        for part in outer:
            inner = inner.setdefault(part, {})
        if value is not None:  # a setting that is not set
            inner[key] = value
    return table


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
    """Trials whose settings were given up: training failed with them, or too many processes were killed."""
    logarithmic: frozenset[str]
    """Settings that are searched by their logarithm."""
    importance: Mapping[str, float]
    """Relative importance of each setting for reaching the best quarter of the trials (PED-ANOVA; Watanabe, Bansal and
    Hutter, IJCAI 2023); empty with one setting, or with too few trials."""
    fixed: Mapping[str, Any] | None = None
    """The settings that were not searched, as in a cell; None in studies of older versions, which did not keep them."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """For each searched setting, the share of its space that trials have tried: of the values of a list, or of ten
    equal parts of a range (of its logarithm if that is searched). Settings outside the space do not count."""
    exhausted: bool = False
    """Whether the space is finite and trials have tried every point of it, so that a larger budget brings nothing."""

    def first(self, number: int) -> "StudyResult":
        """Return the results of the study as if it had ended after its first `number` trials.

        Failed trials count whenever they were; what is known of all trials only, `importance`, `seen` and
        `exhausted`, is left out.
        """
        more = self.trials[number:]
        if not more:
            return self
        seconds = max(0.0, self.seconds - sum(trial.seconds for trial in more))
        return replace(self, trials=self.trials[:number], seconds=seconds, importance={}, seen={}, exhausted=False)

    @property
    def pruned(self) -> int:
        """Number of trials that were pruned."""
        return sum(trial.pruned for trial in self.trials)

    @property
    def words(self) -> str:
        """What tables say beside a row that has the best settings."""
        return f"tuned, {counted(len(self.trials), 'trial')}"

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
