"""Caser: convolutional sequence embedding (Tang and Wang, WSDM 2018).

Implemented as in RecBole, the version that the IPSRec paper compares with. The history, padded on the right with zeros
to the maximum length L, is an image E of L x d:

- horizontal filters of each height h = 1..L slide over E; ReLU, then the maximum over time gives o;
- vertical filters of height L give weighted sums of E's rows, o~;
- z = ReLU(W [o~; o] + b), with dropout before it; u = ReLU(W' [z; p_user] + b') with the user's own embedding.

Scores are dot products of u with the item embeddings. Tang and Wang instead score [z; p_user] with a separate table,
without the second layer.

The window covers the user's newest L interactions and predicts only the next one. Because of the user embedding, the
model cannot make predictions for users that it was not trained on.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import CaserConfig

HEIGHTS_AT_ONCE = 8


def _init_weights(module: nn.Module) -> None:
    """Initialise weights as RecBole does; convolutions keep PyTorch's default."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=1.0 / module.embedding_dim)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx].detach())
    elif isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)


class Caser(SequentialModel):
    """Horizontal and vertical convolutions over the newest interactions, and a vector per user."""

    mixed_precision = True

    def __init__(self, config: CaserConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights."""
        super().__init__()
        d = config.embedding_size
        heights = range(1, sizes.max_length + 1)
        self.max_length = sizes.max_length
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.user_embedding = nn.Embedding(sizes.users, d)
        self.vertical = nn.Conv2d(1, config.n_vertical, (sizes.max_length, 1))
        self.horizontal = nn.ModuleList(nn.Conv2d(1, config.n_horizontal, (height, d)) for height in heights)
        self.dropout = Dropout(config.dropout)
        self.hidden = nn.Linear(config.n_vertical * d + config.n_horizontal * len(heights), d)
        self.output = nn.Linear(2 * d, d)
        self.apply(_init_weights)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`.

        Raises:
            NotImplementedError: `every_position` is set; a window predicts only the item after it.
        """
        if every_position:
            raise NotImplementedError
        width = histories.items.shape[1]
        image = self.item_embedding(F.pad(histories.items, (0, self.max_length - width)))  # [B, L, d]
        vertical = self.vertical(image[:, None]).flatten(1)  # [B, n_vertical * d]
        image = F.pad(image, (0, 0, 0, HEIGHTS_AT_ONCE)).transpose(1, 2)  # [B, d, L + padding for the taller filters]
        shorter = range(0, self.max_length, HEIGHTS_AT_ONCE)
        horizontal = [self._horizontal(image, width, first) for first in shorter]
        x = self.dropout(torch.cat([vertical, *horizontal], dim=1))
        x = F.relu(self.hidden(x))
        x = torch.cat([x, self.user_embedding(histories.users)], dim=1)
        return Views(F.relu(self.output(x)))

    def _horizontal(self, image: Tensor, width: int, shorter: int) -> Tensor:
        """Return `[B, n]`: the maxima of the filters of the next `HEIGHTS_AT_ONCE` heights above `shorter`.

        One convolution computes them all, with shorter filters padded with zeros: 50 small ones would take many times
        longer.
        """
        group = cast(list[nn.Conv2d], list(self.horizontal)[shorter : shorter + HEIGHTS_AT_ONCE])
        heights = range(shorter + 1, shorter + 1 + len(group))
        filters = [F.pad(c.weight[:, 0], (0, 0, 0, heights[-1] - h)) for h, c in zip(heights, group, strict=True)]
        weight = torch.cat(filters).transpose(1, 2)  # [n, d, tallest]
        bias = torch.cat([cast(Tensor, c.bias) for c in group])
        # Windows of padding alone are all equal, so one of those that begin beyond `width` is enough.
        begins = min(width + 1, self.max_length - shorter)
        found = F.relu(F.conv1d(image[:, :, : begins + heights[-1] - 1], weight, bias))  # [B, n, begins]
        latest = self.max_length - torch.tensor(heights, device=image.device).repeat_interleave(len(filters[0]))
        inside = torch.arange(begins, device=image.device) <= latest[:, None]
        return (found * inside).amax(dim=2)  # outside is 0, which is ReLU's minimum

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
