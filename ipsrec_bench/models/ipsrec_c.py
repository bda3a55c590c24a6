"""IPSRec-C: the cross-stream model of Chen et al., SIGIR 2022, section 2.2.

Each side, items and providers, has a causal Transformer of its own over embedding + position + segment
(section 2.2, embedding layer). A co-attention fusion module lies on top (eq. 7 to 11): the item side's output
is softmax(Q_p K_i^T / sqrt(d / h)) V_i, so the *providers* ask and the item side answers, and the other way
round. Around it, as in a Transformer layer and as in the released code: a dense layer, dropout, the residual
of the side that answers, layer normalisation, and a feed-forward per side.

The item side's output at the last position is the user vector, the provider side's is the second view of the
contrastive loss (eq. 12). Scores use the item embeddings as the projection W_1 of eq. 5.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.layers import (
    LAYER_NORM_EPS,
    FeedForward,
    MultiHeadAttention,
    Transformer,
    causal_mask,
    init_weights,
)
from ipsrec_bench.models.registry import IPSRecCConfig


class Side(nn.Module):
    """The embedding layer and the Transformer of one side."""

    def __init__(self, config: IPSRecCConfig, vocabulary: int, max_length: int) -> None:
        """Build the tables for ids 1 to `vocabulary`."""
        super().__init__()
        d = config.embedding_size
        self.embedding = nn.Embedding(vocabulary + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(max_length, d)
        self.segment_embedding = nn.Embedding(1, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.transformer = Transformer(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map ids `[B, L]` to `[B, L, d]`."""
        positions = self.position_embedding(torch.arange(ids.shape[1], device=ids.device))
        x = self.embedding(ids) + positions + self.segment_embedding.weight[0]
        out: Tensor = self.transformer(self.dropout(self.norm(x)), mask)
        return out


class CoAttention(nn.Module):
    """One direction of the fusion: `asking` queries, `answering` gives keys, values and the residual."""

    def __init__(self, config: IPSRecCConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.attention = MultiHeadAttention(config)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(self, answering: Tensor, asking: Tensor, mask: Tensor) -> Tensor:
        """Map two sequences `[B, L, d]` to the fused sequence of the answering side."""
        out: Tensor = self.feed_forward(self.norm(answering + self.attention(asking, answering, mask)))
        return out


class IPSRecC(SequentialModel):
    """Two causal Transformers, joined by co-attention."""

    def __init__(self, config: IPSRecCConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        self.item_side = Side(config, sizes.items, sizes.max_length)
        self.provider_side = Side(config, sizes.providers, sizes.max_length)
        self.item_fusion = CoAttention(config)
        self.provider_fusion = CoAttention(config)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the item view and the provider view, each `[B, d]`, or `[B, L, d]` at every position."""
        mask = causal_mask(histories.items.shape[1], histories.items.device)
        items = self.item_side(histories.items, mask)
        providers = self.provider_side(histories.providers, mask)
        item_view = self.item_fusion(answering=items, asking=providers, mask=mask)
        provider_view = self.provider_fusion(answering=providers, asking=items, mask=mask)
        if every_position:
            return Views(item_view, provider_view)
        return Views(histories.last(item_view), histories.last(provider_view))

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_side.embedding.weight
