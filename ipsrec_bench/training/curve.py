"""A training's learning curve."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve, numbered from 1; losses are means over its targets."""

    epoch: int
    loss: float
    cross_entropy: float
    contrastive: float | None
    valid: float
    """The stopping metric on the validation targets."""
    train_seconds: float
    valid_seconds: float
    targets: int
