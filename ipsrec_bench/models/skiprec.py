"""SkipRec: user-adaptive layer selection for deep sequential recommenders (Chen, Yuan, Ma and Liu, AAAI 2021).

A deep backbone, and a policy network that chooses for each user which of its layers are used. With the policy's logit
p_l of layer l and logistic noise n (the difference of two Gumbel draws):

    y_l = g_l layer_l(y_{l-1}) + (1 - g_l) y_{l-1},  g_l = 1 if p_l + n > 0, else 0

The gradient of g_l is that of sigmoid((p_l + n) / temperature) ("straight through"). Outside training, n is 0.

The backbone here is SASRec. The policy network is one Transformer layer with item and position embeddings of its own,
whose states are averaged over the history and mapped to a logit per layer. Scores are dot products with the item
embeddings of the backbone.

In the paper a user has one gate per layer. Here every position has its own (`gates = "position"`), from the average of
the policy's states up to it, so that no position sees what follows and windows can be packed. The gate of a history's
newest position is that of the paper; the states of earlier positions, to which it attends, have passed through the
layers that these had chosen. `gates = "user"` applies the newest position's gates to all positions.

The authors' code (TensorFlow 1) also differs in this:

- It trains every position with gates from the whole sequence, which contains the items that all but the last of them
  must predict.
- It draws the noise in the test as well, so equal histories have different scores.
- The two logits of a layer pass through a sigmoid first, so the odds of a layer are at most e : 1.
- Residuals are scaled by learned factors that begin at 0 (ReZero), and scores have a table and biases of their own.
- A skipped layer is computed nevertheless, as here: gates save no time in training.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import SkipRecConfig
from ipsrec_bench.models.layers import (
    LAYER_NORM_EPS,
    AttentionBlock,
    SequenceEncoder,
    causal_mask,
    init_weights,
    positions_at,
)


class Policy(nn.Module):
    """Chooses the layers of the backbone."""

    def __init__(self, config: SkipRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes`."""
        super().__init__()
        self.item_embedding = nn.Embedding(sizes.items + 1, config.embedding_size, padding_idx=0)
        self.encoder = SequenceEncoder(config, sizes.max_length, n_layers=1)
        self.output = nn.Linear(config.embedding_size, config.n_layers)
        self.temperature = config.temperature

    def logits(self, histories: Histories) -> Tensor:
        """Return the logits of the gates at every position, `[B, L, layers]`."""
        states = self.encoder(self.item_embedding(histories.items))
        counts = torch.arange(1, states.shape[1] + 1, device=states.device)[:, None]
        logits: Tensor = self.output(states.cumsum(dim=1) / counts)
        return logits

    def forward(self, histories: Histories, *, of_user: bool) -> Tensor:
        """Return gates of 0 or 1, `[B, L, layers]`, or `[B, 1, layers]` of the newest position with `of_user`."""
        logits = self.logits(histories)
        if of_user:
            logits = positions_at(logits, histories.newest)
        if self.training:
            tiny = torch.finfo(logits.dtype).eps
            logits = logits + torch.rand_like(logits).clamp(tiny, 1 - tiny).logit()
        soft = torch.sigmoid(logits / self.temperature)
        return (logits > 0).to(soft.dtype) + (soft - soft.detach())  # the difference is 0 and has the gradient


class SkipRec(SequentialModel):
    """A causal Transformer over the item sequence whose layers are chosen per position; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: SkipRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, d)
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(AttentionBlock(config) for _ in range(config.n_layers))
        self.policy = Policy(config, sizes)
        self.of_user = config.gates == "user"
        self.apply(init_weights)

    def gates(self, histories: Histories) -> Tensor:
        """Return the gates, `[B, L, layers]`, or `[B, 1, layers]` if they are the user's."""
        with torch.autocast(histories.items.device.type, enabled=False):  # rounding must not choose layers
            gates: Tensor = self.policy(histories, of_user=self.of_user)
        return gates

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position."""
        length, device = histories.items.shape[1], histories.items.device
        positions = self.position_embedding(torch.arange(length, device=device))
        x = self.dropout(self.norm(self.item_embedding(histories.items) + positions))
        gates, mask = self.gates(histories), causal_mask(length, device)
        for index, layer in enumerate(self.layers):
            newest_only = index == len(self.layers) - 1 and not every_position
            passed, gate = layer(x, x, x, mask, histories.newest if newest_only else None), gates[..., index, None]
            if newest_only:
                x = positions_at(x, histories.newest)
                gate = gate if self.of_user else positions_at(gate, histories.newest)
            x = gate * passed + (1 - gate) * x
        return Views(x if every_position else x[:, 0])

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
