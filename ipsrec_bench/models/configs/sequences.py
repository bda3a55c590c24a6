"""The settings of the paper's baselines that are not Transformers."""

import math
from typing import Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import DEEPEST, HEAVIEST, MOST_WEIGHTS, WIDEST, NeuralConfig, Rate, check_weights


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
