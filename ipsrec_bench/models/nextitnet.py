"""NextItNet: a convolutional generative network for next item recommendation (Yuan et al., WSDM 2019).

The history is a sequence E of L x d, over which causal convolutions with holes slide: output t reads the positions t,
t - r, t - 2r, ... for the dilation r. A residual block, the paper's block (b), is

    F(X) = ReLU(norm(conv_2r(ReLU(norm(conv_r(X))))))        X' = X + F(X)

where the second convolution has twice the dilation of the first. The blocks have the dilations of the list
`dilations`, repeated `block_num` times. The user vector is W x_t + b of the last block's output; scores are dot
products with the item embeddings. The model is causal, so it predicts at every position in one pass, as the paper
trains it. The norms of all weight tensors, not squared, are added to the loss with the weight `weight_norm`.

Positions before the first item are zero in every layer. Implementations that pad on the left give other results for
short histories: their padding stops being zero after the first convolution, which adds biases.

RecBole (`preset = "recbole"`) pads on the right but reads the last column (`reads = "last-column"`): of a history
that is shorter than the maximum length, the state of a padded position. It trains on prefixes only, and has a class for
padding in its softmax.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import NextItNetConfig

LAYER_NORM_EPS = 1e-8
FIRST_BIAS = 0.1
"""Initial bias of the output layer, as in RecBole."""


class CausalConvolution(nn.Conv1d):
    """A convolution over time that sees no later position; the last tap of its kernel is the present."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, L, d]` to `[B, L, d]`."""
        (taps,), (dilation,), length = self.kernel_size, self.dilation, x.shape[1]
        # One matrix product over the taps side by side: a convolution kernel would be compiled for every new shape.
        padded = F.pad(x, (0, 0, (taps - 1) * dilation, 0))
        seen = torch.cat([padded[:, tap * dilation : tap * dilation + length] for tap in range(taps)], dim=-1)
        return F.linear(seen, self.weight.transpose(1, 2).flatten(1), self.bias)


class ResidualBlock(nn.Module):
    """Two causal convolutions, each followed by layer normalisation and ReLU, and a residual around both."""

    def __init__(self, d: int, taps: int, dilation: int) -> None:
        """Take the width, the number of taps of a kernel, and the dilation of the first convolution."""
        super().__init__()
        self.conv1 = CausalConvolution(d, d, taps, dilation=dilation)
        self.norm1 = nn.LayerNorm(d, eps=LAYER_NORM_EPS)
        self.conv2 = CausalConvolution(d, d, taps, dilation=2 * dilation)
        self.norm2 = nn.LayerNorm(d, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, L, d]` to `[B, L, d]`."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return x + F.relu(self.norm2(self.conv2(inner)))


class NextItNet(SequentialModel):
    """Dilated causal convolutions over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: NextItNetConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights as RecBole does; convolutions keep PyTorch's default."""
        super().__init__()
        d = config.embedding_size
        self.length = sizes.max_length
        self.reads_last_column = config.reads == "last-column"
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        dilations = config.dilations * config.block_num
        self.blocks = nn.Sequential(*(ResidualBlock(d, config.kernel_size, dilation) for dilation in dilations))
        self.output = nn.Linear(d, d)
        bound = 1.0 / math.sqrt(sizes.items + 1)
        nn.init.uniform_(self.item_embedding.weight, -bound, bound)
        nn.init.zeros_(self.item_embedding.weight[0].detach())
        nn.init.xavier_normal_(self.output.weight)
        nn.init.constant_(self.output.bias, FIRST_BIAS)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d]`, or `[B, L, d]` at every position.

        Raises:
            NotImplementedError: `every_position` is set, and the last column is read.
        """
        items = histories.items
        if not self.reads_last_column:
            states = self.states(items)
            return Views(self.output(states if every_position else histories.last(states)))
        if every_position:
            raise NotImplementedError
        return Views(self.output(self.states(F.pad(items, (0, self.length - items.shape[1])))[:, -1]))

    def states(self, items: Tensor) -> Tensor:
        """Return the output of the last block at every column of `items [B, L]`, padded ones included, `[B, L, d]`."""
        out: Tensor = self.blocks(self.item_embedding(items))
        return out

    def item_vectors(self) -> Tensor:
        """Return the item embeddings `[items + 1, d]`."""
        return self.item_embedding.weight
