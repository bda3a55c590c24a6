"""Masked item prediction (MIP, S3-Rec; Zhou et al., CIKM 2020): hidden items against others.

It needs a model that implements `AttributeEncoder`.
"""

from torch import Tensor

from ipsrec_bench.training.masking import items_outside
from ipsrec_bench.training.pretraining import encoder_of, masked, preference_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import MaskingConfig


class MaskedItem(Task[MaskingConfig]):
    """A hidden item is preferred to one that its history lacks, given the state at its place."""

    settings_type = MaskingConfig
    samples = frozenset({"targets", "histories"})
    sums_places = True

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the sum over the hidden items, divided by the number of histories.

        Raises:
            ModelError: the model is not an AttributeEncoder.
        """
        encoder, found = encoder_of(step), masked(step, self.settings.mask_ratio)
        items = found.whole.items

        def draw() -> Tensor:
            return step.vectors_of(items_outside(items, found.hidden.nonzero()[:, 0], step.mask_token - 1, step.rng))

        negative = step.once(("negative-items", self.settings.mask_ratio), draw)
        states = encoder.project("masked-item", found.states[found.hidden])
        positive = step.vectors_of(items[found.hidden])
        return preference_loss(states, positive, negative) / len(items)
