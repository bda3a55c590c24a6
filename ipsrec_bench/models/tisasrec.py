"""TiSASRec: time interval aware self-attention for sequential recommendation (Li, Wang and McAuley, WSDM 2020).

SASRec whose attention knows the time between two items. With r_ij the interval between items i and j, in units of the
user's own shortest interval and at most `time_span`, and tables P and R for positions and intervals:

    scores_ij = q_i . (k_j + P^K_j + R^K_{r_ij}) / sqrt(width)
    output_i = sum_j softmax(scores_i)_j (v_j + P^V_j + R^V_{r_ij})

Queries come from the normalised input, keys and values from the input itself; a layer is

    x' = LN(x);  x'' = LN(x' + attention(x', x));  x <- x'' + W_2 relu(W_1 x'' + b_1) + b_2

Input is sqrt(d) * item. Scores are dot products with the item embeddings. The paper's loss is binary cross-entropy with
one negative for each target (`training.objective = "bce"`), plus the norms of the five tables.

Implemented as pmixer's port of the authors' code, with these differences:

- It pads on the left and does not mask the padding, which has time 0 and positions of its own (`preset = "released"`).
- There the user's shortest interval is that of the whole history, held-out interactions included. Here it is the
  shortest up to item i, so that no position sees what follows.
- A key's bias, to which softmax is invariant, is absent.
- A pair of items needs no vector of its own: queries are multiplied by the vectors of all intervals, and each pair
  looks up one product. Dropout of these vectors is therefore the same for all pairs of a batch.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import TiSASRecConfig
from ipsrec_bench.models.layers import causal_mask, init_xavier, mask_at, positions_at, split_heads
from ipsrec_bench.models.padding import padded_left, padded_right, positions_of

LAYER_NORM_EPS = 1e-8


def intervals_of(times: Tensor, *, own_unit: bool, span: int) -> Tensor:
    """Return int64 `[B, L, L]`: the interval between items i and j, rounded down, at most `span`.

    Args:
        times: float64 `[B, L]`.
        own_unit: whether the unit of row i is the shortest interval, above 0, between neighbours up to item i.
        span: the largest interval.
    """
    gaps = (times[:, :, None] - times[:, None, :]).abs()
    if own_unit:
        steps = F.pad(times.diff(dim=1), (1, 0))
        shortest = torch.where(steps > 0, steps, torch.inf).cummin(dim=1).values
        gaps = gaps / torch.where(shortest.isinf(), 1.0, shortest)[:, :, None]
    return gaps.clamp(max=span).long()


def _sum_by(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Return `[..., size]`: for each number below `size`, the sum of the `values [..., S]` whose `index` it is."""
    sums = values.new_zeros(*values.shape[:-1], size)
    if not values.is_cuda:
        return sums.scatter_add_(-1, index, values)
    # On CUDA, this way of adding has a fixed order, and repeats bit for bit.
    rows = torch.arange(values[..., 0].numel(), device=values.device).view(*values.shape[:-1], 1)
    sums.view(-1).index_put_(((rows * size + index).flatten(),), values.flatten(), accumulate=True)
    return sums


