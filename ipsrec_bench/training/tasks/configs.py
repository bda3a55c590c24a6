"""The settings of every task, kept free of torch so that a suite is checked without importing it."""

from typing import Literal

from pydantic import Field

from ipsrec_bench.settings import Settings

HEAVIEST = 1e6
"""Upper bound on temperatures and weights."""


class ProviderContrastConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.provider_contrast`, as in the settings of the IPSRec models."""

    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature."""
    contrast: Literal["item-to-provider", "symmetric", "nt-xent"] = "item-to-provider"
    """Form of the loss: eq. 12, the mean of both directions, or both with negatives from both views."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two views."""
    same_user_negatives: bool = False
    """Whether other samples of the same user are negatives, too."""


class ProviderPredictionConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.provider_prediction`."""

    unknown_class: bool = False
    """Whether the unknown provider is a class like the others. If not, it has no logit, and a target whose provider is
    unknown has no positive."""
