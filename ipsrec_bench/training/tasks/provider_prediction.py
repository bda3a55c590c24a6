"""The prediction of the next item's provider (DIF-SR's auxiliary attribute predictor)."""

import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import ProviderPredictor
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.tasks.api import Task, TrainingStep


class ProviderPrediction(Task[Settings]):
    """Binary cross-entropy of the next item's provider, given the user vector."""

    per_target = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over targets and known providers.

        Raises:
            ModelError: the model does not predict providers.
        """
        if not isinstance(step.model, ProviderPredictor):
            raise ModelError(
                "the settings include the prediction of providers, but the model is not a ProviderPredictor; set"
                " attribute_weight = 0"
            )
        return provider_loss(step.model.provider_logits(step.main.user), step.batch.target_providers)


def provider_loss(logits: Tensor, providers: Tensor) -> Tensor:
    """Return the binary cross-entropy of "the next item's provider is p", averaged over targets and known providers.

    Args:
        logits: `[N, providers + 1]`.
        providers: int64 `[N]`; a target with an unknown provider has no positive.
    """
    # With labels y in {0, 1}, the loss of a logit x is softplus(x) - y x.
    known = logits[:, UNKNOWN_PROVIDER + 1 :]
    own = logits.gather(1, providers[:, None])[:, 0].masked_fill(providers == UNKNOWN_PROVIDER, 0.0)
    return (F.softplus(known).sum() - own.sum()) / max(known.numel(), 1)
