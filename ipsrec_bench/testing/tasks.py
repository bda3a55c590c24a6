"""Conformance tests of tasks, as a test case to derive from. They run under pytest but do not import it.

```
class TestMine(TaskCase):
    task = "my_tasks:Mine"
    settings = {"temperature": 0.5}
    model = "sasrec"
    model_settings = {"embedding_size": 8}
```
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER, PreparedDataset
from ipsrec_bench.data.split import Split, leave_one_out, temporal, user_holdout
from ipsrec_bench.models.api import SequentialModel, Sizes
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.models.stages import MAIN, Samples, Stage, TaskUse
from ipsrec_bench.testing import worlds
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.samples import Batch, Windows, windows_of
from ipsrec_bench.training.tasks.api import Task, TrainingStep

ROWS = 24
"""Number of windows in the batch on which a task is tested."""
WIDER = 3
"""Number of columns of padding that are added to a batch."""
DRAWS = 30
"""Number of losses over which means are compared if a task draws random numbers."""
STANDARD_ERRORS = 5.0
"""Largest difference of two such means, in standard errors."""
ROUNDING = 1e-5
"""Largest relative difference of two losses that count as equal."""
SPLITS: Mapping[str, Callable[[PreparedDataset], Split]] = {
    "leave-one-out": leave_one_out,
    "temporal": lambda data: temporal(data, 0.1, 0.1),
    "user-holdout": lambda data: user_holdout(data, 0.2, 0.2),
}


@dataclass(frozen=True, eq=False)
class _Trial:
    """A model, training interactions, and a batch of them on which a task is computed."""

    name: str
    """The kind of samples, for messages."""
    model: SequentialModel
    objective: Callable[[], Objective]
    """Builds the task."""
    sequences: ResidentSequences
    index: TrainingIndex
    windows: Windows
    packed: bool

    @property
    def chosen(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The windows of the batch, of all lengths."""
        count = len(self.windows.ends)
        return np.linspace(0, count - 1, min(count, ROWS)).astype(np.int64)

    @property
    def batch(self) -> Batch:
        """The batch."""
        return self.windows.gather(self.sequences, self.chosen)

    def step(self, batch: Batch, rng: np.random.Generator, objective: Objective) -> TrainingStep:
        """Return the first step of an epoch."""
        for _, _, task in objective.tasks:
            task.begin_epoch(self.model, self.index, rng)
        return TrainingStep(self.model, batch, self.packed, objective.first, index=self.index, rng=rng)

    def loss(self, seed: int = 0, batch: Batch | None = None, objective: Objective | None = None) -> Tensor:
        """Return the weighted loss, drawing from a generator with this seed; the task is freshly built by default."""
        objective = objective or self.objective()
        step = self.step(batch or self.batch, np.random.default_rng(seed), objective)
        return objective.losses(step).total

    def loss_and_gradients(self, seed: int = 0) -> list[Tensor]:
        """Return the loss, and its gradient by every parameter that it depends on."""
        self.model.zero_grad()
        loss = self.loss(seed)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.to_dense() for p in self.model.parameters() if p.grad is not None]
        return [loss.detach(), *gradients]

    @property
    def draws(self) -> bool:
        """Whether the task draws random numbers from the step's generator."""
        rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
        objective = self.objective()
        with torch.no_grad():
            objective.losses(self.step(self.batch, rng, objective))
        return rng.bit_generator.state != untouched.bit_generator.state


