"""The base classes of all models' settings."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from ipsrec_bench.models.stages import Stage, TaskUse
from ipsrec_bench.settings import LinearRange, LogRange, SearchSpace, Settings

Rate = Annotated[float, Field(ge=0, le=0.99)]
WIDEST = 4096
DEEPEST = 64
DROPOUTS = LinearRange(0.0, 0.6)
"""Dropout rates that are searched by default. Published settings of SASRec, from 0.2 to 0.5, lie inside."""
DEPTHS = (1, 2, 3, 4)
"""Numbers of layers that are searched by default."""
HEAVIEST = 1e6
"""Upper bound on the weight of a loss: beyond it, the other terms vanish in a float32 sum."""
MOST_WEIGHTS = 2**28
"""Upper bound on the weights of an encoder: 8 GB in training."""


def check_weights(count: int, settings: str) -> None:
    """Raise ValueError if an encoder would have `count` weights and that is too many; `settings` name the cause."""
    if count > MOST_WEIGHTS:
        raise ValueError(f"{settings} give {count:,} weights; allowed: up to {MOST_WEIGHTS:,}")


def filled_in(settings: Any, presets: Mapping[str, Mapping[str, object]]) -> Any:  # noqa: ANN401 (any value)
    """Return raw `settings` with those of the preset that they name, where they do not set them themselves."""
    if isinstance(settings, Mapping) and isinstance(name := settings.get("preset"), str):
        return {**presets.get(name, {}), **settings}
    return settings


class ModelConfig(Settings):
    """Base of all models' settings; sufficient for a counting model without settings."""

    search: ClassVar[SearchSpace] = {}
    """Settings of the model that `tune` searches unless a suite names others, each with a range or a list of values.
    Those of a counting model are all that is searched for it."""
    idle_without: ClassVar[Mapping[str, str]] = {}
    """Searched settings that have no effect while another setting, their value here, is 0."""

    @property
    def packs(self) -> bool:
        """Whether a causal model with these settings may be trained on packed windows."""
        return True

    @property
    def longest_history(self) -> int | None:
        """Maximum history length that a model with these settings can be built for; None if unlimited."""
        return None


class NeuralConfig(ModelConfig):
    """Settings of every model trained by gradient descent.

    The model reads `embedding_size`; the others say what it is trained for.

    Every model of the toolkit has a search space of six dimensions, so that equal budgets cover equal shares of it.
    Three are `training_search`. Three are in `search`: a dropout rate, if the model has one, and what its paper or
    public tuned settings vary most, each a range or a list of four values.
    """

    training_search: ClassVar[SearchSpace] = {
        "learning_rate": LogRange(1e-4, 1e-2),
        "batch_size": (128, 256, 512, 1024),
        "weight_decay": (0.0, 1e-3, 1e-2, 1e-1),
    }
    """Settings of `[training]` that `tune` searches for every model trained by gradient descent, unless a suite names
    others. Learning rates around Adam's 1e-3 and batch sizes are those that RecBole's published searches
    (recbole.io/hyperparameters) and the papers of the models vary; 1e-2 is AdamW's default weight decay."""

    embedding_size: int = Field(64, ge=1, le=WIDEST)
    """Dimension d of the vectors of items, providers, positions and users."""
    padding_class: bool = False
    """Whether the padding item is one more class of the softmax, as in RecBole and in the released code. It is never
    ranked."""
    weight_norm: float = Field(0.0, ge=0, le=HEAVIEST)
    """Weight of a penalty on the loss: the sum of the Euclidean norms of all weight tensors except biases."""
    tasks: dict[str, dict[str, Any]] = Field({}, exclude_if=lambda tasks: not tasks)
    """Further tasks of the main stage: a table for each, by its name or `module:Class`, with its settings and its
    `weight` (1 if not set)."""

    @property
    def layer_width(self) -> int:
        """The sum of a layer's widths, from which the memory of a step is bounded: by default, of all whole numbers."""
        return sum(value for value in self.model_dump().values() if type(value) is int)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the training, in order; the last is the main one."""
        return (Stage(self.main_tasks()),)

    def main_tasks(self) -> tuple[TaskUse, ...]:
        """Return the tasks of the main stage."""
        further = (
            TaskUse(name, table.get("weight", 1.0), {key: value for key, value in table.items() if key != "weight"})
            for name, table in sorted(self.tasks.items())
        )
        return (*self.own_tasks(), *further)

    def own_tasks(self) -> tuple[TaskUse, ...]:
        """Return the tasks of the main stage that belong to the model: the next item, unless a model overrides it."""
        return (TaskUse("next-item"),)


class TransformerConfig(NeuralConfig):
    """Sizes of a Transformer encoder.

    Searched: both dropout rates and the depth, as in RecBole's published searches for SASRec and SASRec-F. SASRec's own
    code and its reproductions differ most in these.
    """

    search = {"hidden_dropout": DROPOUTS, "attention_dropout": DROPOUTS, "n_layers": DEPTHS}  # noqa: RUF012 (a class variable by its base)

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
        check_weights(
            self.n_layers * self.embedding_size * (4 * self.embedding_size + 2 * self.inner_size),
            "n_layers, embedding_size and inner_size",
        )
        return self
