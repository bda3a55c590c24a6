"""The settings of models that count."""

from pydantic import Field

from ipsrec_bench.models.configs.base import ModelConfig


class RecentPopConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.recent_pop`."""

    share: float = Field(0.1, gt=0, le=1)
    """Share of the training interactions in which popularity is counted: the newest by time."""


class ProviderPopConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.provider_pop`."""

    assortment: int = Field(100, ge=1, le=1_000_000)
    """Number of most popular items that each provider in the history contributes."""


class ItemKNNConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.item_knn`."""

    neighbours: int = Field(100, ge=1, le=1_000_000)
    """Number of most similar items that each item in the history contributes."""
