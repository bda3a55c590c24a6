"""DIFF: dual side-information filtering and fusion (Kim, Choi, Lee, Baek and Lee, SIGIR 2025).

Two streams run side by side: items with the attention of DIF-SR (intermediate fusion), and vectors fused at the input
from item, provider and position (early fusion). Each layer first filters its inputs over the positions:

    low    = the first c // 2 + 1 frequencies of the Fourier transform of X along the history
    F(X)   = norm(X + dropout(low + beta^2 (X - low)))
    x'     = FFN(norm(F_1(x) + DecoupledAttention(F_1(x), F_2(provider), position)))    item stream
    y'     = FFN(norm(F_0(y) + Attention(F_0(y))))                                      fused stream

Filters F_0, F_1, F_2 and their beta belong to the layer; F_2 filters the raw provider embeddings in every layer. Both
streams share the feed-forward network. y begins as the `fusion` of the normalised item, the provider and the position:
their sum, `concat` through one linear map, or `gate`, a sum with weights from each vector. The user vector is
alpha x + (1 - alpha) y at the last position, and scores are dot products with the item embeddings.

Besides the next item, items are aligned with their providers (`ipsrec_bench.training.tasks.alignment`).

The filter mixes all positions of a history, so that a state depends on later positions although attention is causal:
the model is trained on prefixes. The low part is a projection on sines and cosines over the real positions of each
history, as in the paper; two products with a basis of c // 2 + 1 frequencies, without a transform.

The authors' code (`preset = "released"`) differs as follows:

- The transform is over all columns up to the maximum length, padding included (`padded_filter`).
- `concat` and `gate` fuse raw scores and mask only the result, so that the rows hold scores of later and of padded keys
  (`raw_scores`). Here scores that a query may not see are set to 0 first.
- Padding takes part in the alignment (`padded_alignment`), and the unknown provider counts as one (`unknown_class`).
- The provider table is no parameter of the model and keeps its first values (`frozen_providers`). Here it is trained.
- Padding is a class of the softmax (`padding_class`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import HISTORY_ITEMS, HISTORY_PROVIDERS, SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import DIFFConfig
from ipsrec_bench.models.dif_sr import DecoupledAttention, GateFusion, score_fusion
from ipsrec_bench.models.layers import (
    LAYER_NORM_EPS,
    FeedForward,
    MultiHeadAttention,
    causal_mask,
    init_weights,
    mask_at,
    positions_at,
)

SOURCES = 3
"""Items, providers and positions."""


def low_frequencies(lengths: Tensor, width: int, count: int) -> Tensor:
    """Return orthonormal vectors that span the first `count` frequencies of sequences, `[B, width, 2 count]`.

    They are cosines and sines over the first `lengths [B]` positions, and 0 at the others. The product of the matrix
    and its transpose is the low-pass filter of a real Fourier transform. Frequencies above the highest of a sequence,
    half its length, are 0.
    """
    step, frequency = torch.arange(width, device=lengths.device)[:, None], torch.arange(count, device=lengths.device)
    n = lengths[:, None, None]
    angle = step * frequency % n * (2 * math.pi / n)  # the remainder is exact
    # Frequency 0, and half the length, have no sine, and a cosine of twice the squared norm.
    single = (frequency == 0) | (2 * frequency == n)
    size = torch.where(single, 1.0, 2.0).div(n).sqrt().masked_fill(2 * frequency > n, 0.0)
    basis = torch.cat([angle.cos() * size, angle.sin() * size.masked_fill(single, 0.0)], dim=2)
    return basis.masked_fill(step >= n, 0.0)


class FrequencyFilter(nn.Module):
    """A weighted sum of the low frequencies and the rest, with residual and layer normalisation."""

    def __init__(self, config: DIFFConfig) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        self.beta = nn.Parameter(torch.randn(1, 1, 1))
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor, basis: Tensor | None) -> Tensor:
        """Map `[B, L, d]` to `[B, L, d]`, given the `basis [B, L, k]` of the low frequencies; None if all are low."""
        low = x if basis is None else basis @ (basis.transpose(1, 2) @ x)
        out: Tensor = self.norm(x + self.dropout(low + self.beta**2 * (x - low)))
        return out


class DIFFLayer(nn.Module):
    """One layer of both streams."""

    def __init__(self, config: DIFFConfig, max_length: int) -> None:
        """Take the sizes from `config`."""
        super().__init__()
        d = config.embedding_size
        self.raw = config.raw_scores
        self.fused_filter, self.item_filter = FrequencyFilter(config), FrequencyFilter(config)
        self.provider_filter = FrequencyFilter(config)
        self.item_attention = DecoupledAttention(
            config, (d,) * SOURCES, score_fusion(config.fusion, max_length, SOURCES)
        )
        self.fused_attention = MultiHeadAttention(config)
        self.item_norm, self.fused_norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS), nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        streams: tuple[Tensor, Tensor],
        providers: Tensor,
        positions: Tensor,
        basis: Tensor | None,
        mask: Tensor,
        read: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Map the item stream and the fused stream `[B, L, d]` to the same, or to `[B, R, d]` at `read [B, R]`."""
        items, fused = self.item_filter(streams[0], basis), self.fused_filter(streams[1], basis)
        sources = [items, self.provider_filter(providers, basis), positions]
        from_items = self.item_attention(sources, mask, read, raw=self.raw)
        asking, asked_mask = fused, mask
        if read is not None:
            items, asking, asked_mask = positions_at(items, read), positions_at(fused, read), mask_at(mask, read)
        from_fused = self.fused_attention(asking, fused, fused, asked_mask)
        return (
            self.feed_forward(self.item_norm(items + from_items)),
            self.feed_forward(self.fused_norm(asking + from_fused)),
        )