class _Pick(torch.autograd.Function):
    """`table.gather(-1, index)`, whose gradient is `_sum_by`."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.save_for_backward(index)
        ctx.size = table.shape[-1]
        return table.gather(-1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (index,) = ctx.saved_tensors
        return _sum_by(gradient, index, ctx.size), None


class _SumBy(torch.autograd.Function):
    """`_sum_by`, whose gradient is a gather."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, size: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(index)
        return _sum_by(values, index, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (index,) = ctx.saved_tensors
        return gradient.gather(-1, index), None, None


class IntervalAttention(nn.Module):
    """Attention whose keys and values include vectors of positions and of time intervals."""

    def __init__(self, config: TiSASRecConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        queries: Tensor,
        x: Tensor,
        positions: tuple[Tensor, Tensor],
        times: tuple[Tensor, Tensor],
        intervals: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Let `queries [B, R, d]` attend to `x [B, T, d]` where `mask` is true; return `[B, R, d]`.

        Args:
            queries: `[B, R, d]`.
            x: `[B, T, d]`.
            positions: the vectors of positions for keys and for values, `[B, T, d]`.
            times: the vectors of all intervals for keys and for values, `[time_span + 1, d]`.
            intervals: int64 `[B, R, T]`.
            mask: bool `[T, T]` where R is T, or `[B, 1, R, T]`.
        """
        q = split_heads(self.query(queries), self.n_heads)
        k = split_heads(self.key(x) + positions[0], self.n_heads)
        v = split_heads(self.value(x) + positions[1], self.n_heads)
        for_keys, for_values = (table.view(len(table), self.n_heads, -1).transpose(0, 1) for table in times)
        index = intervals[:, None].expand(-1, self.n_heads, -1, -1)
        by_interval: Tensor = _Pick.apply(q @ for_keys.transpose(1, 2), index)  # type: ignore[no-untyped-call]
        scores = (q @ k.transpose(-2, -1) + by_interval) / math.sqrt(q.shape[-1])
        weights = self.dropout(scores.masked_fill(~mask, -torch.inf).softmax(dim=-1))
        shares: Tensor = _SumBy.apply(weights, index, len(times[0]))  # type: ignore[no-untyped-call]
        out: Tensor = (weights @ v + shares @ for_values).transpose(1, 2).flatten(2)
        return out


class TiSASRecLayer(nn.Module):
    """Attention and a feed-forward network, normalised before each."""

    def __init__(self, config: TiSASRecConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        d = config.embedding_size
        self.attention_norm, self.inner_norm = (nn.LayerNorm(d, eps=LAYER_NORM_EPS) for _ in range(2))
        self.attention = IntervalAttention(config)
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        self.inner_dropout, self.outer_dropout = Dropout(config.dropout), Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        positions: tuple[Tensor, Tensor],
        times: tuple[Tensor, Tensor],
        intervals: Tensor,
        mask: Tensor,
        read: Tensor | None,
    ) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`."""
        queries = self.attention_norm(x if read is None else positions_at(x, read))
        if read is not None:
            intervals, mask = positions_at(intervals, read), mask_at(mask, read)
        x = self.inner_norm(queries + self.attention(queries, x, positions, times, intervals, mask))
        out: Tensor = x + self.outer_dropout(self.outer(F.relu(self.inner_dropout(self.inner(x)))))
        return out


class TiSASRec(SequentialModel):
    """A causal Transformer over the item sequence and its time intervals; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: TiSASRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.key_positions, self.value_positions = (nn.Embedding(sizes.max_length, d) for _ in range(2))
        self.key_times, self.value_times = (nn.Parameter(torch.empty(config.time_span + 1, d)) for _ in range(2))
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(TiSASRecLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.backward_positions, self.sees_padding = config.positions == "backward", config.sees_padding
        self.own_unit, self.time_span, self.table_norm = config.time_unit == "own", config.time_span, config.table_norm
        self.apply(init_xavier)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position.

        Raises:
            ValueError: the histories have no times.
        """
        given = histories
        if self.sees_padding:
            histories = padded_left(histories, self.key_positions.num_embeddings)
        if histories.times is None:
            raise ValueError("TiSASRec reads times, but the histories have none")
        items = histories.items
        x = self.dropout(math.sqrt(self.norm.normalized_shape[0]) * self.item_embedding(items))
        places = positions_of(histories, backward=self.backward_positions)
        positions = (
            self.dropout(self.key_positions(places).expand_as(x)),
            self.dropout(self.value_positions(places).expand_as(x)),
        )
        times = self.dropout(self.key_times), self.dropout(self.value_times)
        intervals = intervals_of(histories.times, own_unit=self.own_unit, span=self.time_span)
        mask = causal_mask(x.shape[1], x.device)
        for index, layer in enumerate(self.layers, start=1):
            newest_only = index == len(self.layers) and not every_position
            x = layer(x, positions, times, intervals, mask, histories.newest if newest_only else None)
            if self.sees_padding and not newest_only:
                x = x * (items > 0)[..., None]
        x = self.norm(x)
        if not every_position:
            return Views(x[:, 0])
        return Views(padded_right(x, given) if self.sees_padding else x)

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def penalty(self) -> Tensor | None:
        """Return the weighted sum of the norms of the five tables."""
        if not self.table_norm:
            return None
        tables = (
            self.item_embedding.weight,
            self.key_positions.weight,
            self.value_positions.weight,
            self.key_times,
            self.value_times,
        )
        return self.table_norm * torch.stack([table.norm() for table in tables]).sum()
