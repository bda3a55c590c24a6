"""Segment prediction (SP, S3-Rec; Zhou et al., CIKM 2020): a hidden segment of a history against one of another.

It needs a model that implements `AttributeEncoder`.
"""

import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.settings import Settings
from ipsrec_bench.training.masking import Segments, draw_segments
from ipsrec_bench.training.pretraining import encoder_of, preference_loss
from ipsrec_bench.training.tasks.api import Task, TrainingStep


class Segment(Task[Settings]):
    """The rest of a history prefers its hidden segment to one of another history of the batch."""

    samples = frozenset({"targets", "histories"})

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the sum over histories of at least two items, divided by the number of all histories.

        Raises:
            ModelError: the model is not an AttributeEncoder.
        """
        encoder, histories = encoder_of(step), step.batch.histories
        segments = step.once("segments", lambda: draw_segments(histories, step.mask_token, step.rng))
        context, positive, negative = segment_states(step, segments)
        return preference_loss(encoder.project("segment", context), positive, negative) / len(histories.items)


def segment_states(step: TrainingStep, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states at the last places of context, positive and negative, `[B, d]` each, encoded in one pass."""
    three = (segments.context, segments.positive, segments.negative)
    together = Histories(
        *(torch.cat([getattr(one, name) for one in three]) for name in ("users", "items", "providers", "lengths"))
    )
    context, positive, negative = step.encode_masked(together, together.newest)[:, 0].chunk(3)
    return context, positive, negative
