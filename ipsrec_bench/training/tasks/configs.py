"""The settings of every task, kept free of torch so that a suite is checked without importing it."""

from typing import Literal

from pydantic import Field

from ipsrec_bench.settings import Settings

HEAVIEST = 1e6
"""Upper bound on temperatures and weights."""


Reduction = Literal["mean", "sum"]


class BPRConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.bpr`."""

    reduction: Reduction = "mean"
    """Whether the loss is the mean or the sum over the samples of a batch."""


class GraphContrastConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.graph_contrast`."""

    tau: float = Field(0.2, ge=1e-4, le=HEAVIEST)
    """Temperature."""
    drop_ratio: float = Field(0.1, ge=0, le=0.99)
    """Share of the edges that each view drops."""
    reduction: Reduction = "mean"
    """Whether the loss is the mean or the sum over the samples of a batch."""


class RowPenaltyConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.row_penalty`."""

    form: Literal["squares", "norms"] = "squares"
    """`squares`: half the squared norms of the rows of a sample. `norms`: the norms of the three matrices of rows, not
    squared, divided by the size of the batch."""
    reduction: Reduction = "mean"
    """Whether the squares are averaged or summed over the samples of a batch."""


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
