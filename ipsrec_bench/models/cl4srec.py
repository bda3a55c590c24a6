"""CL4SRec: contrastive learning for sequential recommendation (Xie et al., ICDE 2022).

SASRec with an auxiliary contrastive loss: two of crop, mask and reorder are drawn for each history, and the states
after the two changed histories are a positive pair among those of the batch,

    loss = next item + lambda NT-Xent(f(a(history)), f(b(history))).

The mask token is one more input vector, which is never scored. Crop keeps the share eta of a history, mask hides gamma
of its items, reorder shuffles beta.

The code of DuoRec's authors, whose defaults these are, differs from the paper: its samples are prefixes, other prefixes
of the same user are negatives, and padding is a class of the softmax (`preset = "released"`). Its loader also masks and
reorders **in place**: the history from which the next item is predicted and the stored data change as well, and mask
with reorder gives two equal views. That is a fault, and no preset of ours has it.
"""

import torch
from torch import Tensor, nn

from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.configs import CL4SRecConfig
from ipsrec_bench.models.layers import INIT_STD
from ipsrec_bench.models.sasrec import SASRec


class CL4SRec(SASRec):
    """SASRec that also reads hidden items."""

    reads_mask_token = True

    def __init__(self, config: CL4SRecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__(config, sizes)
        self.mask_token = sizes.mask_token
        self.mask_embedding = nn.Parameter(torch.empty(config.embedding_size).normal_(std=INIT_STD))

    def embed(self, items: Tensor) -> Tensor:
        """Map item ids `[B, L]`, the mask token among them, to vectors `[B, L, d]`."""
        hidden = items == self.mask_token
        return torch.where(hidden[..., None], self.mask_embedding, super().embed(items.masked_fill(hidden, 0)))
