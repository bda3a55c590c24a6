"""The interface of a task, and what it gets in every step of a training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import GraphEncoder, MaskedEncoder, SequentialModel, Views
from ipsrec_bench.models.stages import Samples
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.catalogue import CatalogueLoss, exact
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.samples import Batch

EXACT = exact(torch.float32)
CASTING_PAYS = 1000
"""Minimum number of tokens in a batch for which products in bfloat16 save more time than casting takes."""
S = TypeVar("S", bound=Settings)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Encoded:
    """The views at the predicted positions of a batch: N of them, one for each target."""

    user: Tensor
    """`[N, d]`."""
    provider: Tensor | None
    """`[N, d]`, or None if the model has no second view."""
    owners: Tensor
    """int64 `[N]`: the users."""
    extra: Mapping[str, Tensor]
    """The model's further views, `[N, ...]` each."""


@dataclass(eq=False)
class TrainingStep:
    """One step of a training, shared by its tasks: what several of them need is computed once."""

    model: SequentialModel
    """The model that is trained, with the weights that a task needs."""
    batch: Batch
    """The histories of this step, and their targets."""
    packed: bool
    """Whether the batch predicts from every position of its windows."""
    first: int = 1
    """The first row of the item vectors that is a class: 0 if padding is one, else 1."""
    catalogue_loss: CatalogueLoss = EXACT
    """The loss over the item catalogue that the suite chooses, which `next_item_loss` computes."""
    dtype: torch.dtype = torch.float32
    """Dtype of the factors of the model's matrix products, where that saves time."""
    index: TrainingIndex | None = None
    """Lookups in the training interactions; None where there are none, as in a comparison with a reference."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    """Draws what the tasks draw."""
    _shared: dict[Hashable, Any] = field(default_factory=dict)

    @cached_property
    def main(self) -> Encoded:
        """The main encoding of the batch, at the predicted positions.

        Raises:
            ModelError: the model returns views of another width than the histories.
        """
        tokens = self.batch.histories.items
        views = self._encode(self.batch.histories, every_position=self.packed)
        owners = self.batch.histories.users
        if not self.packed:
            return Encoded(views.user, views.provider, owners, views.extra)
        if views.user.shape[:2] != tokens.shape:
            raise ModelError(
                f"for every position of histories {tuple(tokens.shape)}, the model returned views"
                f" {tuple(views.user.shape)}; they must have the histories' width"
            )
        predicted = self.batch.predicted
        return Encoded(
            views.user.flatten(0, 1)[predicted],
            None if views.provider is None else views.provider.flatten(0, 1)[predicted],
            owners[predicted // tokens.shape[1]],
            {name: view.flatten(0, 1)[predicted] for name, view in views.extra.items()},
        )

    @cached_property
    def newest(self) -> Encoded:
        """The main encoding of the batch, at the last position of each history: B of them."""
        main = self.main
        if not self.packed:
            return main
        newest = self._newest
        return Encoded(
            main.user[newest],
            None if main.provider is None else main.provider[newest],
            main.owners[newest],
            {name: view[newest] for name, view in main.extra.items()},
        )

    @property
    def newest_targets(self) -> Tensor:
        """int64 `[B]`: the item that follows the last position of each history."""
        return self.batch.targets[self._newest] if self.packed else self.batch.targets

    @cached_property
    def _newest(self) -> Tensor:
        """int64 `[B]`: which of the predicted positions of packed histories is the last one of each."""
        histories = self.batch.histories
        count, width = histories.items.shape
        last = torch.arange(count, device=histories.items.device) * width + histories.lengths - 1
        return torch.searchsorted(self.batch.predicted, last)

    @cached_property
    def item_vectors(self) -> Tensor:
        """`[items + 1, d]`."""
        return self.model.item_vectors()

    @property
    def positives(self) -> Tensor:
        """int64 `[N]`: the items that the samples are about, their targets or, in single interactions, their own."""
        return self.batch.targets if len(self.batch.targets) else self.batch.histories.items[:, 0]

    @cached_property
    def negatives(self) -> Tensor:
        """int64 `[N]`: for each sample, an item that its user has not interacted with in training, drawn uniformly."""
        owners = self.main.owners
        drawn = self.sure_index.other_items(owners.cpu().numpy(), self.rng)
        return torch.from_numpy(drawn).to(owners.device)

    @property
    def mask_token(self) -> int:
        """The id of a hidden item: one beyond the last item."""
        return len(self.item_vectors)

    def vectors_of(self, items: Tensor) -> Tensor:
        """Return the vectors of `items [N]`, `[N, d]`; their gradient is sparse where the table itself is a weight."""
        return F.embedding(items, self.item_vectors, sparse=self.item_vectors.is_leaf)

    @property
    def sure_index(self) -> TrainingIndex:
        """The index.

        Raises:
            ModelError: this step has none.
        """
        if self.index is None:
            raise ModelError("this task looks up training interactions, and the step has none")
        return self.index

    def next_item_loss(self, states: Tensor, items: Tensor) -> Tensor:
        """Return the mean loss of `items [N]`, given the vectors `states [N, d]` that predict them."""
        return self.catalogue_loss(states, self.item_vectors, items, first=self.first)

    def encode(self, histories: Histories) -> Encoded:
        """Return the views of other histories at their last positions, one for each history."""
        views = self._encode(histories, every_position=False)
        return Encoded(views.user, views.provider, histories.users, views.extra)

    def encode_masked(self, histories: Histories, read: Tensor | None = None) -> Tensor:
        """Return the states `[B, L, d]` of histories with hidden items, or `[B, R, d]` at the positions `read [B, R]`.

        Raises:
            ModelError: the model does not encode such histories.
        """
        if not isinstance(self.model, MaskedEncoder):
            raise ModelError("it hides items, but the model does not implement MaskedEncoder; remove the task")
        model = self.model
        if not self._pays(histories):
            return model.encode_masked(histories, read)
        filled = filled_up(histories)
        if read is not None:
            read = F.pad(read, (0, 0, 0, len(filled.items) - len(read)))
        with torch.autocast(histories.items.device.type, dtype=torch.bfloat16):
            states = model.encode_masked(filled, read)
        return states[: len(histories.items)].float()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what the first call with `key` made in this step, so that tasks can share it."""
        if key not in self._shared:
            self._shared[key] = make()
        found: T = self._shared[key]
        return found

    def _encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Encode with products in `dtype` where that pays; the views are float32 either way."""
        if not self._pays(histories):
            return self.model.encode(histories, every_position=every_position)
        with torch.autocast(histories.items.device.type, dtype=torch.bfloat16):
            views = self.model.encode(filled_up(histories), every_position=every_position)
        count = len(histories.items)
        return Views(
            views.user[:count].float(),
            None if views.provider is None else views.provider[:count].float(),
            {name: view[:count].float() for name, view in views.extra.items()},
        )

    def _pays(self, histories: Histories) -> bool:
        return self.model.mixed_precision and self.dtype != torch.float32 and histories.items.numel() >= CASTING_PAYS


def filled_up(histories: Histories) -> Histories:
    """Add padding histories, at most an eighth, so that batches have few different sizes.

    oneDNN compiles a kernel for every new shape, which takes longer than the product.
    """
    count = len(histories.items)
    missing = -count % (1 << max(count.bit_length() - 4, 0))
    if not missing:
        return histories
    times, next_times = histories.times, histories.next_times
    return Histories(
        users=F.pad(histories.users, (0, missing)),
        items=F.pad(histories.items, (0, 0, 0, missing)),
        providers=F.pad(histories.providers, (0, 0, 0, missing)),
        lengths=F.pad(histories.lengths, (0, missing), value=1),
        times=None if times is None else F.pad(times, (0, 0, 0, missing)),
        next_times=None if next_times is None else F.pad(next_times, (0, missing)),
    )


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """Return the "mean" or the "sum" of `losses [N]`."""
    return losses.sum() if reduction == "sum" else losses.mean()


def graph_encoder(model: SequentialModel, task: str) -> GraphEncoder:
    """Return `model`, which has a graph.

    Raises:
        ModelError: it is not a `GraphEncoder`; `task` needs one.
    """
    if not isinstance(model, GraphEncoder):
        raise ModelError(f"the task '{task}' needs the user-item graph, and the model does not implement GraphEncoder")
    return model


class Task(ABC, Generic[S]):
    """What a model is trained for: it turns a step into one loss.

    A task has no weights; what it learns with belongs to the model. It reads training interactions only: those of the
    batch, and those that the step's index looks up. Its draws come from the step's generator alone.
    """

    settings_type: ClassVar[type[Settings]] = Settings
    """Class of its settings, which are the argument of the constructor."""
    samples: ClassVar[frozenset[Samples]] = frozenset({"targets"})
    """The kinds of batches that it can be computed on."""
    uses_providers: ClassVar[bool] = False
    """Whether the loss depends on providers; the toolkit's own tasks declare it in the registry."""
    per_target: ClassVar[bool] = False
    """Whether the loss is a mean over the targets of the batch, and therefore the same for packed and for prefix
    samples."""
    sums_places: ClassVar[bool] = False
    """Whether the loss is a sum over the places of a history, so that it grows with the length."""

    def __init__(self, settings: S) -> None:
        """Take the settings."""
        self.settings = settings

    def begin_epoch(self, model: SequentialModel, index: TrainingIndex, rng: np.random.Generator) -> None:
        """Draw what is drawn once for an epoch; called before its first step."""

    @abstractmethod
    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean of the loss over the samples of the batch, a scalar.

        Raises:
            ModelError: the model lacks something that the task needs.
        """
