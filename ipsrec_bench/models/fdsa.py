"""FDSA: feature-level deeper self-attention (Zhang et al., IJCAI 2019).

Two streams of causal self-attention, one over the items and one over their features, each with its own position
embeddings. Their outputs are concatenated and projected:

    u_t = W [O_t^i; O_t^p] + b

Scores are dot products with the item embeddings. The paper first weights an item's features by vanilla attention; with
the provider as the only feature, its weight is 1. Each stream is SASRec's `SequenceEncoder`, so the second stream is
the only difference from SASRec.

RecBole (`preset = "recbole"`) has one position table and one layer normalisation for both streams. It normalises u_t
by the same layer a third time, followed by dropout (`shared_input`), and has a class for padding in its softmax. Its
attention over the features has weights that do nothing with a single feature; they are left out here.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import FDSAConfig
from ipsrec_bench.models.layers import SequenceEncoder, init_weights


class FDSA(SequentialModel):
    """Two parallel causal Transformers, one over items and one over providers, joined at the end."""

    mixed_precision = True

    def __init__(self, config: FDSAConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.item_encoder = SequenceEncoder(config, sizes.max_length)
        self.provider_encoder = SequenceEncoder(config, sizes.max_length)
        self.output = nn.Linear(2 * d, d)
        self.dropout = Dropout(config.hidden_dropout)
        self.shared_input = config.shared_input
        if self.shared_input:
            self.provider_encoder.position_embedding = self.item_encoder.position_embedding
            self.provider_encoder.norm = self.item_encoder.norm
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        read = None if every_position else histories.newest
        items = self.item_encoder(self.item_embedding(histories.items), read)
        providers = self.provider_encoder(self.provider_embedding(histories.providers), read)
        user = self.output(torch.cat([items, providers], dim=-1))  # [B, L, d] or [B, 1, d]
        if self.shared_input:
            user = self.dropout(self.item_encoder.norm(user))
        return Views(user if every_position else user[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
