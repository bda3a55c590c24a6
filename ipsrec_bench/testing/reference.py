"""Parity with references: do our models compute what independent implementations computed?

    python -m ipsrec_bench.testing.reference FILE...

prints, for every file and every output in it, the largest absolute error, and exits with 1 if any exceeds 1e-5 (or is
not a number), else with 2 if a file cannot be used. A file is in safetensors format. Its metadata give the sizes
(`d, items, providers, max_length, layers, heads, inner, nv, nh, step`); its tensors are

- `in/items`, `in/providers` `[B, max_length]` (padded with 0 on the right), `in/length`, `in/user`, `in/target` `[B]`;
- `weight/*` under the reference's own names: RecBole's for SASRec, GRU4Rec, Caser and SR-GNN, the released code's for
  IPSRec-S and IPSRec-C. `REFERENCES` maps these names to ours, and has the weights by which a file is recognised;
- `out/*`: `user_vectors`, `provider_view`, `scores` (column 0 = padding class), `cross_entropy` over the real items,
  `cross_entropy_with_padding_class`, `total_loss_as_released`, and contrastive losses `nt_xent[_cosine]_tau<tau>`.

Outputs are computed by the code that trains and ranks: `encode`, `item_vectors` and `batch_losses`.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.errors import BenchError, ModelError, listed
from ipsrec_bench.models.api import SequentialModel, Sizes
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import Batch

TOLERANCE = 1e-5
"""Largest absolute error in float32 that counts as equal."""

_LAYER_NAMES = {
    "multi_head_attention": "attention",
    "multi_head_attention.LayerNorm": "norm",
    "feed_forward.dense_1": "feed_forward.inner",
    "feed_forward.dense_2": "feed_forward.outer",
    "feed_forward.LayerNorm": "feed_forward.norm",
}
_TRANSFORMER_SIZES = {"embedding_size": "d", "n_layers": "layers", "n_heads": "heads", "inner_size": "inner"}


@dataclass(frozen=True)
class Reference:
    """How the files of one reference are read and compared."""

    model: str
    """Our model's name in the registry."""
    sign: str
    """Weights by which its files are recognised, joined by ` + `."""
    names: Mapping[str, str]
    """Our names for parts of the reference's weight names; the longest matching part is replaced."""
    sizes: Mapping[str, str]
    """The metadata that give our settings."""
    settings: Mapping[str, object] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    """Weights that the reference has but does not use."""

    def our_name(self, theirs: str) -> str:
        """Return our name of the weight `theirs`."""
        parts = "|".join(re.escape(part) for part in sorted(self.names, key=len, reverse=True))
        return re.sub(rf"(?<!\w)({parts})(?!\w)", lambda match: self.names[match[0]], theirs)


