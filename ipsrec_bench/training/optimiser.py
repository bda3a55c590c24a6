"""Adam over a model's weights, with dense or lazy updates of tables."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.suite.schema import Training

MOMENTS = ("mean", "square", "steps")
"""Adam's state of a weight: the mean of its gradients, the mean of their squares, and the number of steps."""


def new_optimiser(model: SequentialModel, training: Training) -> "Optimiser":
    """Return the optimiser that `training` sets, over the weights of `model`."""
    return Optimiser(
        model,
        training.learning_rate,
        weight_decay=training.weight_decay,
        lazy=training.optimiser == "lazy-adam",
    )


class Optimiser:
    """Adam (Kingma and Ba, ICLR 2015), fused; the lazy form updates only those rows of tables that a batch touched.

    With weight decay, it is AdamW (Loshchilov and Hutter, ICLR 2019): every step also shrinks every weight that has a
    gradient by the learning rate times the decay.

    Lazy Adam is a *different optimiser*: an untouched row keeps its weights and its moments, whereas in Adam its
    momentum moves it further and decays. It pays off where a dense pass over a table costs more than the batch,
    that is for tables of a million rows with sparse gradients: providers, users, and items under an approximate
    objective. The exact softmax changes every item in every step, so lazy updates cannot help there.
    """

    def __init__(
        self, model: SequentialModel, learning_rate: float, *, weight_decay: float = 0.0, lazy: bool = False
    ) -> None:
        """Take the weights of `model`, and let its tables have sparse gradients where that is faster.

        Raises:
            ValueError: lazy Adam is asked for weight decay.
        """
        if lazy and weight_decay:
            raise ValueError("lazy Adam has no weight decay")
        self._names = {id(weight): name for name, weight in model.named_parameters()}
        self._weights, self._learning_rate, self._lazy = list(model.parameters()), learning_rate, lazy
        self._weight_decay = weight_decay
        self._dense: _FusedAdam | None = None
        self._lazily: torch.optim.SparseAdam | None = None
        self._sparse: set[int] = set()
        scored = model.item_vectors()
        for module in model.modules():
            # On a CPU, a table that is also scored has a dense gradient anyway. Adding a few rows to it in place is
            # cheaper than a second dense gradient.
            if not isinstance(module, nn.Embedding) or module.scale_grad_by_freq:  # which has no sparse form
                continue
            if lazy or (module.weight is scored and not scored.is_cuda):
                module.sparse = True

    def step(self, loss: Tensor) -> None:
        """Update the weights by the gradient of `loss`."""
        loss.backward()  # type: ignore[no-untyped-call]
        if self._dense is None:
            self._begin({self._names[id(w)] for w in self._weights if w.grad is not None and w.grad.is_sparse})
        for weight in self._weights:
            if weight.grad is not None and weight.grad.is_sparse and id(weight) not in self._sparse:
                weight.grad = weight.grad.to_dense()
        for part in (self._dense, self._lazily):
            if part is not None:
                part.step()
        # As `zero_grad`, without its bookkeeping; gradients are freed before the next loss allocates new ones.
        for weight in self._weights:
            weight.grad = None

    def _begin(self, sparse: Collection[str]) -> None:
        """Divide the weights by their first gradients: if the optimiser is lazy, `sparse` ones are updated lazily."""
        lazily = [weight for weight in self._weights if self._lazy and self._names[id(weight)] in sparse]
        self._sparse = {id(weight) for weight in lazily}
        dense = [w for w in self._weights if id(w) not in self._sparse]
        self._dense = _FusedAdam(dense, self._learning_rate, self._weight_decay)
        if lazily:
            self._lazily = torch.optim.SparseAdam(lazily, lr=self._learning_rate)

    def state(self) -> dict[str, Tensor]:
        """Return the state that the next step depends on, without copying, by `kind/weight`; kinds are `MOMENTS`.

        A weight that is updated lazily has its number of steps under `lazy-steps`.
        """
        found: dict[str, Tensor] = {}
        for weight in self._weights:
            name = self._names[id(weight)]
            if id(weight) in self._sparse:
                assert self._lazily is not None
                of = self._lazily.state[weight]
                found |= {f"mean/{name}": of["exp_avg"], f"square/{name}": of["exp_avg_sq"]}
                found[f"lazy-steps/{name}"] = torch.tensor(of["step"])
            elif self._dense is not None and id(weight) in self._dense.moments:
                for kind, moment in zip(MOMENTS, self._dense.moments[id(weight)], strict=True):
                    found[f"{kind}/{name}"] = moment
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from what `state` returned; to be called before the first step."""
        lazy = {name.removeprefix("lazy-steps/") for name in state if name.startswith("lazy-steps/")}
        self._begin(lazy)
        assert self._dense is not None
        for weight in self._weights:
            name = self._names[id(weight)]
            if f"mean/{name}" not in state:  # it has had no gradient
                continue
            mean, square = (torch.zeros_like(weight).detach().copy_(state[f"{kind}/{name}"]) for kind in MOMENTS[:2])
            if name in lazy:
                assert self._lazily is not None
                steps = int(state[f"lazy-steps/{name}"])
                self._lazily.state[weight] = {"step": steps, "exp_avg": mean, "exp_avg_sq": square}
            else:
                self._dense.moments[id(weight)] = (mean, square, state[f"steps/{name}"].to(weight.device, copy=True))


class _FusedAdam:
    """The same as `torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay, fused=True)`, with its kernel.

    Creating torch's imports its compiler, which takes every process that trains a second.
    """

    def __init__(self, weights: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        self._weights, self._learning_rate, self._weight_decay = weights, learning_rate, weight_decay
        self.moments: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        """By the id of a weight, the parts of `MOMENTS`, from its first gradient on."""

    def step(self) -> None:
        """Update the weights that have a gradient."""
        moved: list[Tensor] = []
        gradients: list[Tensor] = []
        for weight in self._weights:
            if weight.grad is not None:
                moved.append(weight)
                gradients.append(weight.grad)
                if id(weight) not in self.moments:
                    count = torch.zeros((), device=weight.device)
                    self.moments[id(weight)] = (torch.zeros_like(weight), torch.zeros_like(weight), count)
        means, squares, steps = ([self.moments[id(weight)][part] for weight in moved] for part in range(3))
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
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
                decoupled_weight_decay=self._weight_decay > 0,
            )
