"""What a model is trained for: stages of weighted tasks, as data, so that a suite is checked without torch.

A task computes one loss (`ipsrec_bench.training.tasks`). A stage is a list of tasks that are trained together. Most
models have one stage; a model that is pretrained has another one before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """As the task's settings class takes them."""


@dataclass(frozen=True)
class Stage:
    """Tasks that are trained together."""

    tasks: tuple[TaskUse, ...]
    name: str = MAIN
    """Name in the learning curves."""
    samples: Samples = "targets"
    epochs: int | None = None
    """Number of epochs of a stage before the main one. None in the main stage, whose number is a training setting."""
    copies: int = 1
    """How often an epoch goes through the samples; each time the tasks draw anew."""
    stride: float = 1.0
    """Of histories: distance between the windows of a long one, as a share of the maximum length. Below 1, windows
    overlap."""

    def __post_init__(self) -> None:
        """Check that exactly the main stage leaves its number of epochs to the training settings.

        Raises:
            ValueError: it does not.
        """
        if (self.name == MAIN) != (self.epochs is None):
            raise ValueError(f"stage '{self.name}': only the stage '{MAIN}' has no number of epochs of its own")
