"""HSTU: actions speak louder than words (Zhai et al., ICML 2024), as a backbone for the next item.

Attention without softmax, with a bias for the distance between two positions and one for the time between an item and
the next request. With X the input of a layer, L the maximum length and t_{i+1} the time of the request after item i:

    U, V, Q, K = silu(LN(X) W)                            split into four, Q, K and V into heads
    A_ij = silu(Q_i . K_j + b_{i-j} + c_{bucket(t_{i+1} - t_j)}) / L    for j <= i, else 0
    Y = f(U * LN(A V)) + X
    bucket(t) = floor(ln(max(1, |t|)) / 0.301), at most `time_buckets`

Input is sqrt(d) * item + learned position. Scores are cosines over a temperature. The time of the request is known when
it is asked for; in training it is the time of the target, as in the public code.

Implemented as in RecTools 0.19, which counts the learned positions backward from the newest item (`preset =
"released"`). Times are in seconds.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import HSTUConfig
from ipsrec_bench.models.layers import causal_mask, init_xavier, mask_at, positions_at, split_heads
from ipsrec_bench.models.padding import positions_of, similar

LAYER_NORM_EPS = 1e-6
BUCKET_WIDTH = 0.301
"""Width of a bucket, in the natural logarithm of the time difference."""


def time_buckets(histories: Histories, last: int) -> Tensor:
    """Return int64 `[B, L, L]`: the bucket, at most `last`, of the time from item j to the request after item i.

    Raises:
        ValueError: the histories have no times.
    """
    times, asked = histories.times, histories.next_times
    if times is None or asked is None:
        raise ValueError("HSTU reads times, but the histories have none")
    following = torch.cat([times[:, 1:], asked[:, None]], dim=1).scatter(1, histories.newest, asked[:, None])
    # In float32 from here on, as in the public code, whose buckets these are.
    gaps = (following[:, :, None] - times[:, None, :]).abs().float()
    return (gaps.clamp(min=1).log() / BUCKET_WIDTH).long().clamp(max=last)


class STULayer(nn.Module):
    """Gated attention without softmax, with relative biases."""

    def __init__(self, config: HSTUConfig, max_length: int) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads, self.max_length = config.n_heads, max_length
        self.input_norm, self.attended_norm = (nn.LayerNorm(d, eps=LAYER_NORM_EPS) for _ in range(2))
        self.projections = nn.Linear(d, 4 * d, bias=False)
        """To gates, values, queries and keys."""
        self.output = nn.Linear(d, d)
        self.distance_bias = nn.Parameter(torch.empty(max_length)) if config.relative_positions else None
        """For each distance i - j."""
        self.time_bias = nn.Parameter(torch.empty(config.time_buckets + 1)) if config.time else None
        for bias in (self.distance_bias, self.time_bias):
            if bias is not None:
                nn.init.normal_(bias, std=0.02)
        self.attention_dropout, self.dropout = Dropout(config.attention_dropout), Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None, read: Tensor | None) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`.

        `bias [B, T, T]` is the one for times.
        """
        gates, values, queries, keys = F.silu(self.projections(self.input_norm(x))).chunk(4, dim=-1)
        distance = self._by_distance(x.shape[1])
        if bias is None:
            bias = distance
        elif distance is not None:
            bias = bias + distance
        if read is not None:
            gates, queries, x = positions_at(gates, read), positions_at(queries, read), positions_at(x, read)
            mask = mask_at(mask, read)
            if bias is not None:
                bias = bias[read] if bias.dim() == 2 else positions_at(bias, read)  # noqa: PLR2004 (a matrix)
        q, k, v = (split_heads(part, self.n_heads) for part in (queries, keys, values))
        scores = q @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + (bias if bias.dim() == 2 else bias[:, None])  # noqa: PLR2004
        weights = F.silu(scores) * (mask / self.max_length)
        attended = self.attention_dropout((weights @ v).transpose(1, 2).flatten(2))
        out: Tensor = self.output(self.dropout(gates * self.attended_norm(attended)))
        return out + x

    def _by_distance(self, length: int) -> Tensor | None:
        """Return the bias of every pair of positions, `[T, T]`; it has no meaning for later keys."""
        if self.distance_bias is None:
            return None
        steps = torch.arange(length, device=self.distance_bias.device)
        return F.embedding((steps[:, None] - steps).clamp(min=0), self.distance_bias[:, None])[..., 0]


class HSTU(SequentialModel):
    """Layers of gated attention without softmax over the item sequence and its times; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: HSTUConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(STULayer(config, sizes.max_length) for _ in range(config.n_layers))
        self.backward_positions, self.last_bucket = config.positions == "backward", config.time_buckets
        self.cosine, self.temperature = config.similarity == "cosine", config.temperature
        self.apply(init_xavier)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        states = self.states(histories, every_position=every_position)
        return Views(similar(states, cosine=self.cosine, temperature=self.temperature))

    def states(self, histories: Histories, *, every_position: bool) -> Tensor:
        """Return the outputs of the last layer, `[B, d]` or `[B, L, d]`."""
        items = self.item_embedding(histories.items)
        positions = positions_of(histories, backward=self.backward_positions)
        x: Tensor = self.dropout(math.sqrt(items.shape[2]) * items + self.position_embedding(positions))
        mask, biases = causal_mask(x.shape[1], x.device), self._by_time(histories)
        for index, (layer, bias) in enumerate(zip(self.layers, biases, strict=True), start=1):
            newest_only = index == len(self.layers) and not every_position
            x = layer(x, mask, bias, histories.newest if newest_only else None)
        return x if every_position else x[:, 0]

    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d]`: the item embeddings, of length 1 if scores are cosines."""
        table = self.item_embedding.weight
        return F.normalize(table, dim=1) if self.cosine else table

    def _by_time(self, histories: Histories) -> list[Tensor | None]:
        """Return the time bias of every layer, `[B, L, L]`, in one look-up."""
        tables = [bias for layer in self.layers if isinstance(bias := layer.time_bias, Tensor)]
        if not tables:
            return [None] * len(self.layers)
        biases = F.embedding(time_buckets(histories, self.last_bucket), torch.stack(tables, dim=1))
        return list(biases.unbind(dim=-1))
