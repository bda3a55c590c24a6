"""The settings of models that count."""

from pydantic import Field

from ipsrec_bench.models.configs.base import ModelConfig
from ipsrec_bench.settings import LogRange


class RecentPopConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.recent_pop`.

    Searched: the share, from a hundredth of the interactions to all.
    """

    search = {"share": LogRange(0.01, 1.0)}  # noqa: RUF012 (a class variable by its base)

    share: float = Field(0.1, gt=0, le=1)
    """Share of the training interactions in which popularity is counted: the newest by time."""


class ProviderPopConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.provider_pop`.

    Searched: the assortment.
    """

    search = {"assortment": (10, 50, 100, 500)}  # noqa: RUF012 (a class variable by its base)

    assortment: int = Field(100, ge=1, le=1_000_000)
    """Number of most popular items that each provider in the history contributes."""


class ItemKNNConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.item_knn`.

    Searched: the number of neighbours, as in Ferrari Dacrema et al. (RecSys 2019).
    """

    search = {"neighbours": (20, 50, 100, 500)}  # noqa: RUF012 (a class variable by its base)

    neighbours: int = Field(100, ge=1, le=1_000_000)
    """Number of most similar items that each item in the history contributes."""


class SessionKNNConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.v_sknn`; defaults are those of its code (rn5l/session-rec).

    Searched: both sizes, as in Ludewig et al. (UMUAI 2021).
    """

    search = {"neighbours": (50, 100, 500, 1500), "sample_size": (500, 1000, 5000, 10000)}  # noqa: RUF012 (a class variable by its base)

    neighbours: int = Field(100, ge=1, le=1_000_000)
    """Number of most similar training histories that score their items."""
    sample_size: int = Field(1000, ge=1, le=1_000_000)
    """Number of newest training histories that share an item, from which the neighbours are taken."""


class STANConfig(SessionKNNConfig):
    """Settings of `ipsrec_bench.models.stan`.

    Defaults are those of the code of rn5l/session-rec, except `time_decay`, which has another unit there.

    Searched: both sizes and all decays, as in Ludewig et al. (UMUAI 2021).
    """

    search = {  # noqa: RUF012 (a class variable by its base)
        **SessionKNNConfig.search,
        "position_decay": LogRange(0.1, 20.0),
        "time_decay": LogRange(1e-3, 10.0),
        "item_decay": LogRange(0.1, 20.0),
    }

    sample_size: int = Field(5000, ge=1, le=1_000_000)
    position_decay: float = Field(1.02, ge=1e-2, le=1e6)
    """lambda_1: how far from the end of the history, in positions, its items count."""
    time_decay: float = Field(1.0, ge=1e-6, le=1e6)
    """lambda_2: how far away in time neighbours count, as a share of the time of the training data."""
    item_decay: float = Field(2.05, ge=1e-2, le=1e6)
    """lambda_3: how far from the shared item, in positions, a neighbour's items count."""


class SequentialRulesConfig(ModelConfig):
    """Settings of `ipsrec_bench.models.sequential_rules`; defaults are those of its code (rn5l/session-rec).

    Searched: both, as in Ludewig et al. (UMUAI 2021).
    """

    search = {"steps": (2, 5, 10, 20), "rules": (10, 20, 50, 100)}  # noqa: RUF012 (a class variable by its base)

    steps: int = Field(10, ge=1, le=1000)
    """Maximum distance of two items of a rule."""
    rules: int = Field(20, ge=1, le=1_000_000)
    """Number of strongest rules that each item keeps."""
