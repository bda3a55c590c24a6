"""Adam over a model's weights, dense or lazy in its tables."""

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from ipsrec_bench.models.api import SequentialModel


class Optimiser:
    """Adam (Kingma and Ba, ICLR 2015), fused; the lazy form updates only those rows of tables that a batch touched.

    Lazy Adam is a *different optimiser*: a row that is not touched keeps its weights and its moments, where Adam
    would let its momentum move it on and decay. It pays where a dense pass over a table costs more than the batch,
    that is for tables of a million rows whose gradients are sparse: providers, users, and items under an approximate
    objective. The exact softmax moves every item in every step, and no optimiser can be lazy about that.
    """

    def __init__(self, model: SequentialModel, learning_rate: float, *, lazy: bool) -> None:
        """Take the weights of `model`, whose tables are told to give sparse gradients where that pays."""
        self._weights, self._learning_rate, self._lazy = list(model.parameters()), learning_rate, lazy
        self._parts: list[_FusedAdam | torch.optim.SparseAdam] = []
        self._sparse: set[int] = set()
        scored = model.item_vectors()
        for module in model.modules():
            # On a CPU a table that is scored, too, has a dense gradient anyway, to which few rows are added in place:
            # cheaper than a second dense one.
            if not isinstance(module, nn.Embedding) or module.scale_grad_by_freq:  # which has no sparse form
                continue
            if lazy or (module.weight is scored and not scored.is_cuda):
                module.sparse = True

    def step(self, loss: Tensor) -> None:
        """Move the weights against the gradient of `loss`."""
        loss.backward()  # type: ignore[no-untyped-call]
        if not self._parts:
            self._begin()
        for weight in self._weights:
            if weight.grad is not None and weight.grad.is_sparse and id(weight) not in self._sparse:
                weight.grad = weight.grad.to_dense()
        for part in self._parts:
            part.step()
        # What `zero_grad` does, without its bookkeeping, and before the next loss makes its gradients beside these.
        for weight in self._weights:
            weight.grad = None

    def _begin(self) -> None:
        """Part the weights by their first gradients: those that are sparse then are moved lazily, if anything is."""
        sparse = [weight for weight in self._weights if weight.grad is not None and weight.grad.is_sparse]
        if self._lazy:
            self._sparse = {id(weight) for weight in sparse}
        dense = [weight for weight in self._weights if id(weight) not in self._sparse]
        if dense:
            self._parts.append(_FusedAdam(dense, self._learning_rate))
        if self._sparse:
            self._parts.append(torch.optim.SparseAdam(sparse, lr=self._learning_rate))


class _FusedAdam:
    """What `torch.optim.Adam(weights, learning_rate, fused=True)` is, by the same kernel.

    Creating that one imports torch's compiler, which takes a second of every process that trains.
    """

    def __init__(self, weights: list[nn.Parameter], learning_rate: float) -> None:
        self._weights, self._learning_rate = weights, learning_rate
        self._moments: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        """Mean gradient, mean squared gradient and number of steps of a weight, from its first gradient on."""

    def step(self) -> None:
        """Move the weights that have a gradient."""
        moved: list[Tensor] = []
        gradients: list[Tensor] = []
        for weight in self._weights:
            if weight.grad is not None:
                moved.append(weight)
                gradients.append(weight.grad)
                if id(weight) not in self._moments:
                    count = torch.zeros((), device=weight.device)
                    self._moments[id(weight)] = (torch.zeros_like(weight), torch.zeros_like(weight), count)
        means, squares, steps = ([self._moments[id(weight)][part] for weight in moved] for part in range(3))
        with torch.no_grad():
            adam(
                moved,
                gradients,
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self._learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
