"""The settings of the paper's baselines that are not Transformers."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import (
    DEEPEST,
    HEAVIEST,
    MOST_WEIGHTS,
    WIDEST,
    NeuralConfig,
    Rate,
    TransformerConfig,
    check_weights,
    filled_in,
)


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
        check_weights(
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


class NextItNetConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.nextitnet`; defaults are RecBole 1.2.1's.

    `preset = "recbole"` selects what RecBole does differently from the paper, too.
    """

    preset: Literal["paper", "recbole"] = Field("paper", exclude=True)
    """Source of the defaults. The preset itself does not enter a cell's key; the resulting settings do."""
    kernel_size: int = Field(3, ge=1, le=64)
    """Number of positions that a convolution reads."""
    dilations: tuple[Annotated[int, Field(ge=1, le=WIDEST)], ...] = Field((1, 4), min_length=1, max_length=DEEPEST)
    """Dilation of the first convolution of each residual block; the second has twice that."""
    block_num: int = Field(5, ge=1, le=DEEPEST)
    """How often the blocks of `dilations` are repeated."""
    weight_norm: float = Field(1e-5, ge=0, le=HEAVIEST)
    reads: Literal["newest", "last-column"] = "newest"
    """The position whose state is the user's: the newest interaction, or, as in RecBole, the last of the maximum
    length's columns, which is padding in short histories."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"recbole": {"reads": "last-column", "padding_class": True}})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_weights(
            2 * self.n_layers * self.kernel_size * self.embedding_size**2,
            "dilations, block_num, kernel_size and embedding_size",
        )
        return self

    @property
    def n_layers(self) -> int:
        """Number of residual blocks."""
        return len(self.dilations) * self.block_num

    @property
    def packs(self) -> bool:
        """Not if the last column is read."""
        return self.reads == "newest"


class GCSANConfig(TransformerConfig):
    """Settings of `ipsrec_bench.models.gc_san`; defaults are RecBole 1.2.1's."""

    step: int = Field(1, ge=1, le=100)
    """Number of propagation rounds over the session graph."""
    attention_weight: float = Field(0.6, ge=0, le=1)
    """Weight w of the Transformer's output in the user vector; the newest item's state has 1 - w. The paper advises
    0.4 to 0.8."""
    table_norm: float = Field(5e-5, ge=0, le=HEAVIEST)
    """Weight of a penalty on the loss: the Euclidean norm of the item table, divided by its number of rows."""
