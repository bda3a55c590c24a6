"""The IPSRec authors' released code."""

from ipsrec_bench.testing.references.api import LAYER_NAMES, TRANSFORMER_SIZES, Reference

REFERENCES = (
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
        sizes=TRANSFORMER_SIZES,
        settings={"preset": "released"},
        unused=frozenset({"position_embedding.weight"}),
    ),
    Reference(
        model="ipsrec-s",
        sign="position_embedding_seller.weight",
        names={
            **LAYER_NAMES,
            "seller_embedding": "provider_embedding",
            "position_embedding_item": "item_position_embedding",
            "position_embedding_seller": "provider_position_embedding",
            "LayerNorm": "norm",
            "trm_encoder.layer": "transformer.layers",
        },
        sizes=TRANSFORMER_SIZES,
        settings={"preset": "released"},
        unused=frozenset({"position_embedding.weight"}),
    ),
)
