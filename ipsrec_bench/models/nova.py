"""NOVA: non-invasive self-attention for side information fusion (Liu et al., AAAI 2021).

Side information decides where to attend, not what is read: in every layer, queries and keys come from the item states
fused with provider and position embeddings (by the fusor "add"), values from the item states alone:

    R = V + e^p + p                    NOVA(R, V) = softmax(Q_R K_R^T / sqrt(d / h)) V W_V

The item states start as item embeddings and are passed from layer to layer, so they never leave the item space;
residual, layer normalisation and feed-forward follow as in a Transformer layer.

The paper builds on BERT with masked items; here, as in all models of this toolkit, attention is causal and the model
predicts the next item. Scores are dot products with the item embeddings.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import TransformerConfig
from ipsrec_bench.models.layers import LAYER_NORM_EPS, AttentionBlock, causal_mask, init_weights


class NOVA(SequentialModel):
    """A causal Transformer over items whose attention weights depend on providers and positions, too."""

    mixed_precision = True

    def __init__(self, config: TransformerConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(AttentionBlock(config) for _ in range(config.n_layers))
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        length, device = histories.items.shape[1], histories.items.device
        positions = self.position_embedding(torch.arange(length, device=device))
        side = self.dropout(self.provider_embedding(histories.providers) + positions)
        x = self.dropout(self.norm(self.item_embedding(histories.items)))
        mask = causal_mask(length, device)
        for index, layer in enumerate(self.layers, start=1):
            fused = x + side
            newest_only = index == len(self.layers) and not every_position
            x = layer(fused, fused, x, mask, histories.newest if newest_only else None)
        return Views(x if every_position else x[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
