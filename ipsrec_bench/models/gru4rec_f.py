"""GRU4Rec-F: two parallel GRUs, one over items and one over providers.

Hidasi, Quadrana, Karatzoglou and Tikk, "Parallel Recurrent Neural Network Architectures for Feature-rich
Session-based Recommendations" (RecSys 2016), the parallel architecture: a GRU for the item ids and a GRU for the
feature, whose hidden states are concatenated before the output,

    u_t = W_d [h_t^i; h_t^p] + b_d,

trained jointly on one cross-entropy over all items, as in RecBole's GRU4RecF. Each GRU is the one in
`ipsrec_bench.models.gru4rec`. The paper also has trainings in which the two networks take turns.

RecBole computes the same. In training, it applies dropout to the item embeddings alone, and has a class for padding in
its softmax (`padding_class = true`).
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import GRU4RecConfig
from ipsrec_bench.models.gru4rec import build_embedding, build_gru


class GRU4RecF(SequentialModel):
    """Two parallel GRUs, one over items and one over providers."""

    mixed_precision = True

    def __init__(self, config: GRU4RecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = build_embedding(sizes.items, d)
        self.provider_embedding = build_embedding(sizes.providers, d)
        self.dropout = Dropout(config.dropout)
        self.item_gru = build_gru(config)
        self.provider_gru = build_gru(config)
        self.dense = nn.Linear(2 * config.hidden_size, d)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        items, _ = self.item_gru(self.dropout(self.item_embedding(histories.items)))
        providers, _ = self.provider_gru(self.dropout(self.provider_embedding(histories.providers)))
        hidden = torch.cat([items, providers], dim=-1)  # [B, L, 2 hidden]
        return Views(self.dense(hidden if every_position else histories.last(hidden)))

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
