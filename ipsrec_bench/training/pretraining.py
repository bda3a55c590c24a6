"""What the tasks of S3-Rec's pretraining share (Zhou et al., CIKM 2020): masked histories and losses of their states.

Losses are sums over the places of a batch, divided by its number of histories.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import AttributeEncoder
from ipsrec_bench.training.logistic import binary_cross_entropy_sum
from ipsrec_bench.training.masking import draw_each, hide, real_places
from ipsrec_bench.training.tasks.api import TrainingStep


@dataclass(frozen=True, eq=False)
class Masked:
    """Histories of which some items are hidden."""

    whole: Histories
    """With all items."""
    hidden: Tensor
    """bool `[B, L]`."""
    states: Tensor
    """`[B, L, d]`, of the histories with the hidden items."""

    @property
    def visible(self) -> Tensor:
        """Bool `[B, L]`: real places that are not hidden."""
        return real_places(self.whole) & ~self.hidden


def encoder_of(step: TrainingStep) -> AttributeEncoder:
    """Return the model.

    Raises:
        ModelError: it lacks what this pretraining needs.
    """
    if not isinstance(step.model, AttributeEncoder):
        raise ModelError("the tasks of S3-Rec's pretraining need a model that implements AttributeEncoder")
    return step.model


def masked(step: TrainingStep, ratio: float) -> Masked:
    """Hide each item of the batch's histories with probability `ratio`; drawn and encoded once in a step."""

    def draw() -> Tensor:
        return draw_each(step.batch.histories, ratio, step.rng)

    def encode() -> Masked:
        whole, hidden = step.batch.histories, step.once(("hidden", ratio), draw)
        return Masked(whole, hidden, step.encode_masked(hide(whole, hidden, step.mask_token)))

    return step.once(("masked", ratio), encode)


def provider_loss_at(step: TrainingStep, task: str, found: Masked, places: Tensor) -> Tensor:
    """Return the binary cross-entropy of the providers at `places [B, L]`, over all known providers.

    A place with an unknown provider has no positive.
    """
    encoder = encoder_of(step)
    states = encoder.project(task, found.states[places])
    own = found.whole.providers[places] - (UNKNOWN_PROVIDER + 1)
    known = encoder.provider_vectors()[UNKNOWN_PROVIDER + 1 :]
    return binary_cross_entropy_sum(states, known, own, step.dtype) / len(found.whole.items)


def preference_loss(asking: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the sum of -log sigmoid(sigmoid(q . p) - sigmoid(q . n)) over rows q, p, n of three tensors `[N, d]`."""
    of_positive, of_negative = ((asking * other).sum(dim=1).sigmoid() for other in (positive, negative))
    return F.softplus(of_negative - of_positive).sum()