class DIFF(SequentialModel):
    """Two Transformers over filtered sequences: of items whose attention sees providers, and of fused vectors."""

    mixed_precision = True

    def __init__(self, config: DIFFConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.alpha, self.frequencies, self.fusion = config.alpha, config.c // 2 + 1, config.fusion
        self.max_length, self.padded_filter = sizes.max_length, config.padded_filter
        self.widens = config.padded_filter or config.padded_alignment or (config.raw_scores and config.fusion != "sum")
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        if config.fusion == "concat":
            self.input_fusion: nn.Module = nn.Linear(SOURCES * d, d)
        elif config.fusion == "gate":
            self.input_fusion = GateFusion(d)
        self.layers = nn.ModuleList(DIFFLayer(config, sizes.max_length) for _ in range(config.n_layers))
        self.apply(init_weights)
        if config.frozen_providers:
            self.provider_embedding.weight.requires_grad_(False)
            nn.init.normal_(self.provider_embedding.weight[1:])

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, the vectors of both streams, and the embeddings of the history.

        Raises:
            NotImplementedError: `every_position` is set; states depend on later positions.
        """
        if every_position:
            raise NotImplementedError
        item_ids, provider_ids, lengths = histories.items, histories.providers, histories.lengths
        if self.widens:
            missing = (0, self.max_length - item_ids.shape[1])
            item_ids, provider_ids = F.pad(item_ids, missing), F.pad(provider_ids, missing)
        length, device = item_ids.shape[1], item_ids.device
        items, providers = self.item_embedding(item_ids), self.provider_embedding(provider_ids)
        steps = torch.arange(length, device=device)
        positions = self.position_embedding(steps).expand_as(items)
        mask = causal_mask(length, device)
        if self.widens:  # states of padding are read, so they must not see padding
            mask = mask & (steps <= histories.newest)[:, None, None]
        basis = self._basis(lengths, length)
        x = self.dropout(self.norm(items))
        streams = x, self._fused([x, providers, positions])
        for index, layer in enumerate(self.layers, start=1):
            read = histories.newest if index == len(self.layers) else None
            streams = layer(streams, providers, positions, basis, mask, read)
        separate, fused = streams[0][:, 0], streams[1][:, 0]
        user = self.alpha * separate + (1 - self.alpha) * fused
        return Views(
            user, extra={"separate": separate, "fused": fused, HISTORY_ITEMS: items, HISTORY_PROVIDERS: providers}
        )

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def _basis(self, lengths: Tensor, width: int) -> Tensor | None:
        """Return the basis of the low frequencies, `[B, width, k]`, or `[1, width, k]` over all columns."""
        every = width // 2 + 1
        if not self.padded_filter:
            return low_frequencies(lengths, width, min(self.frequencies, every))
        if self.frequencies >= every:  # a product would leave noise in rows of zeros, which the norm would enlarge
            return None
        return low_frequencies(torch.full_like(lengths[:1], width), width, self.frequencies)

    def _fused(self, sources: list[Tensor]) -> Tensor:
        """Return one vector for each position, `[B, L, d]`."""
        match self.fusion:
            case "concat":
                fused: Tensor = self.input_fusion(torch.cat(sources, dim=-1))
            case "gate":
                fused = self.input_fusion(torch.stack(sources, dim=2))
            case _:
                fused = sources[0] + sources[1] + sources[2]
        return fused
