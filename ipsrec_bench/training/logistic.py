"""Binary cross-entropy against all of many vectors, of which at most one is the positive.

With labels y in {0, 1}, the loss of a logit x is softplus(x) - y x. The sum of softplus over all logits needs every
product, but neither labels nor products need be in memory: both are processed in tiles, which also give the gradients.
Here a tile is done in one pass, because its share in the sum does not depend on the others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, TILE = 256, 2048
"""Number of states, and of vectors, at a time: a tile of their logits stays in a CPU's cache."""
CUDA_ROWS, CUDA_TILE = 4096, 8192
"""The same on CUDA: 128 MB of logits in float32."""
SHAPES = 64
"""States are padded to a multiple of this for products in bfloat16: oneDNN compiles a kernel for every new shape."""


def binary_cross_entropy_sum(states: Tensor, vectors: Tensor, own: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the sum over all pairs of -log sigmoid(x) where the vector is the state's own, else -log(1 - sigmoid(x)).

    The logit x of a pair is its dot product.

    Args:
        states: `[N, d]`.
        vectors: `[P, d]`.
        own: int64 `[N]`, rows of `vectors`; a state with a negative number has no own vector.
        dtype: dtype of the factors of matrix products; sums and gradients are float32.
    """
    loss: Tensor = _LogisticLoss.apply(states.float(), vectors.float(), own, dtype)  # type: ignore[no-untyped-call]
    return loss


class _LogisticLoss(torch.autograd.Function):
    """Computes gradients in the forward pass, while the logits exist, and returns them in the backward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, states: Tensor, vectors: Tensor, own: Tensor, dtype: torch.dtype
    ) -> Tensor:
        rows, size = (CUDA_ROWS, CUDA_TILE) if states.is_cuda else (ROWS, TILE)
        wanted = any(ctx.needs_input_grad[:2])  # type: ignore[attr-defined]
        total = torch.zeros((), dtype=torch.float64, device=states.device)
        by_state, by_vector = torch.zeros_like(states), torch.zeros_like(vectors)
        tiles = [vectors[begin : begin + size].to(dtype) for begin in range(0, len(vectors), size)]
        for first in range(0, len(states), rows):
            block = states[first : first + rows]
            count = len(block)
            factors = F.pad(block, (0, 0, 0, -count % SHAPES)).to(dtype) if dtype != torch.float32 else block
            for number, tile in enumerate(tiles):
                logits = (factors @ tile.T).float()
                total += F.softplus(logits[:count]).sum()
                if wanted:
                    shares = logits.sigmoid_().to(dtype)
                    shares[count:] = 0
                    by_state[first : first + count] += (shares @ tile)[:count]
                    by_vector[number * size : number * size + len(tile)] += shares.T @ factors
        has = (own >= 0).nonzero()[:, 0]
        own_states, own_vectors = states[has], vectors[own[has]]
        total -= (own_states * own_vectors).sum()
        if wanted:
            by_state.index_add_(0, has, own_vectors, alpha=-1)
            by_vector.index_put_((own[has],), -own_states, accumulate=True)  # deterministic on CUDA, too
        ctx.save_for_backward(by_state, by_vector)
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_state, by_vector = ctx.saved_tensors  # type: ignore[attr-defined]
        return by_state * gradient, by_vector * gradient, None, None
