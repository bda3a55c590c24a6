"""DIF-SR: decoupled side information fusion (Xie, Zhou and Kim, SIGIR 2022).

Items, providers and positions each have separate attention scores, from separate embeddings and projections. The
scores are fused, not the embeddings, and only item states are attended to:

    att^x = (E^x W_Q^x) (E^x W_K^x)^T  for x = item, provider, position
    DIF   = softmax(F(att^item, att^provider, att^position) / sqrt(d / h)) E^item W_V

Provider and position embeddings enter every layer unchanged. Item states pass from layer to layer, with residual, layer
normalisation and feed-forward as in a Transformer layer. Scores are dot products with the item embeddings. Fusions F,
applied to every query's row of scores over the L keys, for each head:

- `sum`: the sum of the rows;
- `concat`: W [provider row; item row; position row] + b, from 3L to L;
- `gate`: sum_x a_x row_x, where the a_x are the softmax over x of w^T ReLU(W row_x + b), from L to L to 1.

For `concat` and `gate`, scores that a query may not see, those of later keys, are set to 0 before they are fused. So
the models are causal, and do not depend on padding.

An auxiliary loss (the paper's auxiliary attribute predictor) predicts the provider of the next item from the user
vector: binary cross-entropy on sigmoid(W u + b), averaged over all known providers, with weight `attribute_weight`.

The released code (`preset = "released"`) differs in four ways. `concat` and `gate` fuse raw scores and mask only the
result, so that the rows hold scores of later and of padded keys (`raw_scores`). Its provider table is no parameter and
keeps its first values (`frozen_providers`). The unknown provider is a class of the auxiliary loss (`unknown_class`),
and the padding item one of the softmax (`padding_class`).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import ProviderPredictor, SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import DIFSRConfig, TransformerConfig
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


class ConcatFusion(nn.Module):
    """A linear map of a query's rows of scores side by side."""

    def __init__(self, length: int, sources: int) -> None:
        """Take the maximum length L of a history and the number of sources."""
        super().__init__()
        self.length, self.sources = length, sources
        self.output = nn.Linear(sources * length, length)

    def forward(self, rows: Tensor) -> Tensor:
        """Map `rows [B, h, T, sources, S]` to `[B, h, T, S]`. Of S < L keys, the missing ones have scores of 0."""
        keys = rows.shape[-1]
        weight = self.output.weight.view(self.length, self.sources, self.length)[:keys, :, :keys]
        return F.linear(rows.flatten(-2), weight.flatten(1), self.output.bias[:keys])


class GateFusion(nn.Module):
    """A weighted sum of a query's rows of scores; each row determines its own weight."""

    def __init__(self, length: int) -> None:
        """Take the maximum length L of a history."""
        super().__init__()
        self.hidden = nn.Linear(length, length)
        self.output = nn.Linear(length, 1, bias=False)  # a bias would move all rows alike, which softmax ignores

    def forward(self, rows: Tensor) -> Tensor:
        """Map `rows [B, h, T, sources, S]` to `[B, h, T, S]`. Of S < L keys, the missing ones have scores of 0."""
        hidden = F.relu(F.linear(rows, self.hidden.weight[:, : rows.shape[-1]], self.hidden.bias))
        gate: Tensor = self.output(hidden).softmax(dim=-2)  # [B, h, T, sources, 1]
        return (gate * rows).sum(dim=-2)


def score_fusion(fusion: str, length: int, sources: int) -> nn.Module | None:
    """Return the module that fuses the rows of `sources` over up to `length` keys; None for their sum."""
    match fusion:
        case "concat":
            return ConcatFusion(length, sources)
        case "gate":
            return GateFusion(length)
        case _:
            return None


