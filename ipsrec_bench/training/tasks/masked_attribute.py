"""Masked attribute prediction (MAP, S3-Rec; Zhou et al., CIKM 2020): providers of hidden items.

It needs a model that implements `AttributeEncoder`.
"""

from torch import Tensor

from ipsrec_bench.training.pretraining import masked, provider_loss_at
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import MaskingConfig


class MaskedAttribute(Task[MaskingConfig]):
    """Binary cross-entropy of the provider of every hidden item, given the state at its place."""

    settings_type = MaskingConfig
    samples = frozenset({"targets", "histories"})
    sums_places = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the sum over places and known providers, divided by the number of histories.

        Raises:
            ModelError: the model is not an AttributeEncoder.
        """
        found = masked(step, self.settings.mask_ratio)
        return provider_loss_at(step, "masked-attribute", found, found.hidden)
