"""RecTools 0.19 (eSASRec and HSTU), the authors' LRURec, and pmixer's port of TiSASRec."""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.configs.base import DEEPEST
from ipsrec_bench.models.esasrec import ESASRec
from ipsrec_bench.models.hstu import HSTU
from ipsrec_bench.testing.references.api import Outputs, Reference, ReferenceFile, padded_left, padded_right
from ipsrec_bench.training.catalogue import bce_loss, gbce_power, scored, softmax_loss
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.api import TrainingStep

RECTOOLS_NAMES = {
    "item_model.item_net_blocks.0.ids_emb": "item_embedding",
    "pos_encoding_layer.pos_emb": "position_embedding",
}
SIZES = {"embedding_size": "d", "n_layers": "layers", "n_heads": "heads"}


def _esasrec(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "released",
        "inner_size": file.size("d") * file.size("ff_multiplier"),
        "inner_bias": file.about["bias_in_ff"] == "yes",
        "activation": file.about["ff_activation"],
        "similarity": file.about.get("similarity", "dot"),
    }


def _hstu(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "released",
        "time": file.about["relative_time"] == "yes",
        "relative_positions": file.about["relative_position"] == "yes",
        "similarity": file.about["similarity"],
        "temperature": 1.0,  # scores are not divided; the logits of losses are
    }


def _hstu_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn projections round, and keep the biases of distances that a causal mask leaves."""
    found = {}
    for name, weight in weights.items():
        if name.endswith("uvqk_proj"):
            found[f"{name}.weight"] = weight.T
        elif name.endswith("pos_weights"):
            found[name] = weight[: (len(weight) + 1) // 2].flip(0)
        else:
            found[name] = weight
    return found


def _rectools_outputs(model: SequentialModel, _config: NeuralConfig, file: ReferenceFile) -> Outputs:
    """Yield the states, and the losses over all positions, with the negatives that the file gives for each."""
    assert isinstance(model, ESASRec | HSTU)
    batch = file.packed_batch("shifted_targets")
    histories, lengths = batch.histories, batch.histories.lengths
    yield "user_vectors", model.states(histories, every_position=False)
    yield "hidden", padded_left(model.states(histories, every_position=True), lengths)
    model.temperature = float(file.about["logits_t"])
    step = TrainingStep(model, batch, packed=True, first=0)
    yield "full_softmax_loss_as_released", step.next_item_loss(step.main.user, batch.targets)
    negatives = padded_right(file.given("negatives"), lengths).flatten(0, 1)[batch.predicted]
    own, against = scored(step.main.user, step.item_vectors, batch.targets, negatives)
    yield "sampled_logits", _over_places(torch.cat([own[:, None], against], dim=1), batch)
    yield "sampled_softmax_loss_as_released", softmax_loss(own, against)
    yield "bce_loss_as_released", bce_loss(own, against)
    power = gbce_power(float(file.about["gbce_t"]), negatives.shape[1], file.size("items") - 1)
    yield "gbce_loss_as_released", bce_loss(own, against, power)
    if isinstance(model, ESASRec):
        model.temperature, model.sees_padding = 1.0, False
        yield "key_padding_user_vectors", model.states(histories, every_position=False)
        yield "key_padding_scores", model.encode(histories, every_position=False).user @ model.item_vectors().T


def _over_places(values: Tensor, batch: Batch) -> Tensor:
    """Return the values `[N, ...]` of the predicted positions, padded on the left, `[B, L, ...]`."""
    ids = batch.histories.items
    places = values.new_zeros(ids.numel(), *values.shape[1:])
    places[batch.predicted] = values
    return padded_left(places.view(*ids.shape, *values.shape[1:]), batch.histories.lengths)


def _lrurec_outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    """Yield the states, those of padding included, and the loss with and without the padding's prediction."""
    batch, d = file.packed_batch("labels"), file.size("d")
    histories = batch.histories
    yield "user_vectors", model.encode(histories, every_position=False).user[:, :d]
    nothing = torch.zeros_like(histories.items)
    of_padding = model.encode(replace(histories, items=nothing), every_position=True).user[:, :1, :d]
    states = padded_left(model.encode(histories, every_position=True).user[..., :d], histories.lengths)
    real = padded_left(histories.items, histories.lengths) > 0
    yield "hidden", torch.where(real[..., None], states, of_padding)
    yield "train_loss_real_positions", batch_losses(model, config, batch, packed=True).total
    released = config.model_copy(update={"predicts_first": True})
    yield "train_loss_as_released", batch_losses(model, released, batch, packed=True).total


