"""MSSR: multi-sequence attentive user representation learning (Lin et al., WSDM 2024).

Two streams run side by side, over the items of a history and over their providers. Attention scores come from all pairs
of kinds: in the item stream, (item state x, provider c, position p) as query times the same as key, nine sources; in
the provider stream, (provider state z, position p) times the same, four sources. For source s = (a, b) and a head:

    row_s  = w_s (a W_Q^ab) (b W_K^b)^T      w = softmax of 9, or of 4, learned numbers
    fused  = sum_s g_s row_s                 g = softmax over s of w_2^T ReLU(W_1 row_s + b_1)
    x'     = softmax(fused / sqrt(d / h)) x W_V, then as in a Transformer layer; for z with values z W_V'

c is the raw provider embedding in every layer; z begins with it. Both streams share the queries, the keys and the gate.
The two have their own values, dense layers, norms and feed-forward networks. With u and v, the vectors of the two
streams at the last position, and G = sigmoid(W [u; v]), the score of item i is G u . e_i + (1 - G) v . c_provider(i).
It is one dot product: of [G u; (1 - G) v] and [e_i; c_provider(i)]. Item i's provider is that of most of its training
interactions.

Besides the next item, the model is trained to predict its provider, by H A u + (1 - H) B v with another gate H, and to
bring u and v together by a contrastive loss (NT-Xent) between W dropout(u) and v.

The authors' code (`preset = "released"`) differs as follows:

- Positions count backward: 0 is the newest interaction, and padding (`positions`). A state then depends on how many
  interactions follow it, and packed windows cannot be trained. Here they count forward, which makes the model causal.
- The gate reads raw scores and only its result is masked, so the rows hold scores of later and of padded keys: states
  before the last see the future, and results depend on the maximum length (`raw_scores`). Here scores that a query may
  not see are set to 0 before the gate.
- v is taken from the first layer, whatever their number, so the provider stream of later layers does nothing
  (`provider_layer`).
- The provider table is no parameter of the model and keeps its first values (`frozen_providers`). Here it is trained.
- The unknown provider and padding are classes (`unknown_class`, `padding_class`), and other samples of the same user
  are negatives (`same_user_negatives`).
- Its fusions other than the gate fail on shapes, so there are none here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import (
    ITEM_STREAM,
    PROVIDER_STREAM,
    ProviderPredictor,
    SequentialModel,
    Sizes,
    TrainingLog,
    Views,
)
from ipsrec_bench.models.configs import MSSRConfig
from ipsrec_bench.models.dif_sr import GateFusion
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

STREAMS = "streams"
"""The name in `Views.extra` of [u; v]."""


class StreamOutput(nn.Module):
    """What follows attention in a Transformer layer: dense layer, dropout, residual, norm and feed-forward."""

    def __init__(self, config: MSSRConfig, width: int) -> None:
        """Take the width of the stream."""
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = Dropout(config.hidden_dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.feed_forward = FeedForward(config.model_copy(update={"embedding_size": width}))

    def forward(self, attended: Tensor, residual: Tensor) -> Tensor:
        """Map `attended [B, h, R, e]` and `residual [B, R, width]` to `[B, R, width]`."""
        merged = self.dropout(self.dense(attended.transpose(1, 2).flatten(2)))
        out: Tensor = self.feed_forward(self.norm(residual + merged))
        return out


class MSSRLayer(nn.Module):
    """One layer of both streams, or of the item stream alone."""

    def __init__(self, config: MSSRConfig, max_length: int, *, provider_stream: bool) -> None:
        """Take the sizes from `config`; `provider_stream` says whether the layer has one."""
        super().__init__()
        d, c = config.embedding_size, config.attribute_size or config.embedding_size
        self.n_heads, self.raw = config.n_heads, config.raw_scores
        self.item_key, self.provider_key, self.position_key = nn.Linear(d, d), nn.Linear(c, c), nn.Linear(d, d)
        # Items and positions each have one query for the keys of both.
        self.item_query, self.position_query = nn.Linear(d, d), nn.Linear(d, d)
        self.item_to_provider, self.position_to_provider = nn.Linear(d, c), nn.Linear(d, c)
        self.provider_query = nn.Linear(c, c)
        self.provider_to_item, self.provider_to_position = nn.Linear(c, d), nn.Linear(c, d)
        self.gate = GateFusion(max_length)
        self.attention = Attention(config.attention_dropout)
        self.item_value, self.item_output = nn.Linear(d, d), StreamOutput(config, d)
        if provider_stream:
            self.provider_value, self.provider_output = nn.Linear(c, c), StreamOutput(config, c)

    def item_stream(
        self, sources: Sequence[Tensor], weights: Tensor, mask: Tensor, read: Tensor | None = None
    ) -> Tensor:
        """Map item states to item states `[B, L, d]`, or `[B, R, d]` at `read [B, R]`.

        Args:
            sources: item states, providers and positions, `[B, L, ...]` each.
            weights: `[3, 3]`, of each kind of query and each kind of key.
            mask: bool, true where a query may see a key.
            read: the positions to compute.
        """
        items, providers, positions = self._asking(sources, read)
        item_query, position_query = self._heads(self.item_query, items), self._heads(self.position_query, positions)
        queries = (
            (item_query, self._heads(self.provider_to_item, providers), position_query),
            (
                self._heads(self.item_to_provider, items),
                self._heads(self.provider_query, providers),
                self._heads(self.position_to_provider, positions),
            ),
            (item_query, self._heads(self.provider_to_position, providers), position_query),
        )
        layers = (self.item_key, self.provider_key, self.position_key)
        keys = [self._heads(layer, source) for layer, source in zip(layers, sources, strict=True)]
        values = self._heads(self.item_value, sources[0])
        out: Tensor = self.item_output(self._attended(queries, keys, values, weights, mask, read), items)
        return out

    def provider_stream(
        self, sources: Sequence[Tensor], weights: Tensor, mask: Tensor, read: Tensor | None = None
    ) -> Tensor:
        """Map provider states to provider states; as `item_stream`, without the items."""
        providers, positions = self._asking(sources, read)
        queries = (
            (self._heads(self.provider_query, providers), self._heads(self.position_to_provider, positions)),
            (self._heads(self.provider_to_position, providers), self._heads(self.position_query, positions)),
        )
        layers = (self.provider_key, self.position_key)
        keys = [self._heads(layer, source) for layer, source in zip(layers, sources, strict=True)]
        values = self._heads(self.provider_value, sources[0])
        out: Tensor = self.provider_output(self._attended(queries, keys, values, weights, mask, read), providers)
        return out

    def _asking(self, sources: Sequence[Tensor], read: Tensor | None) -> list[Tensor]:
        return [source if read is None else positions_at(source, read) for source in sources]

    def _heads(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return split_heads(layer(x), self.n_heads)

    def _attended(
        self,
        queries: Sequence[Sequence[Tensor]],
        keys: Sequence[Tensor],
        values: Tensor,
        weights: Tensor,
        mask: Tensor,
        read: Tensor | None,
    ) -> Tensor:
        """Return the attended values, `[B, h, R, e]`, given the queries for each kind of key, `[B, h, R, e]` each."""
        if read is not None:
            mask = mask_at(mask, read)
        products = []
        for kind, (asked, key) in enumerate(zip(queries, keys, strict=True)):
            weighted = torch.stack(list(asked), dim=3) * weights[:, kind, None]  # [B, h, R, kinds of queries, e]
            product = weighted.flatten(2, 3) @ key.transpose(-2, -1)
            products.append(product.view(*weighted.shape[:4], key.shape[2]))
        rows = torch.cat(products, dim=3)  # [B, h, R, sources, L]
        if not self.raw:
            rows = rows.masked_fill(~mask[..., None, :], 0.0)
        return self.attention.by_scores(self.gate(rows), values, mask, self.item_key.out_features // self.n_heads)


class MSSR(SequentialModel, ProviderPredictor):
    """A causal Transformer over items and another over providers, whose attention scores look at both."""

    mixed_precision = True
    provider_input = STREAMS
    item_providers: Tensor
    """int64 `[items + 1]`: the provider of each item in training."""

    def __init__(self, config: MSSRConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d, c = config.embedding_size, config.attribute_size or config.embedding_size
        self.d, self.max_length = d, sizes.max_length
        self.backward, self.raw = config.positions == "backward", config.raw_scores
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.provider_embedding = nn.Embedding(sizes.providers + 1, c, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout, self.contrast_dropout = Dropout(config.hidden_dropout), Dropout(config.contrast_dropout)
        self.item_weights, self.provider_weights = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(2, 2))
        self.provider_layers = 1 if config.provider_layer == "first" else config.n_layers
        self.layers = nn.ModuleList(
            MSSRLayer(config, sizes.max_length, provider_stream=index < self.provider_layers)
            for index in range(config.n_layers)
        )
        self.score_gate, self.predictor_gate = nn.Linear(d + c, 1, bias=False), nn.Linear(d + c, 1, bias=False)
        self.item_predictor = nn.Linear(d, sizes.providers + 1)
        self.provider_predictor = nn.Linear(c, sizes.providers + 1)
        self.to_provider_stream = nn.Linear(d, c, bias=False)
        known = torch.full((sizes.items + 1,), UNKNOWN_PROVIDER)
        known[0] = 0
        self.register_buffer("item_providers", known)
        self.apply(init_weights)
        if config.frozen_providers:
            self.provider_embedding.weight.requires_grad_(False)
            nn.init.normal_(self.provider_embedding.weight[1:])

    def prepare(self, log: TrainingLog) -> None:
        """Take the provider of each item in training."""
        found = torch.from_numpy(log.item_providers(len(self.item_providers) - 1))
        self.item_providers = found.to(self.item_providers.device)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d + c]`, or `[B, L, d + c]` at every position, and the vectors of both streams.

        Raises:
            NotImplementedError: `every_position` is set, and a state depends on later positions.
        """
        items, providers = histories.items, histories.providers
        if every_position and (self.raw or self.backward):
            raise NotImplementedError
        if self.raw:  # padded keys are read, so that there must be a fixed number of them
            missing = (0, self.max_length - items.shape[1])
            items, providers = F.pad(items, missing), F.pad(providers, missing)
        length, device = items.shape[1], items.device
        x = self.dropout(self.norm(self.item_embedding(items)))
        c = z = self.provider_embedding(providers)
        steps = torch.arange(length, device=device)
        mask = causal_mask(length, device)
        if self.raw:  # states of padding are read, so they must not see padding
            mask = mask & (steps <= histories.newest)[:, None, None]
        if self.backward:
            steps = (histories.newest - steps).clamp_(min=0)
        p = self.position_embedding(steps).expand(len(items), -1, -1)
        item_weights, provider_weights = (
            weights.flatten().softmax(0).view_as(weights) for weights in (self.item_weights, self.provider_weights)
        )
        read = None if every_position else histories.newest
        for index, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, MSSRLayer)
            if index <= self.provider_layers:
                last = index == self.provider_layers
                z = layer.provider_stream((z, p), provider_weights, mask, read if last else None)
            x = layer.item_stream((x, c, p), item_weights, mask, read if index == len(self.layers) else None)
        return self._views(x, z) if every_position else self._views(x[:, 0], z[:, 0])

    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d + c]`: the embedding of each item, and that of its provider in training."""
        return torch.cat([self.item_embedding.weight, self.provider_embedding(self.item_providers)], dim=1)

    def provider_logits(self, user: Tensor) -> Tensor:
        """Map both streams' vectors `[N, d + c]` to a logit per provider, `[N, providers + 1]`."""
        gate = self.provider_gate(user)
        gated = torch.cat([gate * user[:, : self.d], gate, (1 - gate) * user[:, self.d :], 1 - gate], dim=1)
        both = [torch.cat([one.weight, one.bias[:, None]], 1) for one in (self.item_predictor, self.provider_predictor)]
        return F.linear(gated, torch.cat(both, dim=1))

    def item_gate(self, streams: Tensor) -> Tensor:
        """Map both streams' vectors `[..., d + c]` to the weight of the item stream in the scores, `[..., 1]`."""
        gate: Tensor = self.dropout(self.score_gate(streams)).sigmoid()
        return gate

    def provider_gate(self, streams: Tensor) -> Tensor:
        """Map both streams' vectors `[..., d + c]` to the weight of the item stream in predicting providers."""
        gate: Tensor = self.dropout(self.predictor_gate(streams)).sigmoid()
        return gate

    def _views(self, u: Tensor, v: Tensor) -> Views:
        streams = torch.cat([u, v], dim=-1)
        gate = self.item_gate(streams)
        extra = {
            STREAMS: streams,
            ITEM_STREAM: self.to_provider_stream(self.contrast_dropout(u)),
            PROVIDER_STREAM: v,
        }
        return Views(torch.cat([gate * u, (1 - gate) * v], dim=-1), extra=extra)
