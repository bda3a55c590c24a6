"""The settings of baselines that see providers."""

from typing import Literal

from pydantic import Field

from ipsrec_bench.models.configs.base import HEAVIEST, TransformerConfig
from ipsrec_bench.models.stages import TaskUse


class SASRecFConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.sasrec_f`."""

    fusion: Literal["sum", "concat"] = "sum"
    """How item and provider embeddings are combined: `sum`, or `concat` followed by a projection from 2d to d."""


class ProviderPredictionConfig(TransformerConfig):
    """Settings of an auxiliary loss that predicts the next item's provider."""

    attribute_weight: float = Field(10.0, ge=0, le=HEAVIEST)
    """Weight of the loss that predicts the next item's provider (lambda in the DIF-SR paper, which searches 5 to 25);
    0 disables it."""

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, and its provider unless the weight is 0."""
        provider = TaskUse("provider-prediction", self.attribute_weight)
        return (*super().own_tasks(), *((provider,) if self.attribute_weight else ()))
