"""RecBole 1.2.1: SASRec, GRU4Rec, Caser, SR-GNN, NextItNet and GC-SAN."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.gc_san import GCSAN
from ipsrec_bench.models.nextitnet import NextItNet
from ipsrec_bench.models.registry import build_model
from ipsrec_bench.testing.references.api import (
    ENCODER_NAMES,
    LAYER_NAMES,
    TRANSFORMER_SIZES,
    Outputs,
    Reference,
    ReferenceFile,
)
from ipsrec_bench.training.objective import weight_norms

GRAPH_NAMES = {
    "gnn.linear_edge_in": "cell.incoming",
    "gnn.linear_edge_out": "cell.outgoing",
    "gnn.w_ih": "cell.message_gates.weight",
    "gnn.b_ih": "cell.message_gates.bias",
    "gnn.w_hh": "cell.state_gates.weight",
    "gnn.b_hh": "cell.state_gates.bias",
}
"""Our names within RecBole's gated graph network."""


def _recurrent(file: ReferenceFile) -> Mapping[str, object]:
    """Read the sizes of the GRU, which are not in the metadata, from its weights."""
    return {
        "embedding_size": file.size("d"),
        "hidden_size": file.weights["gru_layers.weight_hh_l0"].shape[1],
        "n_layers": sum(name.startswith("gru_layers.weight_hh_l") for name in file.weights),
    }


def _convolutional(file: ReferenceFile) -> Mapping[str, object]:
    return {
        "preset": "recbole",
        "dilations": json.loads(file.about["dilations"]),
        "weight_norm": float(file.about["reg_weight"]),
    }


def _without_height(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the dimension of height, which is 1, from the kernels of convolutions `[out, in, 1, taps]`."""
    return {name: tensor.squeeze(2) if tensor.dim() == 4 else tensor for name, tensor in weights.items()}  # noqa: PLR2004


def _convolved(model: SequentialModel, config: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, NextItNet)
    histories, left = file.histories(), file.given("items_left")
    yield "hidden", model.states(histories.items)
    # Where the newest position is the last column, both ways of reading are the same.
    full = Histories(histories.users, left, torch.zeros_like(left), torch.full_like(histories.lengths, left.shape[1]))
    yield "user_vectors_left_padded", model.encode(full, every_position=False).user
    at_newest = build_model("nextitnet", config.model_copy(update={"reads": "newest"}), file.sizes).eval()
    at_newest.load_state_dict(model.state_dict())
    assert isinstance(at_newest, NextItNet)
    yield "user_vectors_at_length", at_newest.encode(histories, every_position=False).user
    yield "penalty_tables", config.weight_norm * (weight_norms(model.item_embedding) + weight_norms(model.output))
    yield "penalty_blocks", config.weight_norm * weight_norms(model.blocks)


def _contextualised(file: ReferenceFile) -> Mapping[str, object]:
    return {"attention_weight": float(file.about["weight"]), "table_norm": float(file.about["reg_weight"])}


def _graph(model: SequentialModel, _: NeuralConfig, file: ReferenceFile) -> Outputs:
    assert isinstance(model, GCSAN)
    histories = file.histories()
    states = model.graph_states(histories.items)
    yield "graph_hidden", states
    yield "graph_last", histories.last(states)
    yield "attention_last", model.attended(states, histories)
    penalty = model.penalty()
    yield "penalty", torch.zeros(1) if penalty is None else penalty


REFERENCES = (
    Reference(
        model="gru4rec",
        sign="gru_layers.weight_hh_l0",
        names={"gru_layers": "gru"},
        settings=_recurrent,
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
            **GRAPH_NAMES,
            "gnn.b_iah": "cell.incoming_bias",
            "gnn.b_ioh": "cell.outgoing_bias",
            "linear_one": "attend_last",
            "linear_two": "attend_all",
            "linear_three": "attend_score",
            "linear_transform": "output",
        },
        sizes={"embedding_size": "d", "step": "step"},
    ),
    Reference(
        model="nextitnet",
        released_as="NextItNet",
        names={"residual_blocks": "blocks", "ln1": "norm1", "ln2": "norm2", "final_layer": "output"},
        sizes={"embedding_size": "d", "kernel_size": "kernel_size", "block_num": "block_num"},
        settings=_convolutional,
        convert=_without_height,
        outputs=_convolved,
    ),
    Reference(
        model="gc-san",
        released_as="GCSAN",
        names={**LAYER_NAMES, **GRAPH_NAMES, "self_attention.layer": "transformer.layers"},
        sizes={**TRANSFORMER_SIZES, "step": "step"},
        settings=_contextualised,
        outputs=_graph,
    ),
    Reference(
        model="sasrec",
        sign="trm_encoder.layer.0.multi_head_attention.query.weight",
        names=ENCODER_NAMES,
        sizes=TRANSFORMER_SIZES,
    ),
)
