"""The settings of models that encode items and providers in several streams."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import (
    DROPOUTS,
    HEAVIEST,
    MOST_WEIGHTS,
    WIDEST,
    Rate,
    TransformerConfig,
    filled_in,
)
from ipsrec_bench.models.configs.providers import ProviderPredictionConfig
from ipsrec_bench.models.stages import TaskUse
from ipsrec_bench.settings import LinearRange, LogRange


class MSSRConfig(ProviderPredictionConfig):
    """Settings of `ipsrec_bench.models.mssr`. `preset = "released"` selects what the authors' code does differently.

    The sizes are this toolkit's; the other defaults are those of github.com/xiaolLIN/MSSR (its command line and its
    configuration for Amazon Beauty). That code searches the numbers of layers and heads, and both weights.

    Searched: dropout and both weights, from the authors' runs.
    """

    search = {  # noqa: RUF012 (a class variable by its base)
        "hidden_dropout": DROPOUTS,
        "attribute_weight": (2.0, 5.0, 7.0, 9.0),
        "contrast_weight": LogRange(0.02, 0.5),
    }

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    attention_dropout: Rate = 0.3
    attribute_size: int | None = Field(None, ge=1, le=WIDEST)
    """Dimension of the provider vectors; `embedding_size` if not set. `n_heads` must divide it."""
    attribute_weight: float = Field(5.0, ge=0, le=HEAVIEST)
    """Weight of the loss that predicts the next item's provider (2 to 9 in the authors' runs); 0 disables it."""
    contrast_weight: float = Field(0.1, ge=0, le=HEAVIEST)
    """Weight of the contrastive loss between the two streams (0.08 to 0.14 in the authors' runs); 0 disables it."""
    tau: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature of the contrastive loss."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two streams: dot product or cosine."""
    contrast_dropout: Rate = 0.5
    """Dropout rate of the item stream's vector before the contrastive loss maps it to the provider stream."""
    same_user_negatives: bool = False
    """Whether other samples of the same user are negatives of the contrastive loss, too, as in the released code."""
    positions: Literal["forward", "backward"] = "forward"
    """How positions are counted: `forward` from the oldest interaction, or `backward` from the newest, as released.
    Counted backward, a state depends on the length of its history, so the model is trained on prefixes."""
    provider_layer: Literal["first", "last"] = "last"
    """The layer from which the provider stream is read. As released it is the first, whatever `n_layers` is; later
    layers then have no provider stream here."""
    raw_scores: bool = False
    """Whether the gate reads a query's scores of later and of padded keys, as released. States before the last then see
    the future, so the model is trained on prefixes, and results depend on the maximum length."""
    frozen_providers: bool = False
    """Whether provider vectors keep their initial values, drawn from N(0, 1), as released."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        flags = ("same_user_negatives", "raw_scores", "frozen_providers", "unknown_class", "padding_class")
        released = {"positions": "backward", "provider_layer": "first", **dict.fromkeys(flags, True)}
        return filled_in(value, {"released": released})

    @model_validator(mode="after")
    def _heads_divide_providers(self) -> Self:
        if self.attribute_size is not None and self.attribute_size % self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} must divide attribute_size = {self.attribute_size}")
        return self

    @property
    def packs(self) -> bool:
        """Not if a state depends on later positions, or if samples of one user are each other's negatives."""
        contrasts_users = self.same_user_negatives and self.contrast_weight > 0
        return self.positions == "forward" and not self.raw_scores and not contrasts_users

    @property
    def longest_history(self) -> int:
        """Maximum history length L: the gate has L^2 weights in each layer."""
        return math.isqrt(MOST_WEIGHTS // self.n_layers)

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, its provider, and the contrast of the streams, except those of weight 0."""
        if not self.contrast_weight:
            return super().own_tasks()
        settings = {key: getattr(self, key) for key in ("tau", "similarity", "same_user_negatives")}
        return (*super().own_tasks(), TaskUse("stream-contrast", self.contrast_weight, settings))


class DIFFConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.diff`. `preset = "released"` selects what the authors' code does differently.

    The sizes are this toolkit's; the other defaults are those of github.com/HyeYoung1218/DIFF for Amazon Beauty.

    Searched: dropout, the weight of the item stream, and that of the alignment, as in the paper.
    """

    search = {"hidden_dropout": DROPOUTS, "alpha": LinearRange(0.1, 0.9), "align_weight": LogRange(0.2, 20.0)}  # noqa: RUF012 (a class variable by its base)

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    attention_dropout: Rate = 0.3
    fusion: Literal["sum", "concat", "gate"] = "concat"
    """How items, providers and positions are combined: their vectors in the fused stream, and their attention scores
    in the item stream."""
    c: int = Field(5, ge=0, le=2 * WIDEST)
    """The filter's low part consists of the first c // 2 + 1 frequencies."""
    alpha: float = Field(0.3, ge=0, le=1)
    """Weight of the item stream in the user vector; that of the fused stream is 1 - alpha."""
    align_weight: float = Field(2.0, ge=0, le=HEAVIEST)
    """Weight of the loss that aligns items with their providers; 0 disables it. The authors' code also divides the loss
    by the maximum length: its 100 at length 50 is 2 here."""
    align_temperature: float = Field(0.1, ge=1e-4, le=HEAVIEST)
    """Temperature of that loss."""
    unknown_class: bool = False
    """Whether that loss counts the unknown provider as one like the others, as in the released code, which has none."""
    padded_alignment: bool = False
    """Whether that loss counts padding, as released: padded columns are negatives, and padded rows count in the mean,
    which divides the loss by the maximum length."""
    padded_filter: bool = False
    """Whether the filter transforms all columns up to the maximum length, padding included, as released. If not, it
    transforms the real positions of each history."""
    raw_scores: bool = False
    """Whether `concat` and `gate` read a query's scores of later and of padded keys, as released."""
    frozen_providers: bool = False
    """Whether provider vectors keep their initial values, drawn from N(0, 1), as released."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        flags = ("unknown_class", "padded_alignment", "padded_filter", "raw_scores", "frozen_providers")
        released = {"align_weight": 100.0, "padding_class": True, **dict.fromkeys(flags, True)}
        return filled_in(value, {"released": released})

    @property
    def longest_history(self) -> int | None:
        """Maximum history length L: `concat` and `gate` have up to 3 L^2 weights in each layer."""
        return None if self.fusion == "sum" else math.isqrt(MOST_WEIGHTS // (3 * self.n_layers))

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and the alignment unless its weight is 0."""
        if not self.align_weight:
            return super().own_tasks()
        settings = {
            "temperature": self.align_temperature,
            "unknown_class": self.unknown_class,
            "padding": self.padded_alignment,
        }
        return (*super().own_tasks(), TaskUse("alignment", self.align_weight, settings))