REFERENCES = (
    Reference(
        model="gru4rec",
        sign="gru_layers.weight_hh_l0",
        names={"gru_layers": "gru"},
        sizes={"embedding_size": "d"},
    ),
    Reference(
        model="caser",
        sign="conv_v.weight",
        names={"conv_v": "vertical", "conv_h": "horizontal", "fc1": "hidden", "fc2": "output"},
        sizes={"embedding_size": "d", "n_vertical": "nv", "n_horizontal": "nh"},
    ),
    Reference(
        model="sr-gnn",
        sign="gnn.w_ih",
        names={
            "gnn.linear_edge_in": "cell.incoming",
            "gnn.linear_edge_out": "cell.outgoing",
            "gnn.b_iah": "cell.incoming_bias",
            "gnn.b_ioh": "cell.outgoing_bias",
            "gnn.w_ih": "cell.message_gates.weight",
            "gnn.b_ih": "cell.message_gates.bias",
            "gnn.w_hh": "cell.state_gates.weight",
            "gnn.b_hh": "cell.state_gates.bias",
            "linear_one": "attend_last",
            "linear_two": "attend_all",
            "linear_three": "attend_score",
            "linear_transform": "output",
        },
        sizes={"embedding_size": "d", "step": "step"},
    ),
    Reference(
        model="ipsrec-c",
        sign="position_embedding_seller.weight + trm_encoder.layer.0.bi_attention.query1.weight",
        names={
            "seller_embedding": "provider_embedding",
            "position_embedding_item": "item_encoder.position_embedding",
            "position_embedding_seller": "provider_encoder.position_embedding",
            "LayerNorm1": "item_encoder.norm",
            "LayerNorm2": "provider_encoder.norm",
            "trm_encoder.layer": "fusion",
            # The item side gives keys, values and residual for the provider side's queries, and vice versa.
            "bi_attention.query2": "item_answer.attention.query",
            "bi_attention.key1": "item_answer.attention.key",
            "bi_attention.value1": "item_answer.attention.value",
            "bi_attention.dense1": "item_answer.attention.dense",
            "bi_attention.LayerNorm1": "item_answer.norm",
            "bi_attention.query1": "provider_answer.attention.query",
            "bi_attention.key2": "provider_answer.attention.key",
            "bi_attention.value2": "provider_answer.attention.value",
            "bi_attention.dense2": "provider_answer.attention.dense",
            "bi_attention.LayerNorm2": "provider_answer.norm",
            "bi_feed_forward.i_dense_1": "item_answer.feed_forward.inner",
            "bi_feed_forward.i_dense_2": "item_answer.feed_forward.outer",
            "bi_feed_forward.i_LayerNorm": "item_answer.feed_forward.norm",
            "bi_feed_forward.s_dense_1": "provider_answer.feed_forward.inner",
            "bi_feed_forward.s_dense_2": "provider_answer.feed_forward.outer",
            "bi_feed_forward.s_LayerNorm": "provider_answer.feed_forward.norm",
        },
        sizes=_TRANSFORMER_SIZES,
        settings={"preset": "released"},
        unused=frozenset({"position_embedding.weight"}),
    ),
    Reference(
        model="ipsrec-s",
        sign="position_embedding_seller.weight",
        names={
            **_LAYER_NAMES,
            "seller_embedding": "provider_embedding",
            "position_embedding_item": "item_position_embedding",
            "position_embedding_seller": "provider_position_embedding",
            "LayerNorm": "norm",
            "trm_encoder.layer": "transformer.layers",
        },
        sizes=_TRANSFORMER_SIZES,
        settings={"preset": "released"},
        unused=frozenset({"position_embedding.weight"}),
    ),
    Reference(
        model="sasrec",
        sign="trm_encoder.layer.0.multi_head_attention.query.weight",
        names={
            **_LAYER_NAMES,
            "position_embedding": "encoder.position_embedding",
            "LayerNorm": "encoder.norm",
            "trm_encoder.layer": "encoder.transformer.layers",
        },
        sizes=_TRANSFORMER_SIZES,
    ),
)
"""In this order; the first whose sign is among a file's weights is used."""


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of a model is from the same output of its reference."""

    output: str
    error: float
    """Largest absolute difference; NaN if either side has NaN, or if ours is missing or of another size."""

    @property
    def equal(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= TOLERANCE


def compare(path: Path) -> tuple[str, list[OutputDifference]]:
    """Return the model for which the file at `path` is a reference, and the error of each output in it.

    Raises:
        ModelError: the file does not have the format that this module describes.
    """
    sizes, tensors = _read(path)
    weights = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
    try:
        reference = next(r for r in REFERENCES if all(sign in weights for sign in r.sign.split(" + ")))
    except StopIteration:
        raise ModelError(
            f"{path}: its weights match no known reference; known: {listed(r.model for r in REFERENCES)}"
        ) from None
    try:
        model, config = _load(reference, sizes, weights)
        expected = {name.removeprefix("out/"): t for name, t in tensors.items() if name.startswith("out/")}
        if not expected:
            raise ModelError(f"{path}: the file has no output ('out/...') to compare with")
        with torch.no_grad():
            found = dict(_outputs(model, config, tensors, expected))
    except KeyError as error:
        raise ModelError(f"{path}: the file lacks {error}, which a reference of {reference.model} needs") from None
    except (RuntimeError, IndexError, ValidationError) as error:  # weights, ids or sizes that do not fit each other
        raise ModelError(f"{path}: its content does not fit {reference.model}: {error}") from None
    return reference.model, [
        OutputDifference(name, _error(found.get(name), tensor)) for name, tensor in expected.items()
    ]


def main(arguments: Sequence[str]) -> int:
    """Compare every file named in `arguments`, print what was found, and return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m ipsrec_bench.testing.reference FILE...", file=sys.stderr)
        return 0 if arguments and arguments[0] in {"-h", "--help"} else 2
    failed = unusable = False
    for path in map(Path, arguments):
        try:
            model, comparisons = compare(path)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            unusable = True
            continue
        print(f"{path}: {model}")
        for comparison in comparisons:
            verdict = "ok" if comparison.equal else f"exceeds {TOLERANCE:g}"
            print(f"  {comparison.output:<34} {comparison.error:9.2e}  {verdict}")
        failed |= not all(comparison.equal for comparison in comparisons)
    return 1 if failed else 2 if unusable else 0


