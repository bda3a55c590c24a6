"""The bipartite graph of users and items, and the propagation of vectors over it (LightGCN).

He, Deng, Wang, Li, Zhang and Wang, "LightGCN" (SIGIR 2020): A is the adjacency matrix, in which an interaction that
occurs n times counts n, and D its degrees. With the vectors of users and items in one matrix E,

    E_(k+1) = D^-1/2 A D^-1/2 E_k,    and the result is the mean of E_0 to E_layers.

The result is linear in E_0 and its matrix is symmetric, so the gradient is the same propagation of the gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A sparse matrix by rows: row r has the entries from `offsets[r]` to `offsets[r + 1]`."""

    offsets: Tensor
    """int32 `[rows + 1]`."""
    columns: Tensor
    """int32 `[entries]`."""
    weights: Tensor
    """float32 `[entries]`."""

    def sums(self, vectors: Tensor) -> Tensor:
        """Return the product with `vectors [columns, d]`, `[rows, d]`.

        A sum of bags of embeddings is this product. On a CPU it is several times faster than torch's product with a
        sparse matrix; on any device every row is summed in one order, so that results repeat bit for bit.
        """
        return F.embedding_bag(
            self.columns,
            vectors.contiguous(),
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Edges between users and items, weighted by 1 / sqrt(degree of the user * degree of the item)."""

    items_of_users: Neighbours
    users_of_items: Neighbours

    def propagated(self, users: Tensor, items: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the means of layers 0 to `layers` for users and for items, from the vectors at layer 0."""
        found: tuple[Tensor, Tensor] = _Propagation.apply(users, items, self, layers)  # type: ignore[no-untyped-call]
        return found


class OrderedEdges:
    """Edges, ordered once by user and once by item, so that graphs of some of them are built without sorting."""

    def __init__(self, users: Tensor, items: Tensor, num_users: int, num_items: int) -> None:
        """Take the ends of the edges, int32 `[edges]` each, below `num_users` and `num_items`."""
        self._sides = [
            (mine.argsort(stable=True), mine, others, num_mine)
            for mine, others, num_mine in ((users, items, num_users), (items, users, num_items))
        ]

    def graph(self, kept: Tensor | None = None) -> BipartiteGraph:
        """Return the graph of all edges, or of those where `kept`, bool `[edges]`, is true; degrees are its own."""
        degrees = [
            (mine if kept is None else mine[kept]).bincount(minlength=count) for _, mine, _, count in self._sides
        ]
        sides = []
        for (order, mine, others, _), own_degrees, other_degrees in zip(
            self._sides, degrees, reversed(degrees), strict=True
        ):
            chosen = order if kept is None else order[kept[order]]
            rows, columns = mine[chosen], others[chosen]
            weights = (own_degrees[rows].double() * other_degrees[columns]).rsqrt().float()
            sides.append(Neighbours(F.pad(own_degrees.cumsum(0), (1, 0)).int(), columns, weights))
        return BipartiteGraph(*sides)


class _Propagation(torch.autograd.Function):
    """The mean of the layers; nothing is saved for the backward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, users: Tensor, items: Tensor, graph: BipartiteGraph, layers: int
    ) -> tuple[Tensor, Tensor]:
        ctx.graph, ctx.layers = graph, layers  # type: ignore[attr-defined]
        return _means(users, items, graph, layers)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, users: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        return *_means(users, items, ctx.graph, ctx.layers), None, None  # type: ignore[attr-defined]


def _means(users: Tensor, items: Tensor, graph: BipartiteGraph, layers: int) -> tuple[Tensor, Tensor]:
    """Return the means of the layers by Horner's rule: E + A (E + A (E + ...)), for E divided by their number."""
    own_users, own_items = users, items = users / (layers + 1), items / (layers + 1)
    for _ in range(layers):
        next_users = graph.items_of_users.sums(items).add_(own_users)
        users, items = next_users, graph.users_of_items.sums(users).add_(own_items)
    return users, items
