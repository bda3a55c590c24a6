"""LRURec: linear recurrent units for sequential recommendation (Yue et al., WSDM 2024).

A recurrence that is linear and diagonal, with complex states of width 2d, and therefore parallel over time:

    u_t = exp(gamma) * (W_in x_t + b_in)                       complex
    h_t = lambda * h_{t-1} + u_t                               lambda = exp(-exp(nu) + i exp(theta))
    y_t = LN(Re(W_out h_t + b_out) + x_t)
    out_t = LN(W_2 gelu(W_1 y_t + b_1) + b_2 + y_t)

Input is the normalised item embedding; there are no positions. Scores are dot products with the item embeddings, plus a
bias of each item, which is one more dimension here.

The sums of the recurrence take log2(L) steps of doubling: after step k, h_t is the sum over the newest 2^k inputs.

In the authors' code, the padding before a history that is shorter than the maximum length is trained to predict its
first item, which is the setting `predicts_first`. The imaginary part of b_out has no effect, and is absent here.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import SequentialModel, Sizes, Views
from ipsrec_bench.models.configs import LRURecConfig

SLOWEST, FASTEST = 0.99, 0.8
"""The range of |lambda| at the start."""


def linear_recurrence(inputs: Tensor, decay: Tensor) -> Tensor:
    """Return h with h_t = decay * h_{t-1} + inputs_t and h_0 = inputs_0; complex `[B, L, C]`, given `decay [C]`."""
    step, states = 1, inputs
    while step < inputs.shape[1]:
        states = torch.cat([states[:, :step], states[:, step:] + decay * states[:, :-step]], dim=1)
        step, decay = 2 * step, decay * decay
    return states


class LRULayer(nn.Module):
    """The linear recurrence and a feed-forward network, each followed by residual and normalisation."""

    def __init__(self, config: LRURecConfig) -> None:
        """Take the sizes from `config`; draw lambda from a ring in the complex plane."""
        super().__init__()
        d = config.embedding_size
        squares = FASTEST**2 + torch.rand(2 * d) * (SLOWEST**2 - FASTEST**2)  # of |lambda|
        nu, theta = (-0.5 * squares.log()).log(), (2 * math.pi * torch.rand(2 * d)).log()
        self.spectrum = nn.Parameter(torch.stack([nu, theta, 0.5 * (1 - squares).log()]))
        """`[3, 2d]`: nu, theta and gamma."""
        self.input = nn.Linear(d, 4 * d)
        """To the real parts of 2d inputs, then the imaginary ones."""
        self.output = nn.Linear(4 * d, d)
        """From the same parts of states to the real part of the output."""
        self.inner, self.outer = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norm, self.inner_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.recurrent_dropout, self.dropout = Dropout(config.recurrent_dropout), Dropout(config.dropout)

    def forward(self, x: Tensor, last: Histories | None) -> Tensor:
        """Map `[B, L, d]` to `[B, L, d]`, or to `[B, d]` at the last positions of the histories `last`."""
        nu, theta, gamma = self.spectrum.float().exp()
        real, imaginary = (gamma * part.float() for part in self.input(x).chunk(2, dim=-1))
        states = linear_recurrence(torch.complex(real, imaginary), torch.exp(torch.complex(-nu, theta)))
        if last is not None:
            states, x = last.last(states), last.last(x)
        x = self.norm(self.recurrent_dropout(self.output(torch.cat([states.real, states.imag], dim=-1))) + x)
        inner = self.outer(self.dropout(F.gelu(self.inner(x))))
        out: Tensor = self.inner_norm(self.dropout(inner) + x)
        return out


class LRURec(SequentialModel):
    """Linear recurrent units over the item sequence; it does not see providers."""

    mixed_precision = True

    def __init__(self, config: LRURecConfig, sizes: Sizes) -> None:
        """Build the tables for `sizes` and draw the weights, from normal(0, 0.02) up to twice that deviation."""
        super().__init__()
        d = config.embedding_size
        self.item_embedding = nn.Embedding(sizes.items + 1, d, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(sizes.items + 1))
        self.norm, self.dropout = nn.LayerNorm(d), Dropout(config.dropout)
        self.layers = nn.ModuleList(LRULayer(config) for _ in range(config.n_layers))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                for weight in module.parameters(recurse=False):
                    nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
        nn.init.zeros_(self.item_embedding.weight[0].detach())

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        """Return the user view `[B, d + 1]`, or `[B, L, d + 1]` at every position; its last dimension is 1."""
        x = self.norm(self.dropout(self.item_embedding(histories.items)))
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x, histories if index == len(self.layers) and not every_position else None)
        return Views(F.pad(x, (0, 1), value=1.0))

    def item_vectors(self) -> Tensor:
        """Return `[items + 1, d + 1]`: the item embeddings and, last, their biases."""
        return torch.cat([self.item_embedding.weight, self.item_bias[:, None]], dim=1)