def _read(path: Path) -> tuple[dict[str, int], dict[str, Tensor]]:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from None
    return {name: int(value) for name, value in metadata.items() if value.isdigit()}, tensors


def _load(
    reference: Reference, sizes: Mapping[str, int], weights: Mapping[str, Tensor]
) -> tuple[SequentialModel, NeuralConfig]:
    """Return the reference's model with the reference's weights, and its settings as the reference trains it."""
    settings: dict[str, Any] = {ours: sizes[theirs] for ours, theirs in reference.sizes.items()}
    if reference.model == "gru4rec":  # not in the metadata
        settings["hidden_size"] = weights["gru_layers.weight_hh_l0"].shape[1]
        settings["n_layers"] = sum(name.startswith("gru_layers.weight_hh_l") for name in weights)
    config = model_entry(reference.model).config.model_validate(
        {**settings, "padding_class": True, **reference.settings}
    )
    assert isinstance(config, NeuralConfig)
    users = len(weights["user_embedding.weight"]) if "user_embedding.weight" in weights else 1
    providers = sizes.get("providers", 1)  # only IPSRec needs it
    model = build_model(reference.model, config, Sizes(users, sizes["items"], providers, sizes["max_length"]))
    assert isinstance(model, SequentialModel)
    kept = {name: tensor for name, tensor in weights.items() if name not in reference.unused}
    model.load_state_dict({reference.our_name(name): tensor for name, tensor in kept.items()})
    return model.eval(), config


def _outputs(
    model: SequentialModel, config: NeuralConfig, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs that we can compute, by name."""
    items, length = tensors["in/items"].long(), tensors["in/length"].long()
    providers = tensors.get("in/providers", torch.zeros_like(items)).long()
    users = tensors.get("in/user", torch.zeros_like(length)).long()
    histories = Histories(users, items, providers, length)
    nothing = torch.zeros_like(length)
    batch = Batch(histories, nothing, tensors["in/target"].long(), nothing)

    views = model.encode(histories, every_position=False)
    yield "user_vectors", views.user
    if views.provider is not None:
        yield "provider_view", views.provider
    yield "scores", views.user @ model.item_vectors().T
    trained = batch_losses(model, config, batch, packed=False)
    yield "cross_entropy_with_padding_class", trained.cross_entropy
    yield "total_loss_as_released", trained.total
    real = config.model_copy(update={"padding_class": False})
    yield "cross_entropy", batch_losses(model, real, batch, packed=False).cross_entropy
    for name in wanted:
        if match := re.fullmatch(r"nt_xent(_cosine)?_tau(\d+(?:\.\d+)?)", name):
            update = {"similarity": "cosine" if match[1] else "dot", "tau": float(match[2]), "contrast": "nt-xent"}
            contrastive = batch_losses(model, config.model_copy(update=update), batch, packed=False).contrastive
            if contrastive is not None:
                yield name, contrastive


def _error(found: Tensor | None, expected: Tensor) -> float:
    """Return the largest absolute difference; NaN if there is nothing to compare."""
    if found is None or found.numel() != expected.numel():
        return float("nan")
    return float((found.reshape(expected.shape) - expected).abs().max())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
