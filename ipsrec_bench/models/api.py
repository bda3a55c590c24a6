"""The interface between a model and the rest of the toolkit.

There are two kinds of models. A `SequentialModel` is trained by gradient descent and turns histories into user vectors,
which are scored against item vectors by dot product. A `CountingModel` is fitted in one pass over the training
interactions. For each user it scores a few picked items; all others keep their background score.

What must be known before a model is built (its settings class, whether it is causal, whether it reads providers)
is declared in `ipsrec_bench.models.registry` for the toolkit's models, and on the class itself for your own.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.graphs import BipartiteGraph


@dataclass(frozen=True)
class Sizes:
    """Sizes of the dataset and the protocol from which a model builds its tables."""

    users: int
    """Users are 0 to `users - 1`."""
    items: int
    """Items are 1 to `items`; 0 is padding."""
    providers: int
    """Providers are 1 (unknown) to `providers`; 0 is padding."""
    max_length: int

    @property
    def mask_token(self) -> int:
        """The id that tasks put in place of a hidden item, for models that read it.

        They implement `MaskedEncoder`, or declare `reads_mask_token`.
        """
        return self.items + 1


ITEM_STREAM, PROVIDER_STREAM = "item-stream", "provider-stream"
"""Further views of `Views.extra` for the task `stream-contrast`: a user vector of each stream."""
HISTORY_ITEMS, HISTORY_PROVIDERS = "history-items", "history-providers"
"""Further views for the task `alignment`: the vectors of a history's items and providers, `[B, L, d]`."""


@dataclass(frozen=True, eq=False)
class Views:
    """User vectors computed from histories; some models add a second view of the same user."""

    user: Tensor
    """`[B, d]` for the last position, or `[B, L, d]` for every position; scored against the items."""
    provider: Tensor | None = None
    """The provider view of the user, of the same shape; None if the model has no second view."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Whatever else the model's own tasks need, by name: tensors of the same first dimensions as `user`."""


