"""The settings of newer backbones: encoders of the item sequence, two of which also see times."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.configs.base import (
    DEEPEST,
    DEPTHS,
    DROPOUTS,
    HEAVIEST,
    WIDEST,
    NeuralConfig,
    Rate,
    check_weights,
    filled_in,
)
from ipsrec_bench.models.stages import TaskUse
from ipsrec_bench.settings import LogRange

Similarity = Literal["dot", "cosine"]


class _PositionsConfig(NeuralConfig):
    """Settings of models whose public code counts positions from the newest item."""

    released: ClassVar[Mapping[str, object]] = {"positions": "backward"}

    preset: Literal["default", "released"] = Field("default", exclude=True)
    """`released` sets what the public code does differently. The preset itself does not enter a cell's key; the
    resulting settings do."""
    positions: Literal["forward", "backward"] = "forward"
    """From where positions are counted: `forward` from the oldest item, `backward` from the newest one, as released.
    One more item then moves all positions, so `backward` is trained on prefixes. (The public code trains windows of
    which only the last position is what it is in ranking.)"""

    @property
    def packs(self) -> bool:
        """Only with positions that do not depend on what follows."""
        return self.positions == "forward"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, value: Any) -> Any:  # noqa: ANN401 (any value)
        return filled_in(value, {"released": cls.released})


class _PaddedConfig(_PositionsConfig):
    """Settings of models whose public code also pads on the left and lets attention see the padding."""

    released = {**_PositionsConfig.released, "sees_padding": True}  # noqa: RUF012 (a class variable by its base)

    sees_padding: bool = False
    """Whether the padding before short histories takes part, as released: it is filled up to the maximum length with
    items that are zero, and attention sees them with their positions. Needs `positions = "backward"`."""

    @model_validator(mode="after")
    def _padding_has_positions(self) -> Self:
        if self.sees_padding and self.positions == "forward":
            raise ValueError("sees_padding = true needs positions = 'backward'")
        return self


class ESASRecConfig(_PaddedConfig):
    """Settings of `ipsrec_bench.models.esasrec`.

    Defaults are those of RecTools 0.19, whose SASRec with LiGR layers is the authors' public code.

    Searched: dropout, depth and heads, which published configurations of RecTools vary.
    """

    search = {"dropout": DROPOUTS, "n_layers": DEPTHS, "n_heads": (1, 2, 4, 8)}  # noqa: RUF012 (a class variable by its base)

    embedding_size: int = Field(256, ge=1, le=WIDEST)
    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of LiGR layers."""
    n_heads: int = Field(4, ge=1, le=WIDEST)
    """Number of attention heads; must divide `embedding_size`."""
    inner_size: int = Field(1024, ge=1, le=4 * WIDEST)
    """Width of the feed-forward layers."""
    inner_bias: bool = False
    """Whether the feed-forward layers have biases."""
    activation: Literal["swiglu", "gelu", "relu"] = "swiglu"
    """Activation of the feed-forward layers; `swiglu` has a third weight matrix."""
    dropout: Rate = 0.2
    """Dropout rate of embeddings, attention weights, and outputs of attention and feed-forward layers."""
    similarity: Similarity = "dot"
    """How user vectors are scored against item vectors."""
    temperature: float = Field(1.0, ge=1e-4, le=HEAVIEST)
    """Scores are divided by it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_heads(self.embedding_size, self.n_heads)
        check_weights(
            self.n_layers * self.embedding_size * (6 * self.embedding_size + 3 * self.inner_size),
            "n_layers, embedding_size and inner_size",
        )
        return self


class HSTUConfig(_PositionsConfig):
    """Settings of `ipsrec_bench.models.hstu`.

    Sizes are those of RecTools 0.19; the temperature is that of the authors' configurations.

    Searched: dropout, depth, and the temperature around that of the authors' configurations.
    """

    search = {"dropout": DROPOUTS, "n_layers": DEPTHS, "temperature": LogRange(0.01, 1.0)}  # noqa: RUF012 (a class variable by its base)

    embedding_size: int = Field(256, ge=1, le=WIDEST)
    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of layers."""
    n_heads: int = Field(4, ge=1, le=WIDEST)
    """Number of attention heads; must divide `embedding_size`."""
    time: bool = True
    """Whether attention has a bias for the time between an item and the next request. Without it, times have no
    effect."""
    time_buckets: int = Field(128, ge=1, le=100_000)
    """Number of the last bucket of time differences; the buckets are logarithmic."""
    relative_positions: bool = True
    """Whether attention has a bias for the distance between two positions."""
    dropout: Rate = 0.2
    """Dropout rate of embeddings and of the input of each layer's output map."""
    attention_dropout: Rate = 0.0
    """Dropout rate of the attended values."""
    similarity: Similarity = "cosine"
    """How user vectors are scored against item vectors."""
    temperature: float = Field(0.05, ge=1e-4, le=HEAVIEST)
    """Scores are divided by it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_heads(self.embedding_size, self.n_heads)
        check_weights(self.n_layers * 5 * self.embedding_size**2, "n_layers and embedding_size")
        return self


class LRURecConfig(NeuralConfig):
    """Settings of `ipsrec_bench.models.lrurec`, as in the authors' code.

    The authors train with AdamW and weight decay 0.01; here it is Adam without decay.

    Searched: both dropout rates and the depth; the authors tune dropout and weight decay.
    """

    search = {"dropout": DROPOUTS, "recurrent_dropout": DROPOUTS, "n_layers": DEPTHS}  # noqa: RUF012 (a class variable by its base)

    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of layers."""
    dropout: Rate = 0.2
    """Dropout rate of embeddings and in feed-forward layers."""
    recurrent_dropout: Rate = 0.2
    """Dropout rate of the outputs of the recurrent layers."""
    predicts_first: bool = False
    """Whether the padding before a history that is shorter than the maximum length is trained to predict its first
    item, as released."""

    @property
    def layer_width(self) -> int:
        """With the states, which are twice as wide and complex, and the feed-forward layer."""
        return super().layer_width + 8 * self.embedding_size

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the next item, with the first item if it is predicted, too."""
        return (TaskUse("next-or-first-item"),) if self.predicts_first else super().own_tasks()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_weights(self.n_layers * 16 * self.embedding_size**2, "n_layers and embedding_size")
        return self


class TiSASRecConfig(_PaddedConfig):
    """Settings of `ipsrec_bench.models.tisasrec`; defaults are those of pmixer's port of the authors' code.

    Searched: dropout, depth, and the largest time interval, whose values here are among those of the paper.
    """

    search = {"dropout": DROPOUTS, "n_layers": DEPTHS, "time_span": (64, 256, 1024, 2048)}  # noqa: RUF012 (a class variable by its base)

    embedding_size: int = Field(50, ge=1, le=WIDEST)
    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of layers."""
    n_heads: int = Field(1, ge=1, le=WIDEST)
    """Number of attention heads; must divide `embedding_size`."""
    time_span: int = Field(256, ge=1, le=100_000)
    """Largest time interval (k in the paper), in units of `time_unit`; longer ones count as this one."""
    time_unit: Literal["own", "second"] = "own"
    """Unit of time intervals. `own`: the shortest interval between neighbours of the history up to the item, which
    makes them the paper's personalised intervals without reading later interactions. `second`: one second, or the unit
    of the file if times are numbers."""
    dropout: Rate = 0.2
    """Dropout rate of all embeddings, of attention weights and of feed-forward layers."""
    table_norm: float = Field(2.5e-5, ge=0, le=HEAVIEST)
    """Weight of a penalty on the loss: the sum of the Euclidean norms of the tables of items, positions and time
    intervals. The port has twice this weight, and a loss that is twice the mean of its terms."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_heads(self.embedding_size, self.n_heads)
        check_weights(self.n_layers * 5 * self.embedding_size**2, "n_layers and embedding_size")
        return self


class LiveRecConfig(_PaddedConfig):
    """Settings of `ipsrec_bench.models.liverec`; defaults are those of the authors' code, except `context_layers`.

    Searched: dropout, depth and heads, the command line's settings of the authors' code.
    """

    search = {"dropout": DROPOUTS, "n_layers": DEPTHS, "n_heads": (1, 2, 4, 8)}  # noqa: RUF012 (a class variable by its base)

    released = {**_PaddedConfig.released, "repeats_since": "first"}  # noqa: RUF012 (a class variable by its base)

    n_layers: int = Field(2, ge=1, le=DEEPEST)
    """Number of layers over the history."""
    n_heads: int = Field(4, ge=1, le=WIDEST)
    """Number of their attention heads; must divide `embedding_size`."""
    context_layers: int = Field(0, ge=0, le=DEEPEST)
    """Number of layers over the available candidates (2 in the authors' code). They take part in `candidate_scores`
    only: no task trains them, and ranking does not use them."""
    context_heads: int = Field(4, ge=1, le=WIDEST)
    """Number of their attention heads; must divide `embedding_size`."""
    top_k: int = Field(64, ge=1, le=1_000_000)
    """Number of available candidates, the best ones for a state, that attend to each other."""
    repeats_since: Literal["last", "first"] = "last"
    """Consumption of a candidate from which the time to its repetition counts: the last one, as meant, or the first
    one, as the released code finds it in PyTorch 2."""
    time_unit: float = Field(600.0, gt=0, le=1e12)
    """Seconds in a unit of the bounds of that time; the authors' is ten minutes. Data whose times are numbers of such
    units, which count as seconds, need 1."""
    dropout: Rate = 0.2
    """Dropout rate of embeddings, attention weights and feed-forward layers."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_heads(self.embedding_size, self.n_heads)
        if self.embedding_size % self.context_heads:
            raise ValueError(f"context_heads = {self.context_heads} must divide embedding_size = {self.embedding_size}")
        check_weights(
            (self.n_layers + self.context_layers) * 6 * self.embedding_size**2,
            "n_layers, context_layers and embedding_size",
        )
        return self


def _check_heads(embedding_size: int, n_heads: int) -> None:
    if embedding_size % n_heads:
        raise ValueError(f"n_heads = {n_heads} must divide embedding_size = {embedding_size}")
