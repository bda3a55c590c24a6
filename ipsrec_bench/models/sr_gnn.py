"""SR-GNN: session-based recommendation with graph neural networks (Wu et al., AAAI 2019).

A history is a directed graph: its distinct items are nodes, its transitions are edges of weight 1 however often they
repeat. A gated graph network sends messages along incoming and outgoing edges, each normalised by the number of
edges on that side (eq. 1 to 5):

    a = [A_in (H W_in + b_in) + b_1; A_out (H W_out + b_out) + b_2]
    r = sigmoid(W_r a + U_r h)    z = sigmoid(W_z a + U_z h)    n = tanh(W_n a + r * U_n h)
    h' = (1 - z) * h + z * n                             (all W and U with biases; gates as in RecBole)

Attention over the positions, with the newest item as the query, gives the history's vector (eq. 6), which is
concatenated with the newest item's (eq. 7):

    alpha_t = q^T sigmoid(W_1 h_last + W_2 h_t + c)      u = W_3 [sum_t alpha_t h_t; h_last]

Scores are dot products with the item embeddings (eq. 8).

The graph is built without a loop. The node of a position is the *first* position that holds the same item, so the
L positions are also the L nodes. Positions that are not a first occurrence have no edges and are never read.
"""

import math

import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import SRGNNConfig


def session_graph(items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the graphs of histories `items [B, L]`, padded on the right with 0.

    Returns:
        `nodes` int64 `[B, L]`, the node of each position: the first position with the same item; `incoming` and
        `outgoing [B, L, L]`, the share with which the node of the row receives from the node of the column, along its
        incoming and along its outgoing edges. Rows without edges are zero.
    """
    nodes = (items[:, :, None] == items[:, None, :]).int().argmax(dim=2)  # the first of equal maxima
    adjacency = torch.zeros(*items.shape, items.shape[1], device=items.device)  # [B, from, to]
    row, step = (items[:, 1:] > 0).nonzero(as_tuple=True)
    adjacency[row, nodes[row, step], nodes[row, step + 1]] = 1.0
    incoming = adjacency.transpose(1, 2)
    return nodes, _shares(incoming), _shares(adjacency)


def _shares(edges: Tensor) -> Tensor:
    return edges / edges.sum(dim=2, keepdim=True).clamp(min=1.0)


class GraphCell(nn.Module):
    """One round of message passing and the gated update (eq. 1 to 5)."""

    def __init__(self, d: int, *, bias: bool = True) -> None:
        """Build the weights of width `d`; `bias` says whether received messages get a further bias, b_1 and b_2."""
        super().__init__()
        self.incoming = nn.Linear(d, d)
        self.outgoing = nn.Linear(d, d)
        self.incoming_bias = nn.Parameter(torch.empty(d)) if bias else None
        self.outgoing_bias = nn.Parameter(torch.empty(d)) if bias else None
        self.message_gates = nn.Linear(2 * d, 3 * d)  # reset, update, new
        self.state_gates = nn.Linear(d, 3 * d)

    def forward(self, states: Tensor, incoming: Tensor, outgoing: Tensor) -> Tensor:
        """Map node states `[B, L, d]` and edges `[B, L, L]` to new states `[B, L, d]`."""
        received = incoming @ self.incoming(states)
        answered = outgoing @ self.outgoing(states)
        if self.incoming_bias is not None and self.outgoing_bias is not None:
            received, answered = received + self.incoming_bias, answered + self.outgoing_bias
        message = self.message_gates(torch.cat([received, answered], dim=-1)).chunk(3, dim=-1)
        state = self.state_gates(states).chunk(3, dim=-1)
        reset, update = (torch.sigmoid(m + s) for m, s in zip(message[:2], state[:2], strict=True))
        new = torch.tanh(message[2] + reset * state[2])
        return (1 - update) * states + update * new


def states_along(items: Tensor, vectors: Tensor, cell: GraphCell, rounds: int) -> Tensor:
    """Return the states along the histories `items [B, L]`, `[B, L, d]`, after `rounds` of message passing.

    The states of the nodes are first the `vectors [B, L, d]` of the items. States at padded positions have no meaning.
    """
    nodes, incoming, outgoing = session_graph(items)
    states = vectors
    for _ in range(rounds):
        states = cell(states, incoming, outgoing)
    return states.gather(1, nodes[:, :, None].expand_as(states))


class SRGNN(SequentialModel):
    """A gated graph network over the graph of the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: SRGNNConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights, uniform in +-1 / sqrt(d)."""
        super().__init__()
        d = config.embedding_size
        self.step = config.step
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.cell = GraphCell(d)
        self.attend_last = nn.Linear(d, d)
        self.attend_all = nn.Linear(d, d)
        self.attend_score = nn.Linear(d, 1, bias=False)
        self.output = nn.Linear(2 * d, d)
        for weight in self.parameters():
            nn.init.uniform_(weight, -1.0 / math.sqrt(d), 1.0 / math.sqrt(d))
        nn.init.zeros_(self.item_embedding.weight[0].detach())

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`.

        Raises:
            NotImplementedError: `every_position` is set; each prefix has a separate graph.
        """
        if every_position:
            raise NotImplementedError
        positions = states_along(histories.items, self.item_embedding(histories.items), self.cell, self.step)
        last = histories.last(positions)
        alpha = self.attend_score(torch.sigmoid(self.attend_last(last)[:, None] + self.attend_all(positions)))
        alpha = alpha.masked_fill((histories.items == 0)[:, :, None], 0.0)
        whole = (alpha * positions).sum(dim=1)
        return Views(self.output(torch.cat([whole, last], dim=1)))

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
