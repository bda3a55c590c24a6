"""How the file of a reference is read, loaded into a model of ours, and compared."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel, Sizes, TrainingLog
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.configs.base import DEEPEST
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import Batch

LAYER_NAMES = {
    "multi_head_attention": "attention",
    "multi_head_attention.LayerNorm": "norm",
    "feed_forward.dense_1": "feed_forward.inner",
    "feed_forward.dense_2": "feed_forward.outer",
    "feed_forward.LayerNorm": "feed_forward.norm",
}
"""Our names within a layer of RecBole's Transformer."""
ENCODER_NAMES = {
    **LAYER_NAMES,
    "position_embedding": "encoder.position_embedding",
    "LayerNorm": "encoder.norm",
    "trm_encoder.layer": "encoder.transformer.layers",
}
"""Our names within RecBole's SASRec and what is built on it."""
TRANSFORMER_SIZES = {"embedding_size": "d", "n_layers": "layers", "n_heads": "heads", "inner_size": "inner"}

GATE_BIASES = frozenset(
    f"trm_encoder.layer.{layer}.multi_head_attention.fusion_layer.projection.2.bias" for layer in range(DEEPEST)
)
"""Biases of the gate over attention scores in the code of DIF-SR, MSSR and DIFF; softmax cannot see them."""


