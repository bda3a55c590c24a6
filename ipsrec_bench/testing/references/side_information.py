"""RecBole 1.2.1's models that see providers, and the authors' code of DIF-SR."""

from collections.abc import Mapping

from torch import Tensor

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.dif_sr import DIFSR
from ipsrec_bench.testing.references.api import (
    ENCODER_NAMES,
    GATE_BIASES,
    LAYER_NAMES,
    TRANSFORMER_SIZES,
    Outputs,
    Reference,
    ReferenceFile,
)
from ipsrec_bench.training.objective import batch_losses

TABLE = "feature_embed_layer.token_embedding_table.item.embedding"
"""RecBole's name of the provider table."""


def _for_both_streams(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add what FDSA's streams share in RecBole once more, as the provider stream's."""
    shared = {name: tensor for name, tensor in weights.items() if name.startswith(("position_embedding", "LayerNorm"))}
    return {**weights, **{f"feature_{name}": tensor for name, tensor in shared.items()}}


def _dif_sr(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "released",
        "fusion": file.about["fusion"],
        "attribute_size": file.size("attribute_d"),
        "attribute_weight": float(file.about["lamda"]),
    }


def _attributes(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, DIFSR)
    batch = file.batch()
    yield "attribute_logits", model.provider_logits(model.encode(batch.histories, every_position=False).user)
    with_loss = config.model_copy(update={"attribute_weight": 1.0})
    yield "attribute_loss", batch_losses(model, with_loss, batch, packed=False).parts["provider-prediction"]


REFERENCES = (
    Reference(
        model="sasrec-f",
        released_as="SASRecF",
        names={**ENCODER_NAMES, TABLE: "provider_embedding", "concat_layer": "projection"},
        sizes=TRANSFORMER_SIZES,
        settings={"fusion": "concat"},
    ),
    Reference(
        model="gru4rec-f",
        released_as="GRU4RecF",
        names={
            TABLE: "provider_embedding",
            "item_gru_layers": "item_gru",
            "feature_gru_layers": "provider_gru",
            "dense_layer": "dense",
        },
        sizes={"embedding_size": "d", "hidden_size": "hidden", "n_layers": "layers"},
    ),
    Reference(
        model="fdsa",
        released_as="FDSA",
        names={
            **LAYER_NAMES,
            TABLE: "provider_embedding",
            "position_embedding": "item_encoder.position_embedding",
            "LayerNorm": "item_encoder.norm",
            "feature_position_embedding": "provider_encoder.position_embedding",
            "feature_LayerNorm": "provider_encoder.norm",
            "item_trm_encoder.layer": "item_encoder.transformer.layers",
            "feature_trm_encoder.layer": "provider_encoder.transformer.layers",
            "concat_layer": "output",
        },
        sizes=TRANSFORMER_SIZES,
        settings={"preset": "recbole"},
        unused=frozenset(
            f"feature_att_layer.projection.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
        ),
        convert=_for_both_streams,
    ),
    Reference(
        model="dif-sr",
        released_as="DIF-SR",
        names={
            **LAYER_NAMES,
            "feature_embed_layer_list.0.token_embedding_table.item.embedding": "provider_embedding",
            "LayerNorm": "norm",
            "trm_encoder.layer": "layers",
            "query": "query.0",
            "query_layers.0": "query.1",
            "query_p": "query.2",
            "key": "key.0",
            "key_layers.0": "key.1",
            "key_p": "key.2",
            "fusion_layer": "fusion.output",
            "fusion_layer.projection.0": "fusion.hidden",
            "fusion_layer.projection.2": "fusion.output",
            "ap.0": "provider_output",
        },
        sizes=TRANSFORMER_SIZES,
        settings=_dif_sr,
        unused=GATE_BIASES,
        outputs=_attributes,
    ),
)
