"""Building blocks that several models share.

Sequences are padded on the right. Under causal attention a real position never sees a padded one, so no padding mask is
needed; attention from both sides needs one (`real_positions`). States at padded positions are never read. If only some
positions are read (`read`, such as a history's newest), the last layer computes only those.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.configs import TransformerConfig

LAYER_NORM_EPS = 1e-12
INIT_STD = 0.02


def init_weights(module: nn.Module) -> None:
    """Initialise weights as the released code does: normal(0, 0.02), zero biases, zero padding rows."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def init_xavier(module: nn.Module) -> None:
    """Draw all matrices from Xavier's normal distribution; padding rows are zero, and vectors stay as they are."""
    for weight in module.parameters(recurse=False):
        if weight.dim() > 1:
            nn.init.xavier_normal_(weight)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx].detach())


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return bool `[length, length]`, true where query t may see key s: s <= t."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def real_positions(histories: Histories) -> Tensor:
    """Return bool `[B, 1, 1, L]`, true where a history has an interaction: every query may see those."""
    return (torch.arange(histories.items.shape[1], device=histories.items.device) < histories.lengths[:, None])[
        :, None, None
    ]


def embed_with_mask(table: nn.Embedding, mask: Tensor, items: Tensor) -> Tensor:
    """Return the rows of `table [V + 1, d]` for `items`, and the vector `mask [d]` for the mask token V + 1."""
    hidden = items == table.num_embeddings
    return torch.where(hidden[..., None], mask, table(items.masked_fill(hidden, 0)))


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Map `[B, T, d]` to `[B, h, T, d / h]`."""
    return x.view(*x.shape[:2], n_heads, x.shape[2] // n_heads).transpose(1, 2)


def positions_at(x: Tensor, read: Tensor) -> Tensor:
    """Return the positions `read [B, R]` of `x [B, T, ...]`, as `[B, R, ...]`."""
    return x[torch.arange(len(x), device=x.device)[:, None], read]


def mask_at(mask: Tensor, read: Tensor) -> Tensor:
    """Return the rows of `mask`, `[T, S]` or `[B, 1, T, S]`, for the queries at `read [B, R]`, as `[B, 1, R, S]`.

    A mask `[B, 1, 1, S]` is the same for every query of a sequence, and stays as it is.
    """
    if mask.shape[-2] == 1 and mask.dim() > 2:  # noqa: PLR2004 (not a matrix)
        return mask
    return (mask[read] if mask.dim() == 2 else positions_at(mask[:, 0], read))[:, None]  # noqa: PLR2004 (a matrix)


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(width)) V, with dropout on the attention weights."""

    def __init__(self, dropout: float) -> None:
        """Take the dropout rate."""
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, width: int) -> Tensor:
        """Let `queries [B, h, T, e]` attend to `keys [B, h, S, e]` and `values` where `mask` is true."""
        scale, rate = 1.0 / math.sqrt(width), self.dropout.rate if self.training else 0.0
        if not rate or queries.device.type != "cpu":
            return F.scaled_dot_product_attention(queries, keys, values, mask, rate, scale=scale)
        # PyTorch does the same on a CPU if there is dropout, but its masks would cost more than everything else.
        hidden = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        weights = ((queries * scale) @ keys.transpose(-2, -1) + hidden).softmax(dim=-1)
        attended: Tensor = self.dropout(weights) @ values
        return attended

    def by_scores(self, scores: Tensor, values: Tensor, mask: Tensor, width: int) -> Tensor:
        """Return the same, given `scores [B, h, T, S]` in place of the products of queries and keys."""
        weights = (scores / math.sqrt(width)).masked_fill(~mask, -torch.inf).softmax(dim=-1)
        attended: Tensor = self.dropout(weights) @ values
        return attended


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d / h)) V over h heads (paper, eq. 4), then a dense layer and dropout."""

    def __init__(self, config: TransformerConfig) -> None:
        """Take the widths, heads and dropouts from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.dense = nn.Linear(d, d)
        self.attention = Attention(config.attention_dropout)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Let `queries [B, T, d]` attend to `keys` and `values [B, S, d]` where `mask` is true; `[B, T, d]`.

        `mask` is bool `[T, S]`, or `[B, 1, T, S]` where it differs between sequences, with T = 1 where it is the same
        for every query.
        """
        if queries is keys is values:  # one product instead of three, or of two
            q, k, v = _side_by_side(queries, self.query, self.key, self.value)
        elif keys is values:
            q, (k, v) = self.query(queries), _side_by_side(keys, self.key, self.value)
        else:
            q, k, v = self.query(queries), self.key(keys), self.value(values)
        q, k, v = (split_heads(x, self.n_heads) for x in (q, k, v))
        attended = self.attention(q, k, v, mask, width=queries.shape[2] // self.n_heads)
        out: Tensor = self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        return out


def _side_by_side(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Apply `layers`, all of the same width, to `x` in one product; return the output of each."""
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias).chunk(len(layers), dim=-1)


