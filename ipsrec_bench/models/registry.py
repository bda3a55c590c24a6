"""Every model by name: its settings, and where its class is found once it is needed.

Settings stand here, apart from the models' files, because a suite is checked without torch. A search range
stands beside the field that it belongs to.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from ipsrec_bench.errors import ModelError, did_you_mean, listed
from ipsrec_bench.settings import LogRange, Settings

if TYPE_CHECKING:
    from ipsrec_bench.models.api import SequentialModel, Sizes

Rate = Annotated[float, Field(ge=0, lt=1)]


class PopConfig(Settings):
    """Popularity has nothing to set."""


class TransformerConfig(Settings):
    """Sizes of a Transformer encoder.

    The defaults are the paper's (d = 64, 2 layers, 2 heads) and, where it is silent, the released code's.
    """

    embedding_size: int = Field(64, ge=1)
    """d, of items, providers, positions and user vectors."""
    n_layers: int = Field(2, ge=1)
    n_heads: int = Field(2, ge=1)
    """Must divide `embedding_size`."""
    inner_size: int = Field(256, ge=1)
    """Width of the feed-forward layers."""
    hidden_dropout: Rate = 0.5
    attention_dropout: Rate = 0.5

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding_size % self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} must divide embedding_size = {self.embedding_size}")
        return self


class SASRecConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.sasrec`."""


class ContrastiveConfig(TransformerConfig):
    """Settings of the contrastive loss between the item view and the provider view (eq. 12 and 13).

    The objective reads them; the model itself does not.
    """

    lambda_: Annotated[float, LogRange(1e-3, 1.0)] = Field(0.1, ge=0, alias="lambda")
    """Weight of the contrastive loss; 0 is the paper's "w/o CL"."""
    tau: Annotated[float, LogRange(0.05, 5.0)] = Field(1.0, gt=0)
    """Temperature."""


class IPSRecSConfig(ContrastiveConfig):
    """Settings of `ipsrec_bench.models.ipsrec_s`."""


class IPSRecCConfig(ContrastiveConfig):
    """Settings of `ipsrec_bench.models.ipsrec_c`."""


@dataclass(frozen=True)
class ModelEntry:
    """What is known of a model before torch is imported."""

    title: str
    """Its name in tables."""
    config: type[Settings]
    path: str
    """`module:Class`, imported when the model is built."""
    causal: bool
    """Whether it can predict at every position in one pass."""
    uses_providers: bool


_MODELS = "ipsrec_bench.models"
REGISTRY: dict[str, ModelEntry] = {
    "pop": ModelEntry("Pop", PopConfig, f"{_MODELS}.pop:Pop", causal=True, uses_providers=False),
    "sasrec": ModelEntry("SASRec", SASRecConfig, f"{_MODELS}.sasrec:SASRec", causal=True, uses_providers=False),
    "ipsrec-s": ModelEntry("IPSRec-S", IPSRecSConfig, f"{_MODELS}.ipsrec_s:IPSRecS", causal=True, uses_providers=True),
    "ipsrec-c": ModelEntry("IPSRec-C", IPSRecCConfig, f"{_MODELS}.ipsrec_c:IPSRecC", causal=True, uses_providers=True),
}


def model_entry(name: str) -> ModelEntry:
    """Return the entry of the model `name`.

    Raises:
        ModelError: there is no such model.
    """
    if name not in REGISTRY:
        raise ModelError(f"there is no model '{name}'{did_you_mean(name, REGISTRY) or f'; known: {listed(REGISTRY)}'}")
    return REGISTRY[name]


def config_type(name: str) -> type[Settings]:
    """Return the settings class of the model `name`."""
    return model_entry(name).config


def build_model(name: str, config: Settings, sizes: "Sizes") -> "SequentialModel":
    """Import and build the model `name`, with freshly drawn weights."""
    module, _, attribute = model_entry(name).path.partition(":")
    model: SequentialModel = getattr(import_module(module), attribute)(config, sizes)
    return model