class TaskCase:
    """Tests of a task, on every kind of samples that it declares.

    Dropout is off, so that all random draws are the task's own.
    """

    task: ClassVar[str]
    """The task's name in the registry, or `module:Class`."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which it is tested."""
    weight: ClassVar[float] = 1.0
    """Its weight in the loss."""
    model: ClassVar[str] = "sasrec"
    """A model that has what the task needs: its name in the registry, or `module:Class`."""
    model_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings of the model, which should be small. The tasks that they name are not tested."""
    packed: ClassVar[bool] = True
    """Whether the task is tested on packed samples too, if the model packs."""
    splits: ClassVar[tuple[str, ...]] = tuple(SPLITS)
    """The splits under which it must not see held-out interactions."""
    world: ClassVar[str] = "mixture"
    """The world of `ipsrec_bench.testing.worlds` that the samples are from."""

    @property
    def config(self) -> NeuralConfig:
        """The settings of the model, checked; its penalties on weights are off."""
        config = model_entry(self.model).config.model_validate({**self.model_settings, "weight_norm": 0.0})
        assert isinstance(config, NeuralConfig), f"{self.model} is not trained by gradients"
        return config

    def objective(self, samples: Samples) -> Objective:
        """Return an objective that consists of the task alone."""
        use = TaskUse(self.task, self.weight, self.settings)
        return Objective(self.config, Stage((use,), MAIN, samples))

    @property
    def built(self) -> Task[Any]:
        """The task, freshly built."""
        ((_, _, task),) = self.objective(next(iter(self.kinds))[0]).tasks
        return task

    @property
    def kinds(self) -> list[tuple[Samples, bool]]:
        """The kinds of samples that the task declares, and whether they are packed."""
        from ipsrec_bench.own_code import imported
        from ipsrec_bench.training.tasks.registry import task_entry

        declared: frozenset[Samples] = imported(task_entry(self.task).path).samples
        packs = self.packed and model_entry(self.model).packs(self.config)
        found: list[tuple[Samples, bool]] = [(samples, False) for samples in sorted(declared)]
        return [*found, ("targets", True)] if packs and "targets" in declared else found

    def trial(
        self,
        samples: Samples,
        packed: bool,
        split: str = "leave-one-out",
        *,
        other: bool = False,
        shuffled: bool = False,
        length: int = 0,
    ) -> _Trial:
        """Return what the task is computed with.

        Args:
            samples: the kind of samples.
            packed: whether samples are packed.
            split: the split.
            other: whether all held-out interactions are replaced by others.
            shuffled: whether all interactions have another known provider.
            length: maximum length of a history, which is that of the tiny worlds if 0.
        """
        data, length = worlds.build(self.world), length or worlds.MAX_LENGTH
        parts = SPLITS[split](data)
        if other:
            data = worlds.with_other_held_out(data, parts)
        if shuffled:
            known = data.num_providers - UNKNOWN_PROVIDER
            data = replace(data, providers=UNKNOWN_PROVIDER + 1 + (data.providers - UNKNOWN_PROVIDER) % known)
        sequences = ResidentSequences(data, torch.device("cpu"), times=model_entry(self.model).uses_times)
        index = TrainingIndex(data, sequences, parts, length)
        windows = windows_of(samples, data, parts, length, packing=np.random.default_rng(0) if packed else None)
        sizes = Sizes(data.num_users, data.num_items, data.num_providers, max(worlds.LENGTHS) + WIDER)
        torch.manual_seed(0)
        model = build_model(self.model, self.config, sizes).eval()
        assert isinstance(model, SequentialModel)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # so that differences show
        model.prepare(index.log)
        name = "packed targets" if packed else samples
        return _Trial(name, model, lambda: self.objective(samples), sequences, index, windows, packed)

    def trials(self) -> Iterator[_Trial]:
        """Yield what the task is computed with, for every kind of samples."""
        for samples, packed in self.kinds:
            yield self.trial(samples, packed)

    def test_its_loss_is_a_finite_number(self) -> None:
        """The loss is one finite number."""
        for trial in self.trials():
            loss = trial.loss()  # raises ModelError if it is not a scalar
            assert torch.isfinite(loss), f"on {trial.name}, the loss is {loss.item()}"

    def test_it_has_a_gradient(self) -> None:
        """The loss has a finite gradient, which is not zero everywhere."""
        for trial in self.trials():
            _, *gradients = trial.loss_and_gradients()
            assert all(torch.isfinite(gradient).all() for gradient in gradients), f"on {trial.name}, it is not finite"
            assert any(gradient.any() for gradient in gradients), f"on {trial.name}, no parameter has a gradient"

    def test_equal_generators_give_equal_losses(self) -> None:
        """The loss depends on the step's generator, and on no other one and no earlier epoch, bit for bit.

        A killed training that resumes builds its tasks anew.
        """
        for trial in self.trials():
            losses, used = [], trial.objective()
            trial.loss(seed=7, objective=used)
            for seed, objective in ((1, trial.objective()), (2, used)):
                torch.manual_seed(seed)
                np.random.seed(seed)  # noqa: NPY002 (the global generator is meant)
                random.seed(seed)
                losses.append(trial.loss(seed=5, objective=objective))
            assert torch.equal(*losses), f"on {trial.name}, equal generators gave {losses[0]} and {losses[1]}"

    def test_it_draws_from_the_steps_generator_alone(self) -> None:
        """The global generators of torch, numpy and Python are left as they are."""
        for trial in self.trials():
            before = _global_states()
            trial.loss()
            for name, state in _global_states().items():
                assert state == before[name], f"on {trial.name}, it draws from the global generator of {name}"

    def test_the_order_of_the_batch_does_not_matter(self) -> None:
        """The samples in another order have the same loss; if the task draws, the same loss on average."""
        for trial in self.trials():
            turned = trial.windows.gather(trial.sequences, trial.chosen[::-1])
            _assert_alike(trial, trial, trial.batch, turned, "with the samples of the batch in another order")

    def test_padding_changes_nothing(self) -> None:
        """The same histories with more columns of padding have the same loss; if the task draws, on average."""
        for trial in self.trials():
            batch = trial.batch
            _assert_alike(trial, trial, batch, _wider(batch), "with more padding")

    def test_packed_and_prefix_losses_agree(self) -> None:
        """If the loss is a mean over targets, it is the same for packed and for prefix samples of whole histories."""
        if not self.built.per_target or ("targets", True) not in self.kinds:
            raise SkipTest("the loss is no mean over targets, or the model does not pack")
        packed, prefix = (self.trial("targets", way, length=max(worlds.LENGTHS)) for way in (True, False))
        batches = []
        for trial in (packed, prefix):
            users = np.searchsorted(trial.windows.offsets, trial.windows.ends) - 1
            batches.append(trial.windows.gather(trial.sequences, np.flatnonzero(users % 6 == 0)))
        _assert_alike(packed, prefix, batches[0], batches[1], "as prefixes")

    def test_it_leaves_model_and_batch_as_they_are(self) -> None:
        """The task changes no history, which other tasks read too, and neither the model nor its mode."""
        for trial in self.trials():
            batch, untouched = trial.batch, trial.batch
            state = {name: tensor.clone() for name, tensor in trial.model.state_dict().items()}
            trial.loss(batch=batch)
            again = trial.batch
            for name, tensor in _tensors(untouched).items():
                assert torch.equal(tensor, _tensors(batch)[name]), f"on {trial.name}, it changes the batch's {name}"
                assert torch.equal(tensor, _tensors(again)[name]), f"on {trial.name}, it changes the stored {name}"
            for name, tensor in trial.model.state_dict().items():
                assert torch.equal(tensor, state[name]), f"on {trial.name}, it changes {name} of the model"
            assert not trial.model.training, f"on {trial.name}, it puts the model into training mode"

    def test_providers_are_used_as_declared(self) -> None:
        """Other providers change the loss if, and only if, the task declares that it uses them.

        This is skipped if the task declares nothing and the model uses providers.
        """
        from ipsrec_bench.training.tasks.registry import task_entry

        declared, seen = task_entry(self.task).uses_providers, model_entry(self.model).uses_providers
        if seen and not declared:
            raise SkipTest("the model uses providers, whatever the task does")
        moved = [
            not torch.equal(self.trial(samples, packed).loss(), self.trial(samples, packed, shuffled=True).loss())
            for samples, packed in self.kinds
        ]
        assert any(moved) == declared, (
            f"uses_providers = {declared}, but other providers {'change' if any(moved) else 'do not change'} the loss"
        )

    def test_it_never_reads_held_out_interactions(self) -> None:
        """With other items, providers and times in all held-out interactions, loss and gradients are bit-equal."""
        for split in self.splits:
            for samples, packed in self.kinds:
                both = (self.trial(samples, packed, split, other=other) for other in (False, True))
                one, other = (trial.loss_and_gradients() for trial in both)
                assert len(one) == len(other) and all(map(torch.equal, one, other)), (  # noqa: PT018 (one claim)
                    f"on {samples}, the loss or a gradient depends on what the {split} split holds out"
                )


def _assert_alike(one: _Trial, other: _Trial, batch: Batch, changed: Batch, what: str) -> None:
    """Check that two batches have the same loss, or the same mean of losses if the task draws random numbers."""
    with torch.no_grad():
        objective = one.objective()  # once: it may be slow to build
        if not one.draws:
            losses = [float(trial.loss(0, given, objective)) for trial, given in ((one, batch), (other, changed))]
            largest = ROUNDING * max(1.0, *map(abs, losses))
            assert abs(losses[0] - losses[1]) <= largest, f"on {one.name}, the loss is {losses[0]}, {what} {losses[1]}"
            return
        drawn = [
            torch.stack([trial.loss(seed, given, objective).double() for seed in range(first, first + DRAWS)])
            for trial, given, first in ((one, batch, 0), (other, changed, DRAWS))
        ]
    means = [float(losses.mean()) for losses in drawn]
    error = float(sum(losses.var() / DRAWS for losses in drawn)) ** 0.5
    largest = STANDARD_ERRORS * error + ROUNDING * max(1.0, *map(abs, means))
    assert abs(means[0] - means[1]) <= largest, (
        f"on {one.name}, the mean loss is {means[0]}, {what} {means[1]}; the standard error of their difference is"
        f" {error:.2g}"
    )


def _wider(batch: Batch) -> Batch:
    """Return the batch with more columns of padding."""
    old, width = batch.histories, batch.histories.items.shape[1]
    histories = Histories(
        users=old.users,
        items=pad(old.items, (0, WIDER)),
        providers=pad(old.providers, (0, WIDER)),
        lengths=old.lengths,
        times=None if old.times is None else pad(old.times, (0, WIDER)),
        next_times=old.next_times,
    )
    return replace(batch, histories=histories, predicted=batch.predicted + batch.predicted // width * WIDER)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    found = {**vars(batch.histories), **vars(batch)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _global_states() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002 (the global generator is meant)
        "Python": random.getstate(),
    }