class FeedForward(nn.Module):
    """d -> inner -> d with exact GELU, followed by dropout, residual and layer normalisation."""

    def __init__(self, config: TransformerConfig) -> None:
        """Take the widths and the dropout from `config`."""
        super().__init__()
        d = config.embedding_size
        self.inner = nn.Linear(d, config.inner_size)
        self.outer = nn.Linear(config.inner_size, d)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., d]` to `[..., d]`."""
        out: Tensor = self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))
        return out


class AttentionBlock(nn.Module):
    """Attention and feed-forward, each followed by residual and layer normalisation (post-LN).

    The residual comes from the values. If queries, keys and values are the same, it is a Transformer layer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.attention = MultiHeadAttention(config)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, read: Tensor | None = None
    ) -> Tensor:
        """Map three sequences `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`.

        `mask` says which keys each query sees, as in `MultiHeadAttention`.
        """
        residual = values
        if read is not None:
            queries, residual, mask = positions_at(queries, read), positions_at(values, read), mask_at(mask, read)
        out: Tensor = self.feed_forward(self.norm(residual + self.attention(queries, keys, values, mask)))
        return out


class Transformer(nn.Module):
    """Transformer layers under one mask."""

    def __init__(self, config: TransformerConfig, n_layers: int) -> None:
        """Take the sizes from `config`; without layers, the output is the input."""
        super().__init__()
        self.layers = nn.ModuleList(AttentionBlock(config) for _ in range(n_layers))

    def forward(self, x: Tensor, mask: Tensor, read: Tensor | None = None) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`."""
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, x, x, mask, read if index == len(self.layers) else None)
        return x if self.layers or read is None else positions_at(x, read)


class SequenceEncoder(nn.Module):
    """Position embedding, layer normalisation, dropout and a Transformer, which is causal as in SASRec by default."""

    def __init__(self, config: TransformerConfig, max_length: int, n_layers: int | None = None) -> None:
        """Take the sizes from `config`; `n_layers` overrides its number of layers."""
        super().__init__()
        d = config.embedding_size
        self.position_embedding = nn.Embedding(max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.transformer = Transformer(config, config.n_layers if n_layers is None else n_layers)

    def forward(
        self, x: Tensor, read: Tensor | None = None, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Map embeddings `[B, L, d]` to `[B, L, d]`, or to `[B, R, d]` at the positions `read [B, R]`.

        Position t sees the positions up to t, or those where `mask` is true, as in `MultiHeadAttention`. `positions`,
        `[L]` or `[B, L]`, are the rows of the position embedding: by default 0 to L - 1.
        """
        length, device = x.shape[1], x.device
        x = x + self.position_embedding(torch.arange(length, device=device) if positions is None else positions)
        mask = causal_mask(length, device) if mask is None else mask
        out: Tensor = self.transformer(self.dropout(self.norm(x)), mask, read)
        return out