class DecoupledAttention(nn.Module):
    """Attention with scores fused over several sources, followed by a dense layer and dropout."""

    def __init__(self, config: TransformerConfig, widths: Sequence[int], fusion: nn.Module | None = None) -> None:
        """Take heads and dropouts from `config`.

        Args:
            config: settings of the Transformer.
            widths: the width of each source; the item states come first.
            fusion: maps the rows of scores of all sources to one; None for their sum.
        """
        super().__init__()
        d = config.embedding_size
        self.n_heads = config.n_heads
        self.query = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.key = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.value = nn.Linear(d, d)
        self.dense = nn.Linear(d, d)
        self.fusion = fusion
        self.attention = Attention(config.attention_dropout)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, sources: list[Tensor], mask: Tensor, read: Tensor | None, *, raw: bool = False) -> Tensor:
        """Map sources `[B, L, width]`, the item states first, to `[B, L, d]`, or to `[B, R, d]` at `read [B, R]`.

        With `raw`, scores are fused before they are masked.
        """
        asking = sources
        if read is not None:
            asking, mask = [positions_at(source, read) for source in sources], mask_at(mask, read)
        queries, keys = self._heads(self.query, asking), self._heads(self.key, sources)
        values = split_heads(self.value(sources[0]), self.n_heads)
        width = values.shape[-1]
        if self.fusion is None:
            # The dot product of concatenated vectors is the sum of the scores.
            attended = self.attention(torch.cat(queries, dim=-1), torch.cat(keys, dim=-1), values, mask, width)
        else:
            item, *others = (q @ k.transpose(-2, -1) for q, k in zip(queries, keys, strict=True))
            rows = torch.stack([others[0], item, *others[1:]], dim=-2)  # [B, h, T, sources, L]
            if not raw:
                rows = rows.masked_fill(~mask[..., None, :], 0.0)
            attended = self.attention.by_scores(self.fusion(rows), values, mask, width)
        out: Tensor = self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        return out

    def _heads(self, projections: nn.ModuleList, sources: list[Tensor]) -> list[Tensor]:
        """Return the projection of each source, `[B, h, L, width / h]`."""
        return [split_heads(p(x), self.n_heads) for p, x in zip(projections, sources, strict=True)]


class DIFLayer(nn.Module):
    """Decoupled attention and a feed-forward network, each followed by residual and layer normalisation."""

    def __init__(self, config: TransformerConfig, widths: Sequence[int], fusion: nn.Module | None = None) -> None:
        """Take the sizes from `config`, and the arguments of `DecoupledAttention`."""
        super().__init__()
        self.attention = DecoupledAttention(config, widths, fusion)
        self.norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config)

    def forward(self, sources: list[Tensor], mask: Tensor, read: Tensor | None, *, raw: bool = False) -> Tensor:
        """Map item states, the first of `sources`, to item states, `[B, L, d]`.

        With `read [B, R]`, only the states at these positions are returned, `[B, R, d]`.
        """
        attended = self.attention(sources, mask, read, raw=raw)
        residual = sources[0] if read is None else positions_at(sources[0], read)
        out: Tensor = self.feed_forward(self.norm(residual + attended))
        return out


class DIFSR(SequentialModel, ProviderPredictor):
    """A causal Transformer over items; its attention scores include those of providers and positions."""

    mixed_precision = True

    def __init__(self, config: DIFSRConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d, length = config.embedding_size, sizes.max_length
        provider_size = config.attribute_size or d
        self.length, self.raw = length, config.raw_scores and config.fusion != "sum"
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, provider_size, padding_idx=0)
        self.position_embedding = nn.Embedding(length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        widths = (d, provider_size, d)
        self.layers = nn.ModuleList(
            DIFLayer(config, widths, score_fusion(config.fusion, length, len(widths))) for _ in range(config.n_layers)
        )
        self.provider_output = nn.Linear(d, sizes.providers + 1)
        self.apply(init_weights)
        if config.frozen_providers:
            self.provider_embedding.weight.requires_grad_(False)
            nn.init.normal_(self.provider_embedding.weight[1:])

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position.

        Raises:
            NotImplementedError: `every_position` is set, and scores of later keys are fused.
        """
        items, providers = histories.items, histories.providers
        if self.raw:
            if every_position:
                raise NotImplementedError
            missing = (0, self.length - items.shape[1])
            items, providers = F.pad(items, missing), F.pad(providers, missing)
        length, device = items.shape[1], items.device
        x = self.dropout(self.norm(self.item_embedding(items)))
        provider_vectors = self.provider_embedding(providers)
        positions = self.position_embedding(torch.arange(length, device=device)).expand_as(x)
        mask = causal_mask(length, device)
        if self.raw:  # states of padding are read, so they must not see padding
            mask = mask & (torch.arange(length, device=device) <= histories.newest)[:, None, None]
        for index, layer in enumerate(self.layers, start=1):
            newest_only = index == len(self.layers) and not every_position
            sources, read = [x, provider_vectors, positions], histories.newest if newest_only else None
            x = layer(sources, mask, read, raw=self.raw)
        return Views(x if every_position else x[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight

    def provider_logits(self, user: Tensor) -> Tensor:
        """Map user vectors `[N, d]` to a logit per provider, `[N, providers + 1]`."""
        out: Tensor = self.provider_output(user)
        return out
