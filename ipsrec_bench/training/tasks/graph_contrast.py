"""The contrast between two views of the user-item graph, each without a share of its edges (SGL-ED).

The InfoNCE of an anchor of view 1 against all vectors of view 2 is a softmax over a catalogue, whose factors are the
normalised vectors. It is computed tile by tile like that over the items (`ipsrec_bench.training.softmax`), so its
memory is bounded for any number of users.

It needs a model that implements `GraphEncoder`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.graphs import BipartiteGraph
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.softmax import full_cross_entropy
from ipsrec_bench.training.tasks.api import Task, TrainingStep, graph_encoder
from ipsrec_bench.training.tasks.configs import GraphContrastConfig


class GraphContrast(Task[GraphContrastConfig]):
    """A user, and an item, is most similar to itself in the other view, among all users or all items."""

    settings_type = GraphContrastConfig
    samples = frozenset({"interactions"})
    graphs: tuple[BipartiteGraph, BipartiteGraph] | None = None
    """The graphs of the two views, which `begin_epoch` draws."""

    def begin_epoch(self, model: SequentialModel, index: TrainingIndex, rng: np.random.Generator) -> None:  # noqa: ARG002 (every task's form)
        """Draw, for each view, the edges that it keeps: without replacement, a fixed number."""
        encoder = graph_encoder(model, "graph-contrast")
        edges, device = encoder.num_edges, encoder.tables()[0].device
        keeps = int(edges * (1 - self.settings.drop_ratio))

        def thinned() -> BipartiteGraph:
            kept = np.zeros(edges, dtype=bool)
            kept[rng.choice(edges, keeps, replace=False, shuffle=False)] = True
            return encoder.graph(torch.from_numpy(kept).to(device))

        self.graphs = thinned(), thinned()

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the loss of the samples' users plus that of their items, means or sums over the samples.

        Raises:
            ModelError: the model has no graph, or no epoch was begun.
        """
        encoder = graph_encoder(step.model, "graph-contrast")
        if self.graphs is None:
            raise ModelError("the graphs of graph-contrast are drawn when an epoch begins, and none has begun")
        (users_1, items_1), (users_2, items_2) = map(encoder.propagate, self.graphs)
        users, items = step.batch.histories.users, step.positives
        loss = self._against(users_1, users_2, users, 0, step.dtype)
        loss = loss + self._against(items_1, items_2, items, step.first, step.dtype)
        return loss * len(users) if self.settings.reduction == "sum" else loss

    def _against(self, anchors: Tensor, others: Tensor, rows: Tensor, first: int, dtype: torch.dtype) -> Tensor:
        """Return the mean over `rows [N]` of -log softmax(cosines of its anchor with `others` / tau)[row]."""
        anchor = F.normalize(F.embedding(rows, anchors), dim=1) / self.settings.tau
        return full_cross_entropy(anchor, F.normalize(others, dim=1), rows, first=first, dtype=dtype)
