"""Bayesian personalised ranking (Rendle, Freudenthaler, Gantner and Schmidt-Thieme, UAI 2009): a pairwise loss."""

import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.training.tasks.api import Task, TrainingStep, reduced
from ipsrec_bench.training.tasks.configs import BPRConfig


class BPR(Task[BPRConfig]):
    """-log sigmoid(score of the sample's item - score of an item that the user has no training interaction with)."""

    settings_type = BPRConfig
    samples = frozenset({"targets", "interactions"})

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean or the sum over the samples."""
        users, items = step.main.user, step.item_vectors
        positive = (users * F.embedding(step.positives, items)).sum(dim=1)
        negative = (users * F.embedding(step.negatives, items)).sum(dim=1)
        return reduced(F.softplus(negative - positive), self.settings.reduction)
