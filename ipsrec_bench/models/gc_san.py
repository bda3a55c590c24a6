"""GC-SAN: graph contextualised self-attention (Xu et al., IJCAI 2019).

A gated graph network over the graph of the history, as in `ipsrec_bench.models.sr_gnn`, gives a state for each distinct
item. A node receives the mean of W_in h + b_in over its predecessors and of W_out h + b_out over its successors, and
zero where it has none; unlike in SR-GNN, no further bias follows (eq. 1 and 2). `step` rounds later, a causal
Transformer runs over the states H along the history, without position embeddings and without a normalisation of its
input (eq. 3 to 8). The user vector is the weighted sum of both at the newest item (eq. 9),

    u = w Transformer(H)_t + (1 - w) h_t,

and scores are dot products with the item embeddings. The graph contains later items, so the model is trained on
prefixes.

Implemented as in RecBole: several heads (the paper has one), exact GELU, and a penalty on the loss with the weight
`table_norm`, which is the norm of the item table, not squared, over its number of rows. RecBole also has a class for
padding in its softmax; `padding_class = true` adds it.
"""

import math

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import GCSANConfig
from ipsrec_bench.models.layers import Transformer, causal_mask, init_weights
from ipsrec_bench.models.sr_gnn import GraphCell, states_along


class GCSAN(SequentialModel):
    """A gated graph network over the item sequence, then self-attention; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: GCSANConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights; gates are uniform in +-1 / sqrt(d), as in SR-GNN."""
        super().__init__()
        d = config.embedding_size
        self.step, self.attention_weight, self.table_norm = config.step, config.attention_weight, config.table_norm
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.cell = GraphCell(d, bias=False)
        self.transformer = Transformer(config, config.n_layers)
        self.apply(init_weights)
        for gates in (self.cell.message_gates, self.cell.state_gates):
            for weight in gates.parameters():
                nn.init.uniform_(weight, -1.0 / math.sqrt(d), 1.0 / math.sqrt(d))

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`.

        Raises:
            NotImplementedError: `every_position` is set; each prefix has a separate graph.
        """
        if every_position:
            raise NotImplementedError
        states = self.graph_states(histories.items)
        weight = self.attention_weight
        return Views(weight * self.attended(states, histories) + (1 - weight) * histories.last(states))

    def graph_states(self, items: Tensor) -> Tensor:
        """Return the states of the graph network along `items [B, L]`, zero at padding, `[B, L, d]`."""
        states = states_along(items, self.item_embedding(items), self.cell, self.step)
        return states.masked_fill((items == 0)[:, :, None], 0.0)

    def attended(self, states: Tensor, histories: Histories) -> Tensor:
        """Return the Transformer's output at the newest item, `[B, d]`, over `states [B, L, d]`."""
        mask = causal_mask(states.shape[1], states.device)
        out: Tensor = self.transformer(states, mask, histories.newest)[:, 0]
        return out

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def penalty(self) -> Tensor | None:
        """Return the weighted norm of the item table over its number of rows; None if the weight is 0."""
        table = self.item_embedding.weight
        return self.table_norm * torch.linalg.vector_norm(table) / len(table) if self.table_norm else None