@dataclass(frozen=True)
class ReferenceFile:
    """The content of a file."""

    about: Mapping[str, str]
    """Its metadata: sizes and settings as text."""
    tensors: Mapping[str, Tensor]
    """`in/...`, `weight/...` and `out/...`."""

    @classmethod
    def read(cls, path: Path) -> "ReferenceFile":
        """Read the file at `path`.

        Raises:
            ModelError: it is missing, or not in safetensors format.
        """
        if not path.is_file():
            raise ModelError(f"{path}: there is no such file")
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
                return cls(file.metadata() or {}, tensors)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: not a safetensors file: {error}") from None

    def size(self, name: str, default: int | None = None) -> int:
        """Return a whole number of the metadata.

        Raises:
            KeyError: it is missing, and there is no default.
        """
        return int(self.about[name]) if default is None else int(self.about.get(name, default))

    @property
    def sizes(self) -> Sizes:
        """The sizes of the data; users and providers are 1 where the reference has none."""
        table = self.tensors.get("weight/user_embedding.weight")
        users = self.size("users", 0 if table is None else len(table) - 1) + 1
        return Sizes(users, self.size("items"), self.size("providers", 1), self.size("max_length"))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights, under the reference's names."""
        return self._part("weight/")

    @property
    def expected(self) -> dict[str, Tensor]:
        """The outputs, by name."""
        return self._part("out/")

    def given(self, name: str) -> Tensor:
        """Return an input; whole numbers are int64.

        Raises:
            KeyError: the file lacks it.
        """
        found = self.tensors[f"in/{name}"]
        return found if found.is_floating_point() else found.long()

    def histories(self, items: str = "items", length: str = "length") -> Histories:
        """Return the histories whose items and lengths are the inputs of these names, padded on the right."""
        ids, lengths = self.given(items), self.given(length)
        providers = self.given("providers") if "in/providers" in self.tensors else torch.zeros_like(ids)
        users = self.given("user") if "in/user" in self.tensors else torch.zeros_like(lengths)
        return Histories(users, ids, providers, lengths, *self._times(lengths))

    @property
    def log(self) -> TrainingLog:
        """One interaction with each item, for models that count the providers of items."""
        providers = self.given("item_provider")[1:]
        nothing = np.zeros(len(providers), dtype=np.int64)
        items = np.arange(1, len(providers) + 1, dtype=np.int32)
        return TrainingLog(nothing, items, providers.numpy().astype(np.int32), nothing)

    def batch(self) -> Batch:
        """Return the histories with their targets, as one sample each."""
        target = self.given("target")
        nothing = torch.zeros_like(target)
        providers = self.given("item_provider")[target] if "in/item_provider" in self.tensors else nothing
        return Batch(self.histories(), nothing, target, providers)

    def packed_batch(self, targets: str) -> Batch:
        """Return the histories with a target for each of their items, given by the left-padded input `targets`."""
        histories = self.histories()
        real = torch.arange(histories.items.shape[1]) < histories.lengths[:, None]
        found = padded_right(self.given(targets), histories.lengths)[real]
        return Batch(histories, torch.nonzero(real.flatten())[:, 0], found, torch.zeros_like(found))

    def _times(self, lengths: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the times of the histories and of their targets, as far as the file has them."""
        if "in/unix_ts" in self.tensors:  # the last one is the target's
            found = self.given("unix_ts").double()
            return padded_right(found[:, :-1], lengths), found[:, -1]
        if "in/times_left" in self.tensors:
            return padded_right(self.given("times_left").double(), lengths), None
        return None, None

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


def padded_right(left: Tensor, lengths: Tensor) -> Tensor:
    """Return values `[B, L, ...]` that are padded on the left as values padded on the right with 0."""
    steps = torch.arange(left.shape[1])
    return _moved(left, steps + (left.shape[1] - lengths)[:, None], steps < lengths[:, None])


def padded_left(right: Tensor, lengths: Tensor) -> Tensor:
    """Return values `[B, L, ...]` that are padded on the right as values padded on the left with 0."""
    places = torch.arange(right.shape[1]) - (right.shape[1] - lengths)[:, None]
    return _moved(right, places, places >= 0)


def _moved(values: Tensor, places: Tensor, real: Tensor) -> Tensor:
    rows = torch.arange(len(values))[:, None]
    moved = values[rows, places.clamp(0, values.shape[1] - 1)]
    return torch.where(real.view(*real.shape, *[1] * (values.dim() - 2)), moved, 0)


Outputs = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Reference:
    """How the files of one reference are recognised, loaded and computed."""

    model: str
    """Our model's name in the registry."""
    released_as: str = ""
    """The file's metadata `model`, by which it is recognised; if empty, it is recognised by `sign`."""
    sign: str = ""
    """Weights by which files without that metadata are recognised, joined by ` + `."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our names for parts of the reference's weight names; the longest matching part is replaced."""
    sizes: Mapping[str, str] = field(default_factory=dict)
    """The whole numbers of the metadata that give our settings."""
    settings: Mapping[str, object] | Callable[[ReferenceFile], Mapping[str, object]] = field(default_factory=dict)
    """Further settings, or a function that reads them from the file."""
    unused: frozenset[str] = frozenset()
    """Weights that the reference has but does not use."""
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """Changes the weights before they are renamed, such as a table that we keep in two parts."""
    more_providers: int = 0
    """Number of providers by which ours are more than the reference's, which has none for unknown ones."""
    outputs: "Callable[[SequentialModel, NeuralConfig, ReferenceFile], Outputs] | None" = None
    """Computes the outputs that are this model's own."""
    common: bool = True
    """Whether those of `common_outputs` are computed, too, for which a file needs histories."""

    def matches(self, file: ReferenceFile) -> bool:
        """Return whether `file` is of this reference."""
        if released := file.about.get("model"):
            return released == self.released_as
        return bool(self.sign) and all(sign in file.weights for sign in self.sign.split(" + "))

    def our_name(self, theirs: str) -> str:
        """Return our name of the weight `theirs`."""
        return self._renamed.sub(lambda match: self.names[match[0]], theirs) if self.names else theirs

    @cached_property
    def _renamed(self) -> re.Pattern[str]:
        """Matches the parts of names that differ, longer ones first."""
        parts = "|".join(re.escape(part) for part in sorted(self.names, key=len, reverse=True))
        return re.compile(rf"(?<!\w)({parts})(?!\w)")

    def load(self, file: ReferenceFile) -> tuple[SequentialModel, NeuralConfig]:
        """Return our model with the reference's weights, and its settings as the reference trains it."""
        settings: dict[str, Any] = {ours: file.size(theirs) for ours, theirs in self.sizes.items()}
        own = self.settings(file) if callable(self.settings) else self.settings
        config = model_entry(self.model).config.model_validate({**settings, "padding_class": True, **own})
        assert isinstance(config, NeuralConfig)
        sizes = replace(file.sizes, providers=file.sizes.providers + self.more_providers)
        model = build_model(self.model, config, sizes)
        assert isinstance(model, SequentialModel)
        if "in/item_provider" in file.tensors:
            model.prepare(file.log)
        buffers = {name for name, _ in model.named_buffers()}
        prepared = {name: tensor for name, tensor in model.state_dict().items() if name in buffers}
        kept = self.convert({name: tensor for name, tensor in file.weights.items() if name not in self.unused})
        model.load_state_dict({**prepared, **{self.our_name(name): tensor for name, tensor in kept.items()}})
        return model.eval(), config

    def compute(self, file: ReferenceFile) -> dict[str, Tensor]:
        """Return the outputs that we compute, by name; the model's own replace the common ones."""
        model, config = self.load(file)
        found = dict(common_outputs(model, config, file)) if self.common else {}
        if self.outputs is not None:
            found.update(self.outputs(model, config, file))
        return found


def common_outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    """Yield what most references have: views, scores, the cross-entropy and the loss as it is minimised."""
    batch = file.batch()
    views = model.encode(batch.histories, every_position=False)
    yield "user_vectors", views.user
    if views.provider is not None:
        yield "provider_view", views.provider
    yield "scores", views.user @ model.item_vectors().T
    if any(use.name == "next-item" for use in config.stages()[-1].tasks):
        yield from _losses(model, config, batch, file.expected)


def _losses(model: SequentialModel, config: NeuralConfig, batch: Batch, wanted: Mapping[str, Tensor]) -> Outputs:
    trained = batch_losses(model, config, batch, packed=False)
    yield "cross_entropy_with_padding_class", trained.parts["next-item"]
    yield "total_loss_as_released", trained.total
    real = config.model_copy(update={"padding_class": False})
    yield "cross_entropy", batch_losses(model, real, batch, packed=False).parts["next-item"]
    if "provider-contrast" not in trained.parts:
        return
    for name in wanted:
        if match := re.fullmatch(r"nt_xent(_cosine)?_tau(\d+(?:\.\d+)?)", name):
            update = {"similarity": "cosine" if match[1] else "dot", "tau": float(match[2]), "contrast": "nt-xent"}
            losses = batch_losses(model, config.model_copy(update=update), batch, packed=False)
            yield name, losses.parts["provider-contrast"]
