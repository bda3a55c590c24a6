"""LiveRec: recommendation on live-streaming platforms (Rappaz, McAuley and Aberer, RecSys 2021).

The paper is about dynamic availability and repeat consumption. A causal Transformer over the history gives a state h_t
for every position. Its layer normalises before attention, whose keys and values are the input itself (as in TiSASRec,
with an output map instead of positions and intervals):

    x' = LN(x);  x'' = LN(x' + attention(x', x));  x <- x'' + W_2 relu(W_1 x'' + b_1) + b_2

Input is sqrt(d) * item + position. A candidate c that is available at the time of the next item is the vector

    e_c = item_c + repeat_b,  b = 0 if the user has not consumed c so far, else the bucket of the time since then

The `top_k` candidates with the largest h_t . e_c attend to each other in layers of the same kind without a mask. Their
scores are h_t times the outputs (`repeat_buckets`, `candidate_scores`).

Training and ranking of the toolkit take a score as a dot product with an item vector, so they do not use those parts
(`context_layers`), not even under `protocol.candidates = "available"`. The model is trained like the others: the scores
of the whole catalogue are h_t times the item embeddings, with a softmax over all items in place of one sampled negative
(`logistic_loss`).

What the authors' code does differently (`preset = "released"`):

- It pads on the left and does not mask the padding, whose keys and values are the biases; positions count from the left
  edge of the padding.
- An empty place in the list of candidates is a vector of zeros, which takes part: it is chosen before every candidate
  whose product with the state is negative, and then attended to.
- In PyTorch 2, the line that looks for the last consumption of a candidate finds the first one.

Candidates that are not among the `top_k` have the score 0, there as here, which is above negative scores. A key's bias,
to which softmax is invariant, is absent.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import LiveRecConfig
from ipsrec_bench.models.layers import Attention, causal_mask, init_xavier, mask_at, positions_at, split_heads
from ipsrec_bench.models.padding import padded_left, padded_right, positions_of

LAYER_NORM_EPS = 1e-8
BOUNDS = (0, *range(77, 3144, 144))
"""Bounds between buckets of the time since a consumption, in steps of ten minutes: half a day, then every day."""


class LiveRecLayer(nn.Module):
    """Attention and a feed-forward network, normalised before each."""

    def __init__(self, d: int, n_heads: int, dropout: float) -> None:
        """Take the width, the number of heads and the dropout rate."""
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm, self.inner_norm = (nn.LayerNorm(d, eps=LAYER_NORM_EPS) for _ in range(2))
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.attention = Attention(dropout)
        self.dense = nn.Linear(d, d)
        self.inner, self.outer = nn.Linear(d, d), nn.Linear(d, d)
        self.inner_dropout, self.outer_dropout = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, read: Tensor | None = None) -> Tensor:
        """Map `[B, T, d]` to `[B, T, d]`, or to `[B, R, d]` at the positions `read [B, R]`.

        `mask` is bool `[T, T]` or `[B, 1, T, T]`, true where a query sees a key.
        """
        asking = x
        if read is not None:
            asking, mask = positions_at(x, read), mask_at(mask, read)
        asking = self.attention_norm(asking)
        q, k, v = (split_heads(part, self.n_heads) for part in (self.query(asking), self.key(x), self.value(x)))
        attended = self.attention(q, k, v, mask, width=q.shape[-1]).transpose(1, 2).flatten(2)
        x = self.inner_norm(asking + self.dense(attended))
        out: Tensor = x + self.outer_dropout(self.outer(F.relu(self.inner_dropout(self.inner(x)))))
        return out


class LiveRec(SequentialModel):
    """A causal Transformer over the item sequence, and attention among available candidates; it sees no providers."""

    mixed_precision = True

    def __init__(self, config: LiveRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(LiveRecLayer(d, config.n_heads, config.dropout) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.context_layers = nn.ModuleList(
            LiveRecLayer(d, config.context_heads, config.dropout) for _ in range(config.context_layers)
        )
        if config.context_layers:
            self.repeat_embedding = nn.Embedding(len(BOUNDS) + 2, d, padding_idx=0)
            self.context_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.backward_positions, self.sees_padding = config.positions == "backward", config.sees_padding
        self.top_k, self.since, self.time_unit = config.top_k, config.repeats_since, config.time_unit
        self.apply(init_xavier)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        given = histories
        if self.sees_padding:
            histories = padded_left(histories, self.position_embedding.num_embeddings)
        real = (histories.items > 0)[..., None]
        items = math.sqrt(self.norm.normalized_shape[0]) * self.item_embedding(histories.items)
        places = positions_of(histories, backward=self.backward_positions)
        x = self.dropout(items + self.position_embedding(places)) * real
        mask = causal_mask(x.shape[1], x.device)
        for index, layer in enumerate(self.layers, start=1):
            newest_only = index == len(self.layers) and not every_position
            x = layer(x, mask, histories.newest if newest_only else None)
            if self.sees_padding and not newest_only:
                x = x * real
        x = self.norm(x)
        if not every_position:
            return Views(x[:, 0])
        return Views(padded_right(x, given) if self.sees_padding else x)

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def repeat_buckets(self, histories: Histories, asked_at: Tensor, available: Tensor) -> Tensor:
        """Return int64 `[B, L, S]`: the bucket of the time since a candidate was consumed, 0 if it was not so far.

        Args:
            histories: with times.
            asked_at: float64 `[B, L]`, the time of the item that follows each position.
            available: int64 `[B, L, S]`, the candidates at that time; 0 is none.

        Raises:
            ValueError: the histories have no times.
        """
        if histories.times is None:
            raise ValueError("the time since a consumption needs histories with times")
        length = histories.items.shape[1]
        consumed_at = torch.full(available.shape, torch.nan, dtype=torch.float64, device=available.device)
        for position in range(length) if self.since == "last" else reversed(range(length)):
            own = histories.items[:, position, None, None] == available[:, position:]
            then = histories.times[:, position, None, None]
            consumed_at[:, position:] = torch.where(own, then, consumed_at[:, position:])
        # The result of a division is rounded, so the bounds are multiplied instead.
        bounds = self.time_unit * torch.tensor(BOUNDS, dtype=torch.float64, device=available.device)
        bucket = torch.bucketize(asked_at[..., None] - consumed_at, bounds) + 1
        counts = ~consumed_at.isnan() & (available > 0) & (histories.items > 0)[..., None]
        return torch.where(counts, bucket, 0)

    def candidate_scores(self, states: Tensor, available: Tensor, buckets: Tensor) -> Tensor:
        """Return the scores `[N, S]` of candidates, which are 0 outside the `top_k`.

        Args:
            states: `[N, d]`.
            available: int64 `[N, S]`, the candidates of each state; 0 is none.
            buckets: int64 `[N, S]`, as `repeat_buckets` returns them.

        Raises:
            ValueError: the model has no layers for candidates.
        """
        if not self.context_layers:
            raise ValueError("scores of available candidates need context_layers above 0")
        candidates = self.item_embedding(available) + self.repeat_embedding(buckets)
        there = (available > 0) | self.sees_padding
        relevance = (candidates @ states[:, :, None])[..., 0].masked_fill(~there, -torch.inf)
        chosen = relevance.topk(min(self.top_k, available.shape[1]), dim=1).indices
        x, seen = positions_at(candidates, chosen), positions_at(there, chosen)
        seen = seen | ~seen.any(dim=1, keepdim=True)  # a softmax needs something
        mask = seen[:, None, None, :].expand(-1, 1, seen.shape[1], -1)
        for layer in self.context_layers:
            x = layer(x, mask)
        scores = (self.context_norm(x) @ states[:, :, None])[..., 0]
        return torch.zeros_like(relevance).scatter(1, chosen, scores).masked_fill(available == 0, 0.0)


def logistic_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the sum of the binary cross-entropies of positives and negatives, given their scores, as released."""
    return F.softplus(-positive).sum() + F.softplus(negative).sum()
