"""eSASRec: enhancing Transformer-based recommendations in a modular fashion (Tikhonovich et al., RecSys 2025).

SASRec with LiGR layers (Borisyuk et al., "From Features to Transformers", 2025), which the paper trains with a sampled
softmax (`training.objective = "sampled-softmax"`). A layer normalises before attention and feed-forward, and gates what
it adds by its input; there is no normalisation at the end:

    x <- x + sigmoid(W_1 x + b_1) * attention(LN(x))
    x <- x + sigmoid(W_2 x + b_2) * V_2 (silu(V_1 LN(x)) * V_3 LN(x))

Input is item + learned position. Scores are dot products with the item embeddings.

Implemented as in RecTools 0.19, the authors' public code, which differs in two ways (`preset = "released"`): it counts
positions backward from the newest item, and it pads on the left without masking the padding. A short history then also
attends to zero items, whose number and positions depend on the maximum length.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import ESASRecConfig
from ipsrec_bench.models.layers import Attention, causal_mask, init_xavier, mask_at, positions_at, split_heads
from ipsrec_bench.models.padding import padded_left, padded_right, positions_of, similar


class InnerLayers(nn.Module):
    """Two linear layers with an activation, or three of which one gates another (SwiGLU)."""

    def __init__(self, config: ESASRecConfig) -> None:
        """Take the widths and the activation from `config`."""
        super().__init__()
        d, inner = config.embedding_size, config.inner_size
        self.activation = config.activation
        self.inner = nn.Linear(d, inner, bias=config.inner_bias)
        self.outer = nn.Linear(inner, d, bias=config.inner_bias)
        self.gate = nn.Linear(d, inner, bias=config.inner_bias) if config.activation == "swiglu" else None
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., d]` to `[..., d]`."""
        x1 = self.inner(x)
        if self.gate is not None:
            x1 = F.silu(x1) * self.gate(x)
        else:
            x1 = F.gelu(x1) if self.activation == "gelu" else F.relu(x1)
        out: Tensor = self.outer(self.dropout(x1))
        return out


class LiGRLayer(nn.Module):
    """Attention and feed-forward, each normalised before and gated by the layer's input."""

    def __init__(self, config: ESASRecConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.attention_norm, self.inner_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention_gate, self.inner_gate = nn.Linear(d, d), nn.Linear(d, d)
        self.projections = nn.Linear(d, 3 * d)
        """To queries, keys and values."""
        self.attention = Attention(config.dropout)
        self.dense = nn.Linear(d, d)
        self.inner_layers = InnerLayers(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, read: Tensor | None) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`."""
        queries, keys, values = self.projections(self.attention_norm(x)).chunk(3, dim=-1)
        if read is not None:
            queries, x, mask = positions_at(queries, read), positions_at(x, read), mask_at(mask, read)
        heads = (split_heads(part, self.n_heads) for part in (queries, keys, values))
        attended = self.attention(*heads, mask, width=x.shape[2] // self.n_heads)
        x = x + self.attention_gate(x).sigmoid() * self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        inner = self.dropout(self.inner_layers(self.inner_norm(x)))
        out: Tensor = x + self.inner_gate(x).sigmoid() * inner
        return out


class ESASRec(SequentialModel):
    """A causal Transformer of LiGR layers over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: ESASRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(LiGRLayer(config) for _ in range(config.n_layers))
        self.backward_positions, self.sees_padding = config.positions == "backward", config.sees_padding
        self.cosine, self.temperature = config.similarity == "cosine", config.temperature
        self.apply(init_xavier)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        states = self.states(histories, every_position=every_position)
        return Views(similar(states, cosine=self.cosine, temperature=self.temperature))

    def states(self, histories: Histories, *, every_position: bool) -> Tensor:
        """Return the outputs of the last layer, `[B, d]` or `[B, L, d]`."""
        given = histories
        if self.sees_padding:
            histories = padded_left(histories, self.position_embedding.num_embeddings)
        positions = positions_of(histories, backward=self.backward_positions)
        x: Tensor = self.dropout(self.item_embedding(histories.items) + self.position_embedding(positions))
        mask = causal_mask(x.shape[1], x.device)
        for index, layer in enumerate(self.layers, start=1):
            newest_only = index == len(self.layers) and not every_position
            x = layer(x, mask, histories.newest if newest_only else None)
        if not every_position:
            return x[:, 0]
        return padded_right(x, given) if self.sees_padding else x

    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d]`: the item embeddings, of length 1 if scores are cosines."""
        table = self.item_embedding.weight
        return F.normalize(table, dim=1) if self.cosine else table