def _lrurec_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the real and the imaginary parts of complex weights side by side."""
    found = {}
    for name, weight in weights.items():
        if name.endswith(".imag"):
            continue
        whole, part = name.removesuffix(".real"), weights.get(name.removesuffix(".real") + ".imag")
        if part is None:
            found[whole] = weight
        elif "out_proj" in name:  # the real part of a product
            found[whole] = torch.cat([weight, -part], dim=1)
        else:
            found[whole] = torch.cat([weight, part])
    return found


def _tisasrec(file: ReferenceFile) -> Mapping[str, object]:
    return {"preset": "released", "time_unit": "second", "table_norm": float(file.about["l2_emb"])}


def _tisasrec_outputs(model: SequentialModel, _config: NeuralConfig, file: ReferenceFile) -> Outputs:
    """Yield the states, and the loss over all positions with one negative each."""
    batch = file.packed_batch("shifted_targets")
    step = TrainingStep(model, batch, packed=True)
    lengths = batch.histories.lengths
    yield "hidden", _over_places(step.main.user, batch)
    negatives = padded_right(file.given("negatives"), lengths).flatten()[batch.predicted][:, None]
    own, against = scored(step.main.user, step.item_vectors, batch.targets, negatives)
    yield "positive_logits", _over_places(own, batch)
    yield "negative_logits", _over_places(against[:, 0], batch)
    loss, penalty = 2 * bce_loss(own, against), model.penalty()  # the sum of two means, not the mean of their terms
    assert penalty is not None
    yield "bce_loss", loss
    yield "penalty", penalty
    yield "total_loss_as_released", loss + penalty


def _tisasrec_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sort weights by layer, count positions from the right edge, and turn convolutions of width 1 into matrices."""
    found = {}
    for name, weight in weights.items():
        by_layer = re.sub(r"^(attention|forward)_layer(norm)?s\.(\d+)", r"layers.\3.\1_\2", name)
        kept = weight.flip(0) if name.startswith("abs_pos") else weight
        found[by_layer] = kept[..., 0] if kept.dim() == 3 else kept  # noqa: PLR2004 (a convolution)
    return found


REFERENCES = (
    Reference(
        model="esasrec",
        released_as="eSASRec",
        names={
            **RECTOOLS_NAMES,
            "transformer_layers.transformer_blocks": "layers",
            "multi_head_attn.in_proj_weight": "projections.weight",
            "multi_head_attn.in_proj_bias": "projections.bias",
            "multi_head_attn.out_proj": "dense",
            "layer_norm_1": "attention_norm",
            "layer_norm_2": "inner_norm",
            "gating_linear_1": "attention_gate",
            "gating_linear_2": "inner_gate",
            "feed_forward.ff_linear_1": "inner_layers.inner",
            "feed_forward.ff_linear_2": "inner_layers.outer",
            "feed_forward.ff_linear_3": "inner_layers.gate",
        },
        sizes=SIZES,
        settings=_esasrec,
        outputs=_rectools_outputs,
    ),
    Reference(
        model="hstu",
        released_as="HSTU",
        names={
            **RECTOOLS_NAMES,
            "transformer_layers.stu_blocks": "layers",
            "norm_input": "input_norm",
            "norm_attn_output": "attended_norm",
            "output_mlp": "output",
            "uvqk_proj": "projections",
            "rel_attn.pos_weights": "distance_bias",
            "rel_attn.time_weights": "time_bias",
        },
        sizes={**SIZES, "time_buckets": "time_buckets"},
        settings=_hstu,
        convert=_hstu_weights,
        outputs=_rectools_outputs,
    ),
    Reference(
        model="lrurec",
        released_as="LRURec",
        names={
            "embedding.token": "item_embedding",
            "embedding.layer_norm": "norm",
            "model.bias": "item_bias",
            "model.lru_blocks": "layers",
            "lru_layer.params_log": "spectrum",
            "lru_layer.in_proj": "input",
            "lru_layer.out_proj": "output",
            "lru_layer.layer_norm": "norm",
            "feed_forward.w_1": "inner",
            "feed_forward.w_2": "outer",
            "feed_forward.layer_norm": "inner_norm",
        },
        sizes={"embedding_size": "d", "n_layers": "layers"},
        unused=frozenset(f"model.lru_blocks.{layer}.lru_layer.out_proj.bias.imag" for layer in range(DEEPEST)),
        convert=_lrurec_weights,
        outputs=_lrurec_outputs,
    ),
    Reference(
        model="tisasrec",
        released_as="TiSASRec",
        names={
            "item_emb": "item_embedding",
            "abs_pos_K_emb": "key_positions",
            "abs_pos_V_emb": "value_positions",
            "time_matrix_K_emb.weight": "key_times",
            "time_matrix_V_emb.weight": "value_times",
            "last_layernorm": "norm",
            "forward_norm": "inner_norm",
            "attention_.Q_w": "attention.query",
            "attention_.K_w": "attention.key",
            "attention_.V_w": "attention.value",
            "forward_.conv1": "inner",
            "forward_.conv2": "outer",
        },
        sizes={**SIZES, "time_span": "time_span"},
        settings=_tisasrec,
        unused=frozenset(f"attention_layers.{layer}.K_w.bias" for layer in range(DEEPEST)),
        convert=_tisasrec_weights,
        outputs=_tisasrec_outputs,
    ),
)
