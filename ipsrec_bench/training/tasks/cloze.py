"""The cloze task: restore the hidden items of a history (BERT4Rec; Sun et al., CIKM 2019, section 3.6).

It needs a model that implements `MaskedEncoder`.
"""

import torch
from torch import Tensor

from ipsrec_bench.training.masking import draw_each, draw_share, hide, items_outside
from ipsrec_bench.training.tasks.api import Task, TrainingStep
from ipsrec_bench.training.tasks.configs import ClozeConfig

BPR_LEAST = 1e-14
"""Added to the likelihood in BPR, as RecBole does: its logarithm stays finite."""


class Cloze(Task[ClozeConfig]):
    """The loss of each hidden item, given the state at its place."""

    settings_type = ClozeConfig
    samples = frozenset({"targets", "histories"})

    def loss(self, step: TrainingStep) -> Tensor:
        """Return the mean over the hidden items that count; 0 if there are none."""
        hidden = self.hidden(step)
        return self.loss_of(step, hidden, self.counted(hidden, step.sure_index.max_length))

    def hidden(self, step: TrainingStep) -> Tensor:
        """Draw the places whose items are hidden, bool `[B, L]`."""
        settings, histories = self.settings, step.batch.histories
        draw = draw_share if settings.masks == "share" else draw_each
        hidden = draw(histories, settings.mask_ratio, step.rng)
        if not settings.last_share:
            return hidden
        drawn = step.rng.random(len(hidden) if settings.last_for == "history" else 1) < settings.last_share
        last = torch.zeros_like(hidden).scatter_(1, histories.newest, True)
        return torch.where(torch.from_numpy(drawn).to(hidden.device)[:, None], last, hidden)

    def counted(self, hidden: Tensor, max_length: int) -> Tensor:
        """Return the hidden places whose loss counts, bool `[B, L]`."""
        if self.settings.counted == "all":
            return hidden
        most = max(int(self.settings.mask_ratio * max_length), 1)
        newest = hidden & (hidden.flip(1).cumsum(dim=1).flip(1) <= most)
        newest[:, 0] = False
        return newest

    def loss_of(self, step: TrainingStep, hidden: Tensor, counted: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return the mean loss of the items at the places `counted`, where all of `hidden` are hidden.

        `negatives [N]` are those of BPR, in the order of the places; by default they are drawn.
        """
        histories, token = step.batch.histories, step.mask_token
        # The last layer is computed at these places only. Rows with fewer of them are filled up with others.
        width = max(int(counted.sum(dim=1).max()), 1)
        read = counted.byte().argsort(dim=1, descending=True, stable=True)[:, :width]
        at = counted.gather(1, read)
        states = step.encode_masked(hide(histories, hidden, token), read)[at]
        items = histories.items.gather(1, read)[at]
        if not len(items):
            return states.sum() * 0.0
        if self.settings.loss == "catalogue":
            return step.next_item_loss(states, items)
        if negatives is None:
            negatives = items_outside(histories.items, at.nonzero()[:, 0], token - 1, step.rng)
        differences = (states * (step.vectors_of(items) - step.vectors_of(negatives))).sum(dim=1)
        return -(BPR_LEAST + differences.sigmoid()).log().mean()
