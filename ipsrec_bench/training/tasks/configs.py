"""The settings of every task, kept free of torch so that a suite is checked without importing it."""

from typing import Literal

from pydantic import Field, field_validator

from ipsrec_bench.settings import Settings

HEAVIEST = 1e6
"""Upper bound on temperatures and weights."""


class PairContrastConfig(Settings):
    """Settings of a contrastive loss between two views of each history (NT-Xent)."""

    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two views."""
    same_user_negatives: bool = False
    """Whether views of other histories of the same user are negatives, too. Of prefix samples, a batch has several of a
    user; of packed ones, only those of long histories that are cut."""


Operator = Literal["crop", "mask", "reorder", "slide"]


class AugmentationConfig(Settings):
    """Settings of the operators that change a history (`ipsrec_bench.training.augmentation`)."""

    operators: tuple[Operator, ...] = ("crop", "mask", "reorder")
    """Operators to draw from. `mask` needs a model with a mask token."""
    eta: float = Field(0.6, gt=0, le=1)
    """Share of a history that `crop` keeps."""
    gamma: float = Field(0.3, ge=0, le=1)
    """Share of the items that `mask` hides."""
    beta: float = Field(0.6, ge=0, le=1)
    """Share of a history whose order `reorder` shuffles."""
    window: int = Field(10, ge=1, le=1_000_000)
    """Number of interactions that `slide` keeps."""

    @field_validator("operators")
    @classmethod
    def _differ(cls, operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
        if len(set(operators)) < len(operators):
            raise ValueError("an operator is given twice")
        return operators


class AugmentedNextItemConfig(AugmentationConfig):
    """Settings of `ipsrec_bench.training.tasks.augmented_next_item`."""

    operators: tuple[Operator, ...] = Field(("crop", "mask", "reorder", "slide"), min_length=1)
    """Operators of which each history gets one, drawn at random. `mask` needs a model with a mask token."""


class AugmentedContrastConfig(PairContrastConfig, AugmentationConfig):
    """Settings of `ipsrec_bench.training.tasks.augmented_contrast`."""

    operators: tuple[Operator, ...] = Field(("crop", "mask", "reorder"), min_length=2)
    """Operators of which each history gets two different ones, drawn at random. `mask` needs a model with a mask
    token."""


class SameTargetContrastConfig(PairContrastConfig):
    """Settings of `ipsrec_bench.training.tasks.same_target_contrast`."""

    contrast: Literal["un", "su", "us", "us_x"] = "us"
    """Which views are contrasted. `un` (unsupervised): two dropout passes of a history. `su` (supervised): the history
    and another one with the same target. `us`: the sum of both. `us_x`: the second dropout pass and the history with
    the same target."""
    semantic_weight: float = Field(1.0, ge=0)
    """Weight of `su` in the sum of `us`, where `un` has the weight 1."""


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


class ProviderPredictionConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.provider_prediction`."""

    unknown_class: bool = False
    """Whether the unknown provider is a class like the others. If not, it has no logit, and a target whose provider is
    unknown has no positive."""


class StreamContrastConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.stream_contrast`."""

    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two vectors."""
    same_user_negatives: bool = False
    """Whether other samples of the same user are negatives, too."""


class AlignmentConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.alignment`."""

    temperature: float = Field(0.1, ge=1e-4, le=HEAVIEST)
    """Temperature."""
    unknown_class: bool = False
    """Whether the unknown provider is one like the others. If not, an interaction that has it belongs to no pair."""
    padding: bool = False
    """Whether padding counts, as in the released code of DIFF: padded columns are negatives, and padded rows count in
    the mean, which divides the loss by the number of columns."""


class ClozeConfig(Settings):
    """Settings of `ipsrec_bench.training.tasks.cloze`, as in the settings of BERT4Rec."""

    mask_ratio: float = Field(0.2, gt=0, le=1)
    """Share of a history's items that are hidden."""
    masks: Literal["share", "each"] = "share"
    """Whether exactly that share is hidden (at least one item), or every item with that probability."""
    last_share: float = Field(0.0, ge=0, le=1)
    """Probability that the last item is the only hidden one."""
    last_for: Literal["history", "batch"] = "history"
    """Whether that is drawn for every history, or for a whole batch."""
    counted: Literal["all", "recbole"] = "all"
    """Hidden items that enter the loss: all, or those that RecBole counts."""
    loss: Literal["catalogue", "bpr"] = "catalogue"
    """Loss of a hidden item: over the catalogue, or against one negative."""


class MaskingConfig(Settings):
    """Settings of the tasks of S3-Rec that hide items: those with equal settings share one encoding."""

    mask_ratio: float = Field(0.2, gt=0, le=1)
    """Probability that an item is hidden."""
