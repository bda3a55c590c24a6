"""IPSRec-C: the cross-stream model of Chen et al., SIGIR 2022, section 2.2.

Each side, items and providers, sums embedding, position and segment embedding (section 2.2, embedding layer), followed
by its own layer normalisation and dropout. A causal Transformer per side comes next, and then a co-attention fusion
module over both (eq. 7 to 11). The item side's output is softmax(Q_p K_i^T / sqrt(d / h)) V_i: its queries come from
the *providers*, its keys and values from the items. The provider side mirrors it. As in the released code, each side
then has a dense layer, dropout, the residual of the side that gives the values, layer normalisation and a feed-forward
network.

The released code has no self-attention (`encoder = "co-only"`): its `n_layers` layers are all co-attention blocks.

The item side's output at the last position is the user vector, the provider side's is the second view of the
contrastive loss (eq. 12). Scores use the item embeddings as the projection W_1 of eq. 5, or a separate table.
"""

from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import IPSRecCConfig
from ipsrec_bench.models.layers import AttentionBlock, SequenceEncoder, causal_mask, init_weights


class CoAttention(nn.Module):
    """Co-attention in both directions (eq. 7 and 8); both read the sequences as they were before the block."""

    def __init__(self, config: IPSRecCConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.item_answer = AttentionBlock(config)
        self.provider_answer = AttentionBlock(config)

    def forward(self, items: Tensor, providers: Tensor, mask: Tensor, read: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map both sides' sequences `[B, L, d]` to fused ones `[B, L, d]`, or to `[B, R, d]` at `read [B, R]`."""
        item_side = self.item_answer(queries=providers, keys=items, values=items, mask=mask, read=read)
        provider_side = self.provider_answer(queries=items, keys=providers, values=providers, mask=mask, read=read)
        return item_side, provider_side


class IPSRecC(SequentialModel):
    """Two causal streams joined by co-attention."""

    mixed_precision = True

    def __init__(self, config: IPSRecCConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        own, joint = (0, config.n_layers) if config.encoder == "co-only" else (config.n_layers, 1)
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.segment_embedding = nn.Embedding(2, d)  # 0: items, 1: providers
        self.item_encoder = SequenceEncoder(config, sizes.max_length, n_layers=own)
        self.provider_encoder = SequenceEncoder(config, sizes.max_length, n_layers=own)
        self.fusion = nn.ModuleList(CoAttention(config) for _ in range(joint))
        self.projection = None if config.tie_weights else nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the item view and the provider view, each `[B, d]`, or `[B, L, d]` at every position."""
        segment = self.segment_embedding.weight
        items = self.item_encoder(self.item_embedding(histories.items) + segment[0])
        providers = self.provider_encoder(self.provider_embedding(histories.providers) + segment[1])
        mask = causal_mask(histories.items.shape[1], histories.items.device)
        for index, fuse in enumerate(self.fusion, start=1):
            newest_only = index == len(self.fusion) and not every_position
            items, providers = fuse(items, providers, mask, histories.newest if newest_only else None)
        return Views(items, providers) if every_position else Views(items[:, 0], providers[:, 0])

    def item_vectors(self) -> Tensor:
        """Return W_1, `[items + 1, d]`."""
        return (self.projection or self.item_embedding).weight
