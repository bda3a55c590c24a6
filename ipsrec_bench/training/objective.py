"""The objective of a stage: the weighted sum of the losses of its tasks, and of penalties on the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import SequentialModel
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.stages import Stage
from ipsrec_bench.training.catalogue import CatalogueLoss
from ipsrec_bench.training.samples import Batch
from ipsrec_bench.training.tasks.api import EXACT, Task, TrainingStep
from ipsrec_bench.training.tasks.registry import build_task


@dataclass(frozen=True)
class Losses:
    """Means over a batch; `total` is what is minimised."""

    total: Tensor
    parts: Mapping[str, Tensor]
    """The loss of each task by its name, before its weight; and of the `penalty` with its weight, if there is one."""


class Objective:
    """The tasks of a stage, built."""

    def __init__(self, config: NeuralConfig, stage: Stage) -> None:
        """Build the tasks of `stage`, which belongs to `config`.

        Raises:
            ModelError: a task cannot be computed on the samples of the stage.
        """
        self._weight_norm = config.weight_norm
        self.first = 0 if config.padding_class else 1
        """The first row of the item vectors that is a class."""
        self.tasks: list[tuple[str, float, Task[Any]]] = []
        for use in stage.tasks:
            task = build_task(use)
            if stage.samples not in task.samples:
                raise ModelError(
                    f"the task '{use.name}' is computed on {' or '.join(sorted(task.samples))}, but the stage"
                    f" '{stage.name}' has {stage.samples}"
                )
            self.tasks.append((use.name, use.weight, task))

    def losses(self, step: TrainingStep) -> Losses:
        """Return the losses of one step.

        Raises:
            ModelError: the model does not provide an output that a task needs, or a loss is not a scalar.
        """
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for name, weight, task in self.tasks:
            try:
                loss = task.loss(step)
            except ModelError as error:
                raise ModelError(f"task '{name}': {error}") from error
            if not (isinstance(loss, Tensor) and loss.ndim == 0):
                found = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else f"{type(loss).__name__}"
                raise ModelError(f"task '{name}': its loss must be a tensor without dimensions, but it is {found}")
            parts[name] = loss
            weighted = loss if weight == 1 else weight * loss
            total = weighted if total is None else total + weighted
        assert total is not None
        penalty = step.model.penalty()
        if self._weight_norm:
            norms = self._weight_norm * weight_norms(step.model)
            penalty = norms if penalty is None else penalty + norms
        if penalty is not None:
            parts["penalty"] = penalty
            total = total + penalty
        return Losses(total, parts)


def batch_losses(
    model: SequentialModel,
    config: NeuralConfig,
    batch: Batch,
    *,
    packed: bool,
    catalogue_loss: CatalogueLoss = EXACT,
    dtype: torch.dtype = torch.float32,
) -> Losses:
    """Return the losses of one batch of targets in the main stage, for tasks that look up nothing else.

    Raises:
        ModelError: the model does not provide an output that a task needs.
    """
    objective = Objective(config, config.stages()[-1])
    return objective.losses(TrainingStep(model, batch, packed, objective.first, catalogue_loss, dtype))


def weight_norms(module: nn.Module) -> Tensor:
    """Return the sum of the Euclidean norms of the module's weight tensors, without biases."""
    norms = [p.norm() for name, p in module.named_parameters() if not name.endswith("bias")]
    return torch.stack(norms).sum()
