"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

As RecBole builds it, and as the paper compares with it: item + position embedding, layer normalisation,
dropout; a causal post-LN Transformer; scores are dot products with the item embeddings themselves. The
user vector is the output at the last position.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.layers import LAYER_NORM_EPS, Transformer, causal_mask, init_weights
from ipsrec_bench.models.registry import SASRecConfig


class SASRec(SequentialModel):
    """A causal Transformer over the item sequence; it does not see providers."""

    def __init__(self, config: SASRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.transformer = Transformer(config)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        length, device = histories.items.shape[1], histories.items.device
        positions = self.position_embedding(torch.arange(length, device=device))
        x = self.dropout(self.norm(self.item_embedding(histories.items) + positions))
        x = self.transformer(x, causal_mask(length, device))
        return Views(x if every_position else histories.last(x))

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
