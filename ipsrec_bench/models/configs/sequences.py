"""The settings of the paper's baselines that are not Transformers."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import (
    DEEPEST,
    DEPTHS,
    DROPOUTS,
    HEAVIEST,
    MOST_WEIGHTS,
    WIDEST,
    NeuralConfig,
    Rate,
    TransformerConfig,
    check_weights,
    filled_in,
)
from ipsrec_bench.settings import LinearRange, LogRange


class GRU4RecConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.gru4rec` and `ipsrec_bench.models.gru4rec_f`.

    Searched: dropout, width and depth, as in RecBole's published searches.
    """

    search = {"dropout": DROPOUTS, "hidden_size": (64, 128, 256, 512), "n_layers": DEPTHS}  # noqa: RUF012 (a class variable by its base)

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
    """Settings of `ipsrec_bench.models.caser`.

    Searched: dropout and the numbers of filters, from the paper's values.
    """

    search = {"dropout": DROPOUTS, "n_horizontal": (4, 8, 16, 32), "n_vertical": (2, 4, 8, 16)}  # noqa: RUF012 (a class variable by its base)

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
    """Settings of `ipsrec_bench.models.sr_gnn`.

    Searched: width, propagation rounds, and the penalty on the norms; the model has no dropout.
    """

    search = {"embedding_size": (32, 64, 128, 256), "step": (1, 2, 3, 4), "weight_norm": LogRange(1e-7, 1e-3)}  # noqa: RUF012 (a class variable by its base)

    step: int = Field(1, ge=1, le=100)
    """Number of propagation rounds over the session graph."""


class NextItNetConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.nextitnet`; defaults are RecBole 1.2.1's.

    `preset = "recbole"` selects what RecBole does differently from the paper, too.

    Searched: width, number of blocks, and width of the convolutions; the model has no dropout.
    """

    search = {"embedding_size": (32, 64, 128, 256), "block_num": (1, 2, 3, 5), "kernel_size": (2, 3, 4, 5)}  # noqa: RUF012 (a class variable by its base)

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
    """Settings of `ipsrec_bench.models.gc_san`; defaults are RecBole 1.2.1's.

    Searched: dropout, propagation rounds, and the weight of the Transformer, as in the paper.
    """

    search = {"hidden_dropout": DROPOUTS, "step": (1, 2, 3, 4), "attention_weight": LinearRange(0.2, 0.8)}  # noqa: RUF012 (a class variable by its base)

    step: int = Field(1, ge=1, le=100)
    """Number of propagation rounds over the session graph."""
    attention_weight: float = Field(0.6, ge=0, le=1)
    """Weight w of the Transformer's output in the user vector; the newest item's state has 1 - w. The paper advises
    0.4 to 0.8."""
    table_norm: float = Field(5e-5, ge=0, le=HEAVIEST)
    """Weight of a penalty on the loss: the Euclidean norm of the item table, divided by its number of rows."""
