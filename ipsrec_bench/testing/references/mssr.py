"""The MSSR authors' released code."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import MSSRConfig, NeuralConfig
from ipsrec_bench.models.mssr import MSSR, STREAMS
from ipsrec_bench.testing.references.api import GATE_BIASES, TRANSFORMER_SIZES, Outputs, Reference, ReferenceFile
from ipsrec_bench.training.objective import batch_losses

SIMILARITIES = {"dot": "dot", "cos": "cosine"}
"""Our names of the released code's."""
PROVIDER_STREAM = ("dense_attr", "LayerNorm_attr", "feed_forward_attr", "value_layers")
"""Weights that the released code has in every layer and uses in the first."""


def _settings(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "released",
        "attribute_size": file.size("attribute_d"),
        "attribute_weight": float(file.about["lamda"]),
        "contrast_weight": float(file.about["cllmd"]),
        "tau": float(file.about["tau"]),
        "similarity": SIMILARITIES[file.about["sim"]],
    }


def _to_the_last_layer(file: ReferenceFile) -> Mapping[str, object]:
    return {**_settings(file), "provider_layer": "last"}


def _square(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of sources the shape of pairs of kinds."""
    pairs = {"trm_encoder.fusion_wi": (3, 3), "trm_encoder.fusion_wc": (2, 2)}
    return {name: tensor.view(pairs[name]) if name in pairs else tensor for name, tensor in weights.items()}


def _used(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the provider stream of layers after the first."""
    return {
        name: tensor
        for name, tensor in _square(weights).items()
        if name.startswith("trm_encoder.layer.0.") or not any(f".{part}." in name for part in PROVIDER_STREAM)
    }


def _outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, MSSR)
    assert isinstance(config, MSSRConfig)
    batch, d = file.batch(), config.embedding_size
    streams = model.encode(batch.histories, every_position=False).extra[STREAMS]
    yield "user_vectors", streams[:, :d]
    yield "attribute_vectors", streams[:, d:]
    yield "candidate_attribute_vectors", model.item_vectors()[:, d:]
    yield "gate", model.item_gate(streams)
    yield "attribute_gate", model.provider_gate(streams)
    yield "attribute_logits", model.provider_logits(streams)
    for name, similarity in SIMILARITIES.items():
        every_task = {"similarity": similarity, "attribute_weight": 1.0, "contrast_weight": 1.0}
        parts = batch_losses(model, config.model_copy(update=every_task), batch, packed=False).parts
        yield "attribute_loss", parts["provider-prediction"]
        yield f"contrastive_{name}", parts["stream-contrast"]
    deep, _ = replace(REFERENCES[0], settings=_to_the_last_layer, convert=_square).load(file)
    views = deep.encode(batch.histories, every_position=False)
    yield "last_layer_attribute_vectors", views.extra[STREAMS][:, d:]
    yield "last_layer_scores", views.user @ deep.item_vectors().T


REFERENCES = (
    Reference(
        model="mssr",
        released_as="MSSR",
        names={
            "feature_embed_layer_list.0.token_embedding_table.item.embedding": "provider_embedding",
            "LayerNorm": "norm",
            "trm_encoder.layer": "layers",
            "trm_encoder.fusion_wi": "item_weights",
            "trm_encoder.fusion_wc": "provider_weights",
            "gating_linear": "score_gate",
            "aap_gate_linear": "predictor_gate",
            "api.0": "item_predictor",
            "apc.0": "provider_predictor",
            "wi2c": "to_provider_stream",
            "multi_head_attention.query": "item_query",
            "multi_head_attention.query_p": "position_query",
            "multi_head_attention.query_ic": "item_to_provider",
            "multi_head_attention.query_pc": "position_to_provider",
            "multi_head_attention.query_layers.0": "provider_query",
            "multi_head_attention.query_ci": "provider_to_item",
            "multi_head_attention.query_cp": "provider_to_position",
            "multi_head_attention.key": "item_key",
            "multi_head_attention.key_layers.0": "provider_key",
            "multi_head_attention.key_p": "position_key",
            "multi_head_attention.value": "item_value",
            "multi_head_attention.value_layers.0": "provider_value",
            "multi_head_attention.fusion_layer.projection.0": "gate.hidden",
            "multi_head_attention.fusion_layer.projection.2": "gate.output",
            "multi_head_attention.dense": "item_output.dense",
            "multi_head_attention.LayerNorm": "item_output.norm",
            "feed_forward.dense_1": "item_output.feed_forward.inner",
            "feed_forward.dense_2": "item_output.feed_forward.outer",
            "feed_forward.LayerNorm": "item_output.feed_forward.norm",
            "multi_head_attention.dense_attr": "provider_output.dense",
            "multi_head_attention.LayerNorm_attr": "provider_output.norm",
            "feed_forward_attr.dense_1": "provider_output.feed_forward.inner",
            "feed_forward_attr.dense_2": "provider_output.feed_forward.outer",
            "feed_forward_attr.LayerNorm": "provider_output.feed_forward.norm",
        },
        sizes=TRANSFORMER_SIZES,
        settings=_settings,
        unused=GATE_BIASES,
        convert=_used,
        outputs=_outputs,
    ),
)
