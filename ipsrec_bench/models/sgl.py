"""SGL: self-supervised graph learning (Wu, Wang, Feng, He, Chen, Lian and Xie, SIGIR 2021), with edge dropout (SGL-ED).

The model is not sequential: it knows a user by id, not by history. LightGCN propagates a table of users and a table of
items over the graph of training interactions (`ipsrec_bench.models.graphs`); the results are the user vectors and the
item vectors, and their dot product is the score. The tasks of its one stage have single interactions as samples:

- `bpr`: -log sigmoid(score of the item - score of another item that is drawn);
- `graph-contrast`: two views, each propagated over a graph without a share of the edges, drawn anew for every epoch. A
  user's vector in view 1 must be most similar to the same user's in view 2 among those of all users, and so must an
  item's: InfoNCE of cosines over tau;
- `row-penalty`: squared norms of the rows that the batch reads from the tables.

**What it does not see.** The graph has the training interactions, and nothing is read from a history. Under
leave-one-out, the validation item belongs to the history of the test target, but SGL ranks that target without it,
whereas a sequential model sees it. A split by users (`user-holdout`) tests users that have no vector; the suite is
refused. Under `temporal`, a user without training interactions is ranked with an untrained vector.

RecBole 1.2.1 differs from the paper's code in three ways, which `preset = "recbole"` selects with its default weights:
the penalty is the norm of each of the three matrices of rows, not squared, divided by the size of the batch, so it
nearly vanishes beside sums; row 0 of the item table, padding, is drawn like the others and takes part in the contrast
as one more item; and losses are sums over a batch, as in the paper's code too, where here they are means by default.
RecBole also counts a padding user, which has no place here: users are numbered from 0. It adds 1e-7 to the degrees,
which float32 does not show.

Shapes: tables `[users, d]` and `[items + 1, d]`.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import GraphEncoder, SequentialModel, Sizes, TrainingLog, Views
from ipsrec_bench.models.configs import SGLConfig
from ipsrec_bench.models.graphs import BipartiteGraph, OrderedEdges

Vectors = tuple[Tensor, Tensor]


class SGL(GraphEncoder, SequentialModel):
    """Tables of users and items, propagated over the graph of training interactions."""

    edge_users: Tensor
    edge_items: Tensor
    _edges: OrderedEdges | None
    _whole: BipartiteGraph | None
    _kept: Vectors | None

    def __init__(self, config: SGLConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights; the graph has no edges before `prepare`."""
        super().__init__()
        self.layers = config.n_layers
        self.user_embedding = nn.Embedding(sizes.users, config.embedding_size)
        self.item_embedding = nn.Embedding(sizes.items + 1, config.embedding_size, padding_idx=0)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.weight)
        if not config.padding_class:
            nn.init.zeros_(self.item_embedding.weight[0].detach())
        for name in ("edge_users", "edge_items"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self._forget()

    def prepare(self, log: TrainingLog) -> None:
        """Take the training interactions as edges, in their order."""
        device = self.edge_users.device
        self.edge_users = torch.from_numpy(log.users.astype("int32")).to(device)
        self.edge_items = torch.from_numpy(log.items.astype("int32")).to(device)
        self._forget()

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the vectors of the histories' users `[B, d]`.

        Raises:
            NotImplementedError: `every_position` is set; a user has one vector.
        """
        if every_position:
            raise NotImplementedError
        users, _ = self._vectors(anew=torch.is_grad_enabled())
        return Views(F.embedding(histories.users, users))

    def item_vectors(self) -> Tensor:
        """Return the propagated item vectors `[items + 1, d]`."""
        _, items = self._vectors(anew=False)
        return items

    def tables(self) -> Vectors:
        """Return the tables before propagation."""
        return self.user_embedding.weight, self.item_embedding.weight

    @property
    def num_edges(self) -> int:
        """Number of training interactions."""
        return len(self.edge_users)

    def graph(self, kept: Tensor | None = None) -> BipartiteGraph:
        """Return the graph of all edges, or of those where `kept`, bool `[edges]`, is true."""
        if self._edges is None:
            users, items = self.tables()
            self._edges = OrderedEdges(self.edge_users, self.edge_items, len(users), len(items))
        return self._edges.graph(kept)

    def propagate(self, graph: BipartiteGraph) -> Vectors:
        """Return the vectors of all users and of all items, propagated over `graph`."""
        return graph.propagated(*self.tables(), self.layers)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; weights may change in training, so kept vectors are forgotten."""
        self._kept = None
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401 (torch's signature)
        """Load weights and edges; what was computed from the old ones is forgotten."""
        self._forget()
        return super().load_state_dict(state_dict, strict, assign)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: ANN401 (torch's signature)
        self._forget()
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def _forget(self) -> None:
        self._edges = self._whole = self._kept = None
        self._kept_for: object = None

    def _vectors(self, *, anew: bool) -> Vectors:
        """Return the propagated vectors: kept ones if they still apply, unless they are wanted `anew`.

        In training they are kept from a step's encoding to its backward pass. Without gradients they are kept in
        evaluation mode, where weights change in place only by hand, which their version shows.
        """
        grad = torch.is_grad_enabled()
        state = (grad, *(table._version for table in self.tables()))  # noqa: SLF001 (it has no public name)
        if self._kept is not None and self._kept_for == state and not anew:
            return self._kept
        self._whole = self._whole or self.graph()
        found = self.propagate(self._whole)
        if grad or not self.training:
            self._kept, self._kept_for = found, state
        if grad:  # a fused optimiser changes weights without a new version
            for vectors in found:
                vectors.register_hook(self._used)  # type: ignore[no-untyped-call]
        return found

    def _used(self, _: Tensor) -> None:
        self._kept = None
