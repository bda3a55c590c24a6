"""DIF-SR: decoupled side information fusion (Xie, Zhou and Kim, SIGIR 2022).

Items, providers and positions each have separate attention scores, from separate embeddings and projections. The
scores are fused (by sum), not the embeddings, and only item states are attended to:

    att^x = (E^x W_Q^x) (E^x W_K^x)^T  for x = item, provider, position
    DIF   = softmax((att^item + att^provider + att^position) / sqrt(d / h)) E^item W_V

Provider and position embeddings enter every layer unchanged. Item states pass from layer to layer, with residual, layer
normalisation and feed-forward as in a Transformer layer. Scores are dot products with the item embeddings.

An auxiliary loss (the paper's auxiliary attribute predictor) predicts the provider of the next item from the user
vector: binary cross-entropy on sigmoid(W u + b), averaged over all known providers, with weight `attribute_weight`.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import ProviderPredictor, SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import ProviderPredictionConfig, TransformerConfig
from ipsrec_bench.models.layers import (
    LAYER_NORM_EPS,
    Attention,
    FeedForward,
    causal_mask,
    init_weights,
    mask_at,
    positions_at,
    split_heads,
)


class DecoupledAttention(nn.Module):
    """Attention with scores summed over several sources, followed by a dense layer and dropout."""

    def __init__(self, config: TransformerConfig, sources: int) -> None:
        """Take widths, heads and dropouts from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.query = nn.ModuleList(nn.Linear(d, d) for _ in range(sources))
        self.key = nn.ModuleList(nn.Linear(d, d) for _ in range(sources))
        self.value = nn.Linear(d, d)
        self.dense = nn.Linear(d, d)
        self.attention = Attention(config.attention_dropout)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, sources: list[Tensor], mask: Tensor, read: Tensor | None) -> Tensor:
        """Map sources `[B, L, d]`, the item states first, to `[B, L, d]`, or to `[B, R, d]` at `read [B, R]`."""
        asking = sources
        if read is not None:
            asking, mask = [positions_at(source, read) for source in sources], mask_at(mask, read)
        attended = self.attention(
            self._side_by_side(self.query, asking),
            self._side_by_side(self.key, sources),
            split_heads(self.value(sources[0]), self.n_heads),
            mask,
            width=sources[0].shape[2] // self.n_heads,
        )
        out: Tensor = self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        return out

    def _side_by_side(self, projections: nn.ModuleList, sources: list[Tensor]) -> Tensor:
        """Return `[B, h, L, sources * d / h]`: the dot product of concatenated vectors is the sum of the scores."""
        heads = [split_heads(p(x), self.n_heads) for p, x in zip(projections, sources, strict=True)]
        return torch.cat(heads, dim=-1)


class DIFLayer(nn.Module):
    """Decoupled attention and a feed-forward network, each followed by residual and layer normalisation."""

    def __init__(self, config: TransformerConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.attention = DecoupledAttention(config, sources=3)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(self, items: Tensor, providers: Tensor, positions: Tensor, mask: Tensor, read: Tensor | None) -> Tensor:
        """Map item states to item states, given embeddings of providers and positions, `[B, L, d]` each.

        With `read [B, R]`, only the states at these positions are returned, `[B, R, d]`.
        """
        attended = self.attention([items, providers, positions], mask, read)
        residual = items if read is None else positions_at(items, read)
        out: Tensor = self.feed_forward(self.norm(residual + attended))
        return out


class DIFSR(SequentialModel, ProviderPredictor):
    """A causal Transformer over items; its attention scores include those of providers and positions."""

    mixed_precision = True

    def __init__(self, config: ProviderPredictionConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(DIFLayer(config) for _ in range(config.n_layers))
        self.provider_output = nn.Linear(d, sizes.providers + 1)
        self.apply(init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        length, device = histories.items.shape[1], histories.items.device
        x = self.dropout(self.norm(self.item_embedding(histories.items)))
        providers = self.provider_embedding(histories.providers)
        positions = self.position_embedding(torch.arange(length, device=device)).expand_as(x)
        mask = causal_mask(length, device)
        for index, layer in enumerate(self.layers, start=1):
            newest_only = index == len(self.layers) and not every_position
            x = layer(x, providers, positions, mask, histories.newest if newest_only else None)
        return Views(x if every_position else x[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def provider_logits(self, user: Tensor) -> Tensor:
        """Map user vectors `[N, d]` to a logit per provider, `[N, providers + 1]`."""
        out: Tensor = self.provider_output(user)
        return out
