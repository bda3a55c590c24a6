"""A penalty on the rows of the tables that a batch reads: those of its users, its items and its negatives.

It needs a model that implements `GraphEncoder`.
"""

import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.training.tasks.api import Task, TrainingStep, graph_encoder, reduced
from ipsrec_bench.training.tasks.configs import RowPenaltyConfig


class RowPenalty(Task[RowPenaltyConfig]):
    """Norms of the rows before propagation; a row that several samples read counts for each of them."""

    settings_type = RowPenaltyConfig
    samples = frozenset({"interactions"})

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the penalty without its weight.

        Raises:
            ModelError: the model has no such tables.
        """
        users, items = graph_encoder(step.model, "row-penalty").tables()
        batch = step.batch.histories.users
        rows = F.embedding(batch, users), F.embedding(step.positives, items), F.embedding(step.negatives, items)
        if self.settings.form == "norms":
            return sum((one.norm() for one in rows), start=rows[0].new_zeros(())) / len(batch)
        squares = sum((one.square().sum(dim=1) for one in rows), start=rows[0].new_zeros(()))
        return reduced(squares / 2, self.settings.reduction)
