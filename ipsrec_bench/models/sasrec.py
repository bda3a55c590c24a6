"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Implemented as in RecBole, the version that the IPSRec paper compares with: item + position embedding, layer
normalisation, dropout; a causal post-LN Transformer; scores are dot products with the item embeddings themselves. The
user vector is the output at the last position.
"""

from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import TransformerConfig
from ipsrec_bench.models.layers import SequenceEncoder, init_weights


class SASRec(SequentialModel):
    """A causal Transformer over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: TransformerConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        self.item_embedding = nn.Embedding(sizes.items + 1, config.embedding_size, padding_idx=0)
        self.encoder = SequenceEncoder(config, sizes.max_length)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        items = self.embed(histories.items)
        if every_position:
            return Views(self.encoder(items))
        return Views(self.encoder(items, histories.newest)[:, 0])

    def embed(self, items: Tensor) -> Tensor:
        """Map item ids `[B, L]` to vectors `[B, L, d]`."""
        embedded: Tensor = self.item_embedding(items)
        return embedded

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
