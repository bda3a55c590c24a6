"""The settings of every model, kept free of torch so that a suite is checked without importing it.

Defaults are the paper's and, where it is silent, those of the code that produced its tables: RecBole 1.0 for the
baselines, the released code for IPSRec. A search range is declared on its field.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.settings import LogRange, Settings

Rate = Annotated[float, Field(ge=0, le=0.99)]
WIDEST = 4096
DEEPEST = 64
HEAVIEST = 1e6
"""Upper bound on the weight of a loss: beyond it, the other terms vanish in a float32 sum."""
MOST_WEIGHTS = 2**28
"""Upper bound on the weights of an encoder: 8 GB in training."""


def _check_weights(count: int, settings: str) -> None:
    if count > MOST_WEIGHTS:
        raise ValueError(f"{settings} give {count:,} weights; allowed: up to {MOST_WEIGHTS:,}")


class ModelConfig(Settings):
    """Base of all models' settings; sufficient for a counting model without settings."""

    @property
    def packs(self) -> bool:
        """Whether a causal model with these settings may be trained on packed windows."""
        return True

    @property
    def longest_history(self) -> int | None:
        """Maximum history length that a model with these settings can be built for; None if unlimited."""
        return None


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


class NeuralConfig(ModelConfig):
    """Settings of every model trained by gradient descent. The last two are read by the objective, not the model."""

    embedding_size: int = Field(64, ge=1, le=WIDEST)
    """Dimension d of the vectors of items, providers, positions and users."""
    padding_class: bool = False
    """Whether the padding item is one more class of the softmax, as in RecBole and in the released code. It is never
    ranked."""
    weight_norm: float = Field(0.0, ge=0, le=HEAVIEST)
    """Weight of a penalty on the loss: the sum of the Euclidean norms of all weight tensors except biases."""


class TransformerConfig(NeuralConfig):
    """Sizes of a Transformer encoder."""

    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of layers."""
    n_heads: int = Field(2, ge=1, le=WIDEST)
    """Number of attention heads; must divide `embedding_size`."""
    inner_size: int = Field(256, ge=1, le=4 * WIDEST)
    """Width of the feed-forward layers."""
    hidden_dropout: Rate = 0.5
    """Dropout rate of embeddings and of the outputs of attention and feed-forward layers."""
    attention_dropout: Rate = 0.5
    """Dropout rate of attention weights."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding_size % self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} must divide embedding_size = {self.embedding_size}")
        _check_weights(
            self.n_layers * self.embedding_size * (4 * self.embedding_size + 2 * self.inner_size),
            "n_layers, embedding_size and inner_size",
        )
        return self


class GRU4RecConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.gru4rec` and `ipsrec_bench.models.gru4rec_f`."""

    hidden_size: int = Field(128, ge=1, le=WIDEST)
    """Width of the recurrent state."""
    n_layers: int = Field(1, ge=1, le=DEEPEST)
    """Number of recurrent layers."""
    dropout: Rate = 0.3
    """Dropout rate of the embeddings."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_weights(
            3 * self.hidden_size * (self.embedding_size + (2 * self.n_layers - 1) * self.hidden_size),
            "n_layers, embedding_size and hidden_size",
        )
        return self


class CaserConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.caser`."""

    n_vertical: int = Field(8, ge=1, le=WIDEST)
    """Number of vertical filters."""
    n_horizontal: int = Field(16, ge=1, le=WIDEST)
    """Number of horizontal filters of each height from 1 to the maximum length."""
    dropout: Rate = 0.4
    """Dropout rate of the output of the convolutions."""
    weight_norm: float = Field(1e-4, ge=0, le=HEAVIEST)

    @property
    def longest_history(self) -> int:
        """Maximum history length L: the filters of all heights up to L have n_horizontal d L^2 / 2 weights in total."""
        return min(500, max(1, math.isqrt(2 * MOST_WEIGHTS // (self.n_horizontal * self.embedding_size))))


class SRGNNConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.sr_gnn`."""

    step: int = Field(1, ge=1, le=100)
    """Number of propagation rounds over the session graph."""


class SASRecFConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.sasrec_f`."""

    fusion: Literal["sum", "concat"] = "sum"
    """How item and provider embeddings are combined: `sum`, or `concat` followed by a projection from 2d to d."""


class ProviderPredictionConfig(TransformerConfig):
    """Settings of an auxiliary loss that predicts the next item's provider; the objective reads them."""

    attribute_weight: float = Field(10.0, ge=0, le=HEAVIEST)
    """Weight of the loss that predicts the next item's provider (lambda in the DIF-SR paper, which searches 5 to 25);
    0 disables it."""


class ContrastiveConfig(TransformerConfig):
    """Settings of the contrastive loss between the item view and the provider view (eq. 12 and 13).

    The objective reads them; the model itself does not.
    """

    lambda_: Annotated[float, LogRange(1e-3, 1.0)] = Field(0.1, ge=0, le=HEAVIEST, alias="lambda")
    """Weight of the contrastive loss; 0 is the paper's variant "w/o CL"."""
    tau: Annotated[float, LogRange(0.05, 5.0)] = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Temperature of the contrastive loss."""
    contrast: Literal["item-to-provider", "symmetric", "nt-xent"] = "item-to-provider"
    """Form of the contrastive loss. `item-to-provider`: eq. 12, from the item view. `symmetric`: the mean of both
    directions. `nt-xent`: both directions with negatives from both views, as released."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of two views: dot product or cosine."""
    same_user_negatives: bool = False
    """Whether other samples of the same user are negatives, too. They are in the released code, whose samples are
    prefixes and whose loss ignores users. Eq. 12 uses only other users."""

    @property
    def packs(self) -> bool:
        """Not with `same_user_negatives`: in a packed window, samples of one user are never each other's negatives."""
        return not self.same_user_negatives


class IPSRecConfig(ContrastiveConfig):
    """Settings of both IPSRec models. `preset = "released"` selects what the released code does differently."""

    released: ClassVar[Mapping[str, object]] = {
        "contrast": "nt-xent",
        "same_user_negatives": True,
        "padding_class": True,
    }

    preset: Literal["paper", "released"] = Field("paper", exclude=True)
    """Source of the defaults: the paper or the released code. The preset itself does not enter a cell's key; the
    resulting settings do."""
    tie_weights: bool = True
    """Whether the projection W_1 of eq. 5 is the item embedding table; `false` learns a separate table."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        if isinstance(value, Mapping) and value.get("preset") == "released":
            return {**cls.released, **value}
        return value


class IPSRecSConfig(IPSRecConfig):
    """Settings of `ipsrec_bench.models.ipsrec_s`."""

    released = {**IPSRecConfig.released, "attention": "concat-causal"}  # noqa: RUF012 (a class variable by its base)

    attention: Literal["block-causal", "concat-causal", "full"] = "block-causal"
    """Attention mask over [items; providers]. `block-causal`: position t of either half sees positions <= t of both.
    `concat-causal`, as released: one lower triangle, so items see only items and providers see all items. `full`: all
    positions. In the last two a position sees later ones, so they are trained on prefixes."""

    @property
    def packs(self) -> bool:
        """Only the block-causal mask hides the future from both views."""
        return super().packs and self.attention == "block-causal"


class IPSRecCConfig(IPSRecConfig):
    """Settings of `ipsrec_bench.models.ipsrec_c`."""

    released = {**IPSRecConfig.released, "encoder": "co-only"}  # noqa: RUF012 (a class variable by its base)

    encoder: Literal["self-then-co", "co-only"] = "self-then-co"
    """Architecture. `self-then-co`: a Transformer of `n_layers` per side, then one co-attention block (eq. 9 to 11).
    `co-only`, as released: `n_layers` co-attention blocks without self-attention."""
