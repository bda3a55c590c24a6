"""IPSRec-S: the single-stream model of Chen et al., SIGIR 2022, section 2.1.

Items and providers form one sequence [items; providers] (eq. 2), which one Transformer encodes (eq. 3). Each token is
the sum of its embedding, a position embedding of its half and a segment embedding (eq. 1), followed by layer
normalisation (shared by both halves) and dropout. The item half's output at the last position is the user
vector (eq. 5), the provider half's is the second view of the contrastive loss (eq. 12). Scores use the item
embeddings as the projection W_1 of eq. 5, or a separate table.

There are three readings of "self-attention over the whole sequence". By default, position t of either half sees the
positions up to t of both halves (`block-causal`): all positions can be trained in one pass and none sees the
future. The released code has one lower-triangular mask over [items; providers] (`concat-causal`): items see only items,
so the user vector does not depend on the history's providers. `full` has no causal mask.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import IPSRecSConfig
from ipsrec_bench.models.layers import LAYER_NORM_EPS, Transformer, causal_mask, init_weights, real_positions


class IPSRecS(SequentialModel):
    """One Transformer over the concatenated item and provider sequences."""

    mixed_precision = True

    def __init__(self, config: IPSRecSConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.attention = config.attention
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.item_position_embedding = nn.Embedding(sizes.max_length, d)
        self.provider_position_embedding = nn.Embedding(sizes.max_length, d)
        self.segment_embedding = nn.Embedding(2, d)  # 0: items, 1: providers
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.transformer = Transformer(config, config.n_layers)
        self.projection = None if config.tie_weights else nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the item view and the provider view, each `[B, d]`, or `[B, L, d]` at every position."""
        length, device = histories.items.shape[1], histories.items.device
        positions = torch.arange(length, device=device)
        segment = self.segment_embedding.weight
        items = self.item_embedding(histories.items) + self.item_position_embedding(positions) + segment[0]
        providers = (
            self.provider_embedding(histories.providers) + self.provider_position_embedding(positions) + segment[1]
        )
        x = self.dropout(self.norm(torch.cat([items, providers], dim=1)))  # [B, 2L, d]
        if every_position:
            item_view, provider_view = self.transformer(x, self._mask(histories)).split(length, dim=1)
        else:
            both = torch.cat([histories.newest, histories.newest + length], dim=1)
            item_view, provider_view = self.transformer(x, self._mask(histories), both).unbind(dim=1)
        return Views(item_view, provider_view)

    def item_vectors(self) -> Tensor:
        """Return W_1, `[items + 1, d]`."""
        return (self.projection or self.item_embedding).weight

    def _mask(self, histories: Histories) -> Tensor:
        """Return which keys each query sees, bool `[2L, 2L]` or `[B, 1, 2L, 2L]`."""
        length, device = histories.items.shape[1], histories.items.device
        if self.attention == "block-causal":
            return causal_mask(length, device).repeat(2, 2)
        # Providers come after the items' padding, and `full` looks ahead, so padding has to be masked.
        real = real_positions(histories).repeat(1, 1, 1, 2)
        if self.attention == "full":
            return real.expand(-1, -1, 2 * length, -1)
        return causal_mask(2 * length, device) & real
