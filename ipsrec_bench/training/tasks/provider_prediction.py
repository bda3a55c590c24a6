"""The prediction of the next item's provider (DIF-SR's auxiliary attribute predictor).

It needs a model that implements `ProviderPredictor`.
"""

import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import ProviderPredictor
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import ProviderPredictionConfig


class ProviderPrediction(Task[ProviderPredictionConfig]):
    """Binary cross-entropy of the next item's provider, given the user vector."""

    settings_type = ProviderPredictionConfig
    per_target = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over targets and providers.

        Raises:
            ModelError: the model does not predict providers.
        """
        if not isinstance(step.model, ProviderPredictor):
            raise ModelError(
                "the model does not predict providers (it is no ProviderPredictor); remove the task, or set the"
                " model's attribute_weight = 0"
            )
        name = step.model.provider_input
        logits = step.model.provider_logits(step.main.extra[name] if name else step.main.user)
        return provider_loss(logits, step.batch.target_providers, unknown_class=self.settings.unknown_class)


def provider_loss(logits: Tensor, providers: Tensor, *, unknown_class: bool = False) -> Tensor:
    """Return the binary cross-entropy of "the next item's provider is p", averaged over targets and providers.

    Args:
        logits: `[N, providers + 1]`.
        providers: int64 `[N]`.
        unknown_class: whether the unknown provider counts. If not, a target that has it has no positive.
    """
    # With labels y in {0, 1}, the loss of a logit x is softplus(x) - y x.
    own = logits.gather(1, providers[:, None])[:, 0]
    if unknown_class:
        counted = logits[:, 1:]
    else:
        counted = logits[:, UNKNOWN_PROVIDER + 1 :]
        own = own.masked_fill(providers == UNKNOWN_PROVIDER, 0.0)
    return (F.softplus(counted).sum() - own.sum()) / max(counted.numel(), 1)
