"""The DIFF authors' released code."""

from collections.abc import Mapping

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.testing.references.api import GATE_BIASES, TRANSFORMER_SIZES, Outputs, Reference, ReferenceFile
from ipsrec_bench.training.objective import batch_losses


def _settings(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "released",
        "fusion": file.about["fusion"],
        "c": file.size("c"),
        "alpha": float(file.about["alpha"]),
        "align_weight": float(file.about["lambda"]),
        "align_temperature": float(file.about["align_temperature"]),
    }


def _outputs(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    batch = file.batch()
    views = model.encode(batch.histories, every_position=False)
    yield "separate_stream", views.extra["separate"]
    yield "fused_stream", views.extra["fused"]
    aligned = config.model_copy(update={"align_weight": 1.0})
    yield "align_loss", batch_losses(model, aligned, batch, packed=False).parts["alignment"]


REFERENCES = (
    Reference(
        model="diff",
        released_as="DIFF",
        names={
            "feature_embed_layer_list.0.token_embedding_table.item.embedding": "provider_embedding",
            "LayerNorm": "norm",
            "trm_encoder.layer": "layers",
            "fusion_layer": "input_fusion",
            "fusion_layer.projection.0": "input_fusion.hidden",
            "fusion_layer.projection.2": "input_fusion.output",
            "filter_layer.0": "fused_filter",
            "filter_layer.1": "item_filter",
            "filter_layer.2": "provider_filter",
            "multi_head_attention": "item_attention",
            "multi_head_attention.query": "item_attention.query.0",
            "multi_head_attention.query_layers.0": "item_attention.query.1",
            "multi_head_attention.query_p": "item_attention.query.2",
            "multi_head_attention.key": "item_attention.key.0",
            "multi_head_attention.key_layers.0": "item_attention.key.1",
            "multi_head_attention.key_p": "item_attention.key.2",
            "multi_head_attention.fusion_layer": "item_attention.fusion.output",
            "multi_head_attention.fusion_layer.projection.0": "item_attention.fusion.hidden",
            "multi_head_attention.fusion_layer.projection.2": "item_attention.fusion.output",
            "multi_head_attention.LayerNorm": "item_norm",
            "early_multi_head_attention": "fused_attention",
            "early_multi_head_attention.LayerNorm": "fused_norm",
            "feed_forward.dense_1": "feed_forward.inner",
            "feed_forward.dense_2": "feed_forward.outer",
            "feed_forward.LayerNorm": "feed_forward.norm",
        },
        sizes=TRANSFORMER_SIZES,
        settings=_settings,
        unused=GATE_BIASES | {"fusion_layer.projection.2.bias"},
        outputs=_outputs,
    ),
)
