"""A training's learning curve."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ipsrec_bench.models.stages import MAIN


@dataclass(frozen=True)
class Epoch:
    """One epoch of a stage, numbered from 1 in each stage; losses are means over its samples."""

    epoch: int
    loss: float
    """The loss that was minimised: the weighted sum of those of the tasks, and penalties."""
    valid: float | None
    """The stopping metric on the validation targets; None in any stage but the main one."""
    train_seconds: float
    valid_seconds: float
    targets: int
    """Number of samples: training targets, histories or interactions."""
    stage: str = MAIN
    losses: Mapping[str, float] = field(default_factory=dict)
    """The loss of each task before its weight, and `penalty` where there is one."""

    def as_best(self) -> dict[str, str]:
        """Return number and validation metric as metadata of the best weights, from which `best_of` reads them."""
        return {"epoch": str(self.epoch), "valid": repr(self.valid)}


def best_of(about: Mapping[str, str]) -> tuple[int, float] | None:
    """Return number and validation metric of the epoch of a file of best weights; None if its metadata lack them."""
    try:
        return int(about["epoch"]), float(about["valid"])
    except (KeyError, ValueError):
        return None
