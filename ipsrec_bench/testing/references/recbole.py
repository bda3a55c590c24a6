"""RecBole 1.2.1: SASRec, GRU4Rec, Caser and SR-GNN."""

from collections.abc import Mapping

from ipsrec_bench.testing.references.api import ENCODER_NAMES, TRANSFORMER_SIZES, Reference, ReferenceFile


def _recurrent(file: ReferenceFile) -> Mapping[str, object]:
    """Read the sizes of the GRU, which are not in the metadata, from its weights."""
    return {
        "embedding_size": file.size("d"),
        "hidden_size": file.weights["gru_layers.weight_hh_l0"].shape[1],
        "n_layers": sum(name.startswith("gru_layers.weight_hh_l") for name in file.weights),
    }


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
        model="sasrec",
        sign="trm_encoder.layer.0.multi_head_attention.query.weight",
        names=ENCODER_NAMES,
        sizes=TRANSFORMER_SIZES,
    ),
)
