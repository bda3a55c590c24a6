"""SASRec-F: SASRec with the provider as a feature of the input.

The usual baseline for "adding the feature" in the literature (RecBole's SASRecF; "SASRec_F" in Xie et al., SIGIR
2022): at each position the provider embedding is fused with the item embedding before the Transformer, either

    x_t = e_t^i + e_t^p                  (`fusion = "sum"`), or
    x_t = W [e_t^i; e_t^p] + b           (`fusion = "concat"`, from 2d to d).

Everything else is `ipsrec_bench.models.sasrec`; scores use the item embeddings alone. RecBole has `concat`, and a class
for padding in its softmax (`padding_class = true`).
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import SASRecFConfig
from ipsrec_bench.models.layers import SequenceEncoder, init_weights


class SASRecF(SequentialModel):
    """A causal Transformer over items and providers fused at the input."""

    mixed_precision = True

    def __init__(self, config: SASRecFConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.projection = nn.Linear(2 * d, d) if config.fusion == "concat" else None
        self.encoder = SequenceEncoder(config, sizes.max_length)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        items, providers = self.item_embedding(histories.items), self.provider_embedding(histories.providers)
        project = self.projection
        x = items + providers if project is None else project(torch.cat([items, providers], dim=-1))
        if every_position:
            return Views(self.encoder(x))
        return Views(self.encoder(x, histories.newest)[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
