"""Building blocks that several models share.

Sequences are padded on the right and attention is causal, so a real position never sees a padded one and no
padding mask is needed; what stands at padded positions is never read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.models.configs import TransformerConfig

LAYER_NORM_EPS = 1e-12
INIT_STD = 0.02


def init_weights(module: nn.Module) -> None:
    """Draw weights as the released code does: normal(0, 0.02), zero biases, zero padding rows."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return bool `[length, length]`, true where query t may see key s: s <= t."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Map `[B, T, d]` to `[B, h, T, d / h]`."""
    return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)


class MultiHeadAttention(nn.Module):
    """softmax(Q K^T / sqrt(d / h)) V over h heads (paper, eq. 4), then a dense layer and dropout."""

    def __init__(self, config: TransformerConfig) -> None:
        """Take the widths, heads and dropouts from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.attention_dropout = config.attention_dropout
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.dense = nn.Linear(d, d)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Let `queries [B, T, d]` attend to `keys` and `values [B, S, d]` where `mask` is true; `[B, T, d]`.

        `mask` is bool `[T, S]`, or `[B, 1, T, S]` where it differs between sequences.
        """
        attended = F.scaled_dot_product_attention(
            split_heads(self.query(queries), self.n_heads),
            split_heads(self.key(keys), self.n_heads),
            split_heads(self.value(values), self.n_heads),
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        out: Tensor = self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        return out


class FeedForward(nn.Module):
    """d -> inner -> d with exact GELU, dropout, residual, layer normalisation after it."""

    def __init__(self, config: TransformerConfig) -> None:
        """Take the widths and the dropout from `config`."""
        super().__init__()
        d = config.embedding_size
        self.inner = nn.Linear(d, config.inner_size)
        self.outer = nn.Linear(config.inner_size, d)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., d]` to `[..., d]`."""
        out: Tensor = self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))
        return out


class AttentionBlock(nn.Module):
    """Attention and feed-forward, each with residual and layer normalisation after it (post-LN).

    The residual is that of the values' side; with queries, keys and values alike it is a Transformer layer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.attention = MultiHeadAttention(config)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Map three sequences `[B, T, d]` to `[B, T, d]`; `mask` says which keys each query sees."""
        out: Tensor = self.feed_forward(self.norm(values + self.attention(queries, keys, values, mask)))
        return out


class Transformer(nn.Module):
    """Transformer layers under one mask."""

    def __init__(self, config: TransformerConfig, n_layers: int) -> None:
        """Take the sizes from `config`; without layers, the input is the output."""
        super().__init__()
        self.layers = nn.ModuleList(AttentionBlock(config) for _ in range(n_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`."""
        for layer in self.layers:
            x = layer(x, x, x, mask)
        return x


class SequenceEncoder(nn.Module):
    """Position embedding, layer normalisation, dropout and a causal Transformer, as in SASRec."""

    def __init__(self, config: TransformerConfig, max_length: int, n_layers: int | None = None) -> None:
        """Take the sizes from `config`, and the number of layers where it is not given."""
        super().__init__()
        d = config.embedding_size
        self.position_embedding = nn.Embedding(max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.transformer = Transformer(config, config.n_layers if n_layers is None else n_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map embeddings `[B, L, d]` to `[B, L, d]`; position t sees the positions up to t."""
        length, device = x.shape[1], x.device
        x = x + self.position_embedding(torch.arange(length, device=device))
        out: Tensor = self.transformer(self.dropout(self.norm(x)), causal_mask(length, device))
        return out