class Model(nn.Module):
    """Declarations common to both kinds of models; the toolkit's own models make them in the registry."""

    title: ClassVar[str] = ""
    """Its name in tables if a suite refers to it by an entry point's name; if empty, the name of the class."""
    config_type: ClassVar[type[ModelConfig]]
    """Class of its settings, which are the first argument of the constructor."""
    causal: ClassVar[bool] = False
    """Whether it can predict at every position in one pass."""
    uses_providers: ClassVar[bool] = False
    uses_times: ClassVar[bool] = False
    """Whether histories must come with times."""
    uses_users: ClassVar[bool] = False
    """Whether it knows users by id, so that it has only untrained facts about users without training interactions."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 (torch's signature)
        """Load `state_dict` as torch does, but resize buffers to match it: their sizes may depend on the data."""
        for name, buffer in list(self.named_buffers(remove_duplicate=False)):  # empty ones may be the same tensor
            owner, _, own_name = name.rpartition(".")
            if name in state_dict:
                sized = torch.empty_like(state_dict[name], device=buffer.device)
                self.get_submodule(owner).register_buffer(own_name, sized)
        return super().load_state_dict(state_dict, strict, assign)


class SequentialModel(Model, ABC):
    """A model that turns histories into user vectors, which are scored against item vectors by dot product.

    It is built as `Class(config, sizes)` and draws its weights from torch's global generator. It does not depend on
    the loss or the optimiser: its settings name the tasks that it is trained for. `item_vectors` may be called before
    `encode`. An item bias is one more dimension: 1 in the user vectors, the bias in the item vectors.
    """

    mixed_precision: ClassVar[bool] = False
    """Whether `encode` also works under torch's autocast to bfloat16, which trains several times faster where the
    processor supports it. In-place operations that mix dtypes are the usual reason why it fails."""
    reads_mask_token: ClassVar[bool] = False
    """Whether `encode` also takes hidden items, which have the id `Sizes.mask_token` and provider 0."""

    @abstractmethod
    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the views at the last position `[B, d]`, or at every position `[B, L, d]`.

        With `every_position`, the vector at t depends only on the positions up to t, and vectors at padded
        positions have no meaning. It is used only for causal models.
        """

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d]`; row 0 is padding and never a candidate."""

    def prepare(self, log: "TrainingLog") -> None:
        """Take what the model needs of the training interactions, such as a graph, into its buffers.

        It is called once, before the first step. Buffers are saved with the weights, and may have any size.
        """

    def penalty(self) -> Tensor | None:
        """Return a term that is added to the loss and depends on the weights alone; None if there is none."""
        return None


class MaskedEncoder(ABC):
    """A model that can also encode histories in which items are hidden, from both sides.

    An addition to a model: derive from both, as in `class Mine(SequentialModel, MaskedEncoder)`.
    A hidden item has the id `Sizes.mask_token`, and provider 0.
    """

    @abstractmethod
    def encode_masked(self, histories: Histories, read: Tensor | None = None) -> Tensor:
        """Return a state for every position, `[B, L, d]`, each from all real positions of its history.

        With `read [B, R]`, only the states at these positions are returned, `[B, R, d]`. The product of a state and an
        item vector is the score of the item at this place.
        """


class GraphEncoder(ABC):
    """A model whose vectors are two tables, propagated over the graph of training interactions.

    An addition to a model: derive from `SequentialModel`, too.
    """

    @property
    @abstractmethod
    def num_edges(self) -> int:
        """Number of edges of the whole graph."""

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the tables before propagation: users `[users, d]` and items `[items + 1, d]`."""

    @abstractmethod
    def graph(self, kept: Tensor | None = None) -> BipartiteGraph:
        """Return the graph of all edges, or of those where `kept`, bool `[edges]`, is true."""

    @abstractmethod
    def propagate(self, graph: BipartiteGraph) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users and of all items, propagated over `graph`."""


class AttributeEncoder(MaskedEncoder):
    """A masked encoder with what S3-Rec's pretraining needs: four projections of states, and provider vectors.

    An addition to a model: derive from `SequentialModel`, too.
    """

    @abstractmethod
    def project(self, task: str, states: Tensor) -> Tensor:
        """Map states `[..., d]` by the projection of the task of this name, to `[..., d]`."""

    @abstractmethod
    def provider_vectors(self) -> Tensor:
        """Return `[providers + 1, d]`; the rows of padding and of the unknown provider are not used."""


class ProviderPredictor(ABC):
    """A model that can also predict the provider of the next item.

    An addition to a model: derive from `SequentialModel`, too.
    """

    provider_input: ClassVar[str] = ""
    """The name in `Views.extra` of the view that predicts providers; if empty, the user view does."""

    @abstractmethod
    def provider_logits(self, user: Tensor) -> Tensor:
        """Map user vectors, or those of the view `provider_input`, to a logit per provider, `[N, providers + 1]`."""


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """The training interactions, one entry each, ordered by user, then time."""

    users: NDArray[np.int64]
    items: NDArray[np.int32]
    providers: NDArray[np.int32]
    times: NDArray[np.int64] | NDArray[np.float64]
    """In the unit of the data."""
    times_per_second: int = 1
    """How many units of `times` make a second."""

    @property
    def seconds(self) -> NDArray[np.float64]:
        """The times in seconds, as `Histories` have them."""
        found: NDArray[np.float64] = self.times / self.times_per_second
        return found

    def item_providers(self, items: int) -> NDArray[np.int64]:
        """Return the provider with which each of `items` occurs most often, int64 `[items + 1]`.

        Of several, the one with the lowest number. Padding has provider 0, an item that does not occur the unknown one.
        """
        both = np.stack([self.items, self.providers]).astype(np.int64)
        pairs, counts = np.unique(both, axis=1, return_counts=True)
        order = np.lexsort((-pairs[1], counts))  # an item's last entry is its most frequent provider
        found = np.full(items + 1, UNKNOWN_PROVIDER, dtype=np.int64)
        found[0] = 0
        found[pairs[0, order]] = pairs[1, order]
        return found


@dataclass(frozen=True, eq=False)
class PickedScores:
    """The items that a counting model scores for each user of a batch; each (row, item) pair occurs at most once."""

    rows: Tensor
    """int64 `[n]`: rows of the batch."""
    items: Tensor
    """int64 `[n]`."""
    scores: Tensor
    """float64 `[n]`."""


class CountingModel(Model, ABC):
    """A model without gradients, fitted in one pass over the training interactions.

    Its tables are buffers, whose sizes may depend on the data. A deterministic model is fitted once for all seeds of a
    suite.
    """

    deterministic: ClassVar[bool] = True
    """Whether the fit is independent of the seed; False if `fit` draws from torch's global generator, which is seeded
    for each cell. A model that declares True but draws random numbers is refused."""
    background: Tensor
    """float64 `[items + 1]`: the score of every item that is not picked."""

    def __init__(self, sizes: Sizes) -> None:
        """Start with a background of zeros."""
        super().__init__()
        self.register_buffer("background", torch.zeros(sizes.items + 1, dtype=torch.float64))

    @abstractmethod
    def fit(self, log: TrainingLog) -> None:
        """Count over the training interactions; set the background and the model's own buffers."""

    @abstractmethod
    def pick(self, histories: Histories) -> PickedScores:
        """Return the items picked for each history, and their scores."""
