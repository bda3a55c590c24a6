"""The contrastive loss between the item view and the provider view of a user (paper, eq. 12 and its variants).

It needs a model with a provider view (`Views.provider`).
"""

import torch
from torch import Tensor

from ipsrec_bench.errors import ModelError
from ipsrec_bench.training.contrast import contrastive_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import ProviderContrastConfig


class ProviderContrast(Task[ProviderContrastConfig]):
    """The two views at each predicted position are a positive pair."""

    settings_type = ProviderContrastConfig
    per_target = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the predicted positions.

        Raises:
            ModelError: the model has no second view.
        """
        views, settings = step.main, self.settings
        if views.provider is None:
            raise ModelError(
                "it contrasts two views of a user, but the model has no provider view; remove the task, or set the"
                " model's lambda = 0"
            )
        owners = views.owners
        if settings.same_user_negatives:
            owners = torch.arange(len(views.user), device=views.user.device)
        return contrastive_loss(
            views.user,
            views.provider,
            owners,
            contrast=settings.contrast,
            similarity=settings.similarity,
            tau=settings.tau,
        )
