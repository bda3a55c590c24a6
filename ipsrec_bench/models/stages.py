"""What a model is trained for: stages of weighted tasks, as data, so that a suite is checked without torch.

A task computes one loss (`ipsrec_bench.training.tasks`). A stage is a list of tasks that are trained together. Most
models have one stage; a model that is pretrained has another one before it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

from ipsrec_bench.errors import listed

Samples = Literal["targets", "histories", "interactions"]
"""What a batch of a stage consists of.

`targets`: training targets with the histories before them, packed or as prefixes. `histories`: the training part of
each user's history, in windows, without targets. `interactions`: single training interactions."""
MAIN = "main"
"""Name of the stage that every training ends with. It alone is validated, and chooses the best epoch."""


@dataclass(frozen=True)
class TaskUse:
    """A task of a stage: its name, its weight in the sum of losses, and its settings."""

    name: str
    """Name in the registry of tasks, or `module:Class`."""
    weight: float = 1.0
    """Factor of its loss in the sum."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As the task's settings class takes them."""

    def __post_init__(self) -> None:
        """Check the weight.

        Raises:
            ValueError: it is negative or not finite.
        """
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"task '{self.name}': found the weight {self.weight}; it must be a finite number from 0")


@dataclass(frozen=True)
class Stage:
    """Tasks that are trained together."""

    tasks: tuple[TaskUse, ...]
    """What is trained; each task only once."""
    name: str = MAIN
    """Name in the learning curves."""
    samples: Samples = "targets"
    """What a batch consists of: `targets` with the histories before them, packed or as prefixes; `histories`, the
    training part of each user's history in windows, without targets; or single `interactions`."""
    epochs: int | None = None
    """Number of epochs of a stage before the main one. None in the main stage, whose number is a training setting."""
    copies: int = 1
    """How often an epoch goes through the samples; each time the tasks draw anew."""
    stride: float = 1.0
    """Of histories: distance between the windows of a long one, as a share of the maximum length. Below 1, windows
    overlap."""

    def __post_init__(self) -> None:
        """Check what is declared.

        Raises:
            ValueError: something cannot be trained; among others, exactly the main stage leaves its number of epochs to
                the training settings.
        """
        for wrong in self._mistakes():
            raise ValueError(f"stage '{self.name}': {wrong}")

    def _mistakes(self) -> Iterator[str]:
        kinds = get_args(Samples)
        if not (isinstance(self.tasks, tuple | list) and all(isinstance(use, TaskUse) for use in self.tasks)):
            yield "its tasks must be a tuple of TaskUse, as in (TaskUse('next-item'),)"
        if self.samples not in kinds:
            yield f"found samples = {self.samples!r}; allowed: {listed(kinds)}"
        if self.name == MAIN and self.epochs is not None:
            yield f"found epochs = {self.epochs!r}; the suite sets that of the last stage, as training.epochs"
        if self.name != MAIN and not _is_count(self.epochs):
            yield f"found epochs = {self.epochs!r}; it must be a whole number from 1 (only the stage '{MAIN}' has none)"
        if not _is_count(self.copies):
            yield f"found copies = {self.copies!r}; it must be a whole number from 1"
        if not 0 < self.stride <= 1:
            yield f"found stride = {self.stride}; it must be above 0 and at most 1"


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1
