"""The settings of baselines that see providers."""

import math
from operator import not_
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DROPOUTS, HEAVIEST, MOST_WEIGHTS, WIDEST, TransformerConfig, filled_in
from ipsrec_bench.models.stages import TaskUse


class SASRecFConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.sasrec_f`."""

    fusion: Literal["sum", "concat"] = "sum"
    """How item and provider embeddings are combined: `sum`, or `concat` followed by a projection from 2d to d, as in
    RecBole."""


class FDSAConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.fdsa`. `preset = "recbole"` selects what RecBole does differently."""

    preset: Literal["paper", "recbole"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    shared_input: bool = Field(False, exclude_if=not_)
    """Whether both streams have one position table and one layer normalisation, which is also applied to the joined
    output, before dropout, as in RecBole. If not, each stream has its own, and the output has none."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"recbole": {"shared_input": True, "padding_class": True}})


class ProviderPredictionConfig(TransformerConfig):
    """Settings of an auxiliary loss that predicts the next item's provider."""

    attribute_weight: float = Field(10.0, ge=0, le=HEAVIEST)
    """Weight of the loss that predicts the next item's provider (lambda in the DIF-SR paper, which searches 5 to 25);
    0 disables it."""
    unknown_class: bool = Field(False, exclude_if=not_)
    """Whether that loss counts the unknown provider as a class like the others, as the released code of DIF-SR does."""

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and its provider unless the weight is 0."""
        if not self.attribute_weight:
            return super().own_tasks()
        settings = {"unknown_class": self.unknown_class}
        return (*super().own_tasks(), TaskUse("provider-prediction", self.attribute_weight, settings))


class DIFSRConfig(ProviderPredictionConfig):
    """Settings of `ipsrec_bench.models.dif_sr`. `preset = "released"` selects what the authors' code does differently.

    That code searches the fusion and the width of the providers.

    Searched: dropout, weight of the provider's prediction (5 to 25 in the paper), and width of the providers.
    """

    search = {  # noqa: RUF012 (a class variable by its base)
        "hidden_dropout": DROPOUTS,
        "attribute_weight": (5.0, 10.0, 15.0, 25.0),
        "attribute_size": (16, 32, 64, 128),
    }

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    fusion: Literal["sum", "concat", "gate"] = Field("sum", exclude_if=lambda fusion: fusion == "sum")
    """How the attention scores of items, providers and positions are combined."""
    attribute_size: int | None = Field(None, ge=1, le=WIDEST, exclude_if=not_)
    """Dimension of the provider vectors; `embedding_size` if not set. `n_heads` must divide it."""
    raw_scores: bool = Field(False, exclude_if=not_)
    """Whether `concat` and `gate` read a query's scores of later and of padded keys, as released. States before the
    last then see the future, so the model is trained on prefixes, and results depend on the maximum length."""
    frozen_providers: bool = Field(False, exclude_if=not_)
    """Whether provider vectors keep their initial values, drawn from N(0, 1), as released."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        released = dict.fromkeys(("unknown_class", "raw_scores", "frozen_providers", "padding_class"), True)
        return filled_in(value, {"released": released})

    @model_validator(mode="after")
    def _heads_divide_providers(self) -> Self:
        if self.attribute_size is not None and self.attribute_size % self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} must divide attribute_size = {self.attribute_size}")
        return self

    @property
    def packs(self) -> bool:
        """Not if a position sees scores of later keys."""
        return self.fusion == "sum" or not self.raw_scores

    @property
    def longest_history(self) -> int | None:
        """Maximum history length L: `concat` and `gate` have up to 3 L^2 weights in each layer."""
        return None if self.fusion == "sum" else math.isqrt(MOST_WEIGHTS // (3 * self.n_layers))
