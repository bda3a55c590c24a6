"""The settings of models that count."""

from typing import Annotated

from pydantic import Field

from ipsrec_bench.models.configs.base import ModelConfig
from ipsrec_bench.settings import LogRange


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


class SessionKNNConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.v_sknn`; defaults are those of its code (rn5l/session-rec)."""

    neighbours: int = Field(100, ge=1, le=1_000_000)
    """Number of most similar training histories that score their items."""
    sample_size: int = Field(1000, ge=1, le=1_000_000)
    """Number of newest training histories that share an item, from which the neighbours are taken."""


class STANConfig(SessionKNNConfig):
    """Settings of `ipsrec_bench.models.stan`.

    Defaults are those of the code of rn5l/session-rec, except `time_decay`, which has another unit there.
    """

    sample_size: int = Field(5000, ge=1, le=1_000_000)
    position_decay: Annotated[float, LogRange(0.1, 20.0)] = Field(1.02, ge=1e-2, le=1e6)
    """lambda_1: how far from the end of the history, in positions, its items count."""
    time_decay: Annotated[float, LogRange(1e-3, 10.0)] = Field(1.0, ge=1e-6, le=1e6)
    """lambda_2: how far away in time neighbours count, as a share of the time of the training data."""
    item_decay: Annotated[float, LogRange(0.1, 20.0)] = Field(2.05, ge=1e-2, le=1e6)
    """lambda_3: how far from the shared item, in positions, a neighbour's items count."""


class SequentialRulesConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.sequential_rules`; defaults are those of its code (rn5l/session-rec)."""

    steps: int = Field(10, ge=1, le=1000)
    """Maximum distance of two items of a rule."""
    rules: int = Field(20, ge=1, le=1_000_000)
    """Number of strongest rules that each item keeps."""
