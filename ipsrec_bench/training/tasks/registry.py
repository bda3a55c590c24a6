"""Every task by name, and your own classes. Nothing here imports torch until a task of your own is looked up."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.models.stages import Samples, TaskUse
from ipsrec_bench.own_code import hash_of_code, imported, own_class
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.tasks import configs

if TYPE_CHECKING:
    from ipsrec_bench.training.tasks.api import Task


@dataclass(frozen=True)
class TaskEntry:
    """What is known about a task before it is built."""

    config: type[Settings]
    path: str
    """`module:Class`, imported when the task is built."""
    uses_providers: bool = False
    """Whether its loss depends on providers."""
    code: str = ""
    """Hash of the source files of a task outside the toolkit: a changed file gives new cells."""

    @property
    def samples(self) -> frozenset[str]:
        """The kinds of batches that it can be computed on; this imports its class, and so torch."""
        found: frozenset[str] = imported(self.path).samples
        return found


def _entry(path: str, config: type[Settings] = Settings, *, providers: bool = False) -> TaskEntry:
    return TaskEntry(config, f"{__package__}.{path}", providers)


REGISTRY: dict[str, TaskEntry] = {
    "augmented-contrast": _entry("augmented_contrast:AugmentedContrast", configs.AugmentedContrastConfig),
    "augmented-next-item": _entry("augmented_next_item:AugmentedNextItem", configs.AugmentedNextItemConfig),
    "bpr": _entry("bpr:BPR", configs.BPRConfig),
    "graph-contrast": _entry("graph_contrast:GraphContrast", configs.GraphContrastConfig),
    "alignment": _entry("alignment:Alignment", configs.AlignmentConfig, providers=True),
    "next-item": _entry("next_item:NextItem"),
    "next-or-first-item": _entry("next_or_first_item:NextOrFirstItem"),
    "provider-contrast": _entry("provider_contrast:ProviderContrast", configs.ProviderContrastConfig, providers=True),
    "same-target-contrast": _entry("same_target_contrast:SameTargetContrast", configs.SameTargetContrastConfig),
    "row-penalty": _entry("row_penalty:RowPenalty", configs.RowPenaltyConfig),
    "provider-prediction": _entry(
        "provider_prediction:ProviderPrediction", configs.ProviderPredictionConfig, providers=True
    ),
    "stream-contrast": _entry("stream_contrast:StreamContrast", configs.StreamContrastConfig, providers=True),
    "cloze": _entry("cloze:Cloze", configs.ClozeConfig),
    "attribute-prediction": _entry("attribute_prediction:AttributePrediction", configs.MaskingConfig, providers=True),
    "masked-item": _entry("masked_item:MaskedItem", configs.MaskingConfig),
    "masked-attribute": _entry("masked_attribute:MaskedAttribute", configs.MaskingConfig, providers=True),
    "segment": _entry("segment:Segment"),
}


def task_entry(name: str) -> TaskEntry:
    """Return the entry of the task `name`: one of the toolkit's, or a class as `module:Class`.

    Raises:
        ModelError: there is no such task, or its class does not declare what a task must.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    if ":" not in name:
        raise ModelError(
            f"there is no task '{name}'{did_you_mean(name, REGISTRY) or f'; known: {listed(REGISTRY)}'}; write your own"
            " class as 'module:Class'"
        )
    from ipsrec_bench.training.tasks.api import Task

    found = own_class(name, name, (Task,))
    config = found.settings_type
    if not (isinstance(config, type) and issubclass(config, Settings)) or "weight" in config.keys():  # noqa: SIM118
        raise ModelError(f"'{name}' must set 'settings_type' to a class derived from Settings, without a key 'weight'")
    kinds = get_args(Samples)
    if not (isinstance(found.samples, AbstractSet) and found.samples and found.samples <= {*kinds}):
        raise ModelError(f"'{name}' must set 'samples' to a frozenset of one or more of {listed(kinds)}")
    return TaskEntry(found.settings_type, name, found.uses_providers, hash_of_code(found, ""))


def build_task(use: TaskUse) -> "Task[Any]":
    """Import and build a task with its settings."""
    entry = task_entry(use.name)
    task: Task[Any] = imported(entry.path)(entry.config.model_validate(dict(use.settings)))
    return task
