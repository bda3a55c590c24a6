"""Conformance tests of models, as test cases to derive from. They run under pytest but do not import it.

```
class TestMine(SequentialModelCase):
    model = "my_models:Mine"
    settings = {"embedding_size": 8}
```
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER, PreparedDataset
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.models.api import CountingModel, Model, SequentialModel, Sizes, TrainingLog, Views
from ipsrec_bench.models.configs import ModelConfig, NeuralConfig
from ipsrec_bench.models.registry import ModelEntry, build_model, model_entry
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.testing import worlds
from ipsrec_bench.training.catalogue import exact
from ipsrec_bench.training.curve import Epoch
from ipsrec_bench.training.fit import Loop, TrainingData, Validation, fit
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.samples import packed_windows, prefix_windows, windows_of
from ipsrec_bench.training.tasks.api import CASTING_PAYS, TrainingStep
from ipsrec_bench.training.weights import load_weights, save_weights

SIZES = Sizes(users=9, items=30, providers=7, max_length=6)
KEY_BIAS = r"(^|\.)key(\.\d+)?\.bias$"


class _EnoughError(Exception):
    """Ends a training that has reached what a test requires."""


class _ModelCase:
    """Tests of both kinds of models."""

    model: ClassVar[str]
    """The model's name in the registry, or `module:Class`."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Settings with which it is tested; they should be small."""
    world: ClassVar[str] = "cycle"
    """The world of `ipsrec_bench.testing.worlds` that the model must learn."""
    training: ClassVar[Training] = Training(epochs=60, batch_size=128, learning_rate=1e-2, patience=60)
    """Settings of its training in that world."""
    least_mrr: ClassVar[float] = 0.9

    @property
    def entry(self) -> ModelEntry:
        """What the model declares."""
        return model_entry(self.model)

    @property
    def config(self) -> ModelConfig:
        """The settings under test, checked."""
        return self.entry.config.model_validate(dict(self.settings))

    def build(self, sizes: Sizes = SIZES, seed: int = 0) -> Model:
        """Return the model with weights drawn from `seed`, in evaluation mode."""
        torch.manual_seed(seed)
        return build_model(self.model, self.config, sizes).eval()

    def resident(self, data: PreparedDataset) -> ResidentSequences:
        """Return the sequences of `data` on the CPU, with what the model needs."""
        return ResidentSequences(data, torch.device("cpu"), times=self.entry.uses_times)

    def train(self, folder: Path, epochs: int, enough: float = inf) -> tuple[Model, float]:
        """Train on the world, in `folder`, and return the model with its MRR on the test targets.

        Training ends after `epochs`, or once the MRR on the validation targets is above `enough`.
        """
        data = worlds.build(self.world)
        sizes = Sizes(data.num_users, data.num_items, data.num_providers, worlds.MAX_LENGTH)
        model = self.build(sizes)
        sequences, split = self.resident(data), leave_one_out(data)

        def mrr(part: str) -> float:
            targets = split.test if part == "test" else split.valid
            ranks = rank_targets(model, data, sequences, targets, worlds.MAX_LENGTH)
            return float(metric(f"mrr@{data.num_items}", ranks.realistic).mean())

        def stop_at_enough(epoch: Epoch) -> None:
            if epoch.valid is not None and epoch.valid > enough:
                raise _EnoughError

        with contextlib.suppress(_EnoughError):
            fit(
                model,
                self.config,
                TrainingData(data, sequences, split),
                self.training.model_copy(update={"epochs": epochs}),
                Loop(
                    packed=self.entry.packs(self.config),
                    max_length=worlds.MAX_LENGTH,
                    seed=0,
                    validate=lambda: Validation(mrr("valid")),
                    checkpoint=folder / "best.safetensors",
                    on_epoch=stop_at_enough,
                ),
            )
        return model, mrr("test")

    def test_it_learns_a_world_where_the_next_item_is_certain(self) -> None:
        """Trained, the model ranks nearly every held-out item of the world first."""
        with tempfile.TemporaryDirectory() as folder:
            _, mrr = self.train(Path(folder), self.training.epochs, enough=0.99)
        assert mrr > self.least_mrr, f"MRR {mrr:.3f} in the world '{self.world}'; expected above {self.least_mrr}"

    def test_training_is_deterministic(self) -> None:
        """Two trainings from one seed leave the same tensors, bit for bit."""
        states = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                states.append(self.train(Path(folder), epochs=3)[0].state_dict())
        for name in states[0]:
            assert torch.equal(states[0][name], states[1][name]), f"{name} differs between two equal trainings"


class SequentialModelCase(_ModelCase):
    """Tests of a model trained by gradient descent."""

    without_gradient: ClassVar[str] = KEY_BIAS
    """Regular expression of the names of parameters that rightly have a gradient of zero. A bias of attention keys
    shifts all scores of a query equally, to which softmax is invariant."""

    @property
    def causal(self) -> bool:
        """Whether the model with these settings is used at every position."""
        return self.entry.packs(self.config)

    reads_histories: ClassVar[bool] = True
    """Whether views depend on the history; not if they depend on the user's number alone."""

    def build_large(self, sizes: Sizes = SIZES) -> SequentialModel:
        """Return the model with weights larger than at the start, so that differences show."""
        model = self.build(sizes)
        assert isinstance(model, SequentialModel), f"{self.model} is not a SequentialModel"
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return model

    def stage_losses(
        self, model: SequentialModel, data: PreparedDataset, samples: int, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """Yield the loss of each stage on its first `samples` prefixes, histories or interactions of `data`.

        If there are fewer, they are repeated.
        """
        config, split, sequences = self.config, leave_one_out(data), self.resident(data)
        assert isinstance(config, NeuralConfig)
        index = TrainingIndex(data, sequences, split, SIZES.max_length)
        model.prepare(index.log)
        for stage in config.stages():
            objective, rng = Objective(config, stage), np.random.default_rng(0)
            windows = windows_of(stage.samples, data, split, SIZES.max_length, stride=stage.stride)
            for _, _, task in objective.tasks:
                task.begin_epoch(model, index, rng)
            batch = windows.gather(sequences, np.resize(np.arange(len(windows.ends)), samples))
            yield objective.losses(
                TrainingStep(model, batch, False, objective.first, exact(dtype), dtype, index, rng)
            ).total

    def test_shapes(self) -> None:
        """Views are [B, d], or [B, L, d] at every position; item vectors are [items + 1, d]."""
        model, batch = self.build_large(), _histories((6, 1, 4))
        d = model.item_vectors().shape[1]
        assert model.item_vectors().shape == (SIZES.items + 1, d)
        for view in _views(model, batch):
            assert view.shape == (3, d), f"a view at the last position has the shape {tuple(view.shape)}"
        if self.causal:
            for view in _views(model, batch, every_position=True):
                assert view.shape == (3, 6, d), f"a view at every position has the shape {tuple(view.shape)}"

    def test_padding_changes_nothing(self) -> None:
        """A history has the same views alone and padded in a batch with longer ones."""
        model, lengths = self.build_large(), (6, 1, 4, 2)
        batch = _histories(lengths)
        for row, length in enumerate(lengths):
            alone = _rows(batch, row, length)
            for padded, tight in zip(_views(model, batch), _views(model, alone), strict=True):
                torch.testing.assert_close(padded[row], tight[0], rtol=1e-5, atol=1e-5)

    def test_no_position_sees_the_future(self) -> None:
        """Changing later items, providers or times leaves all earlier outputs unchanged, bit for bit.

        The time of the next interaction is known: it is when a position is asked for its prediction.
        """
        if not self.causal:
            raise SkipTest("with these settings, the model is not used at every position")
        model, batch = self.build_large(), _histories((6, 6, 6))
        for position in range(1, 6):
            changed = _changed(batch, items_from=position, providers_from=position, times_from=position + 1)
            for before, after in _both(model, batch, changed, every_position=True):
                assert torch.equal(before[:, :position], after[:, :position]), f"a position before {position} sees it"
                assert not torch.equal(before[:, position:], after[:, position:]), f"it ignores position {position}"

    def test_last_position_equals_that_position_of_all(self) -> None:
        """The views at the last position equal those of a pass over every position, up to rounding."""
        if not self.causal:
            raise SkipTest("with these settings, the model is not used at every position")
        model, batch = self.build_large(), _histories((6, 1, 4))
        for last, every in zip(_views(model, batch), _views(model, batch, every_position=True), strict=True):
            torch.testing.assert_close(last, batch.last(every), rtol=1e-5, atol=1e-5)

    def test_packed_and_prefix_losses_agree(self) -> None:
        """One pass over all positions has the losses of one sample per prefix, if windows hold whole histories."""
        if not self.causal:
            raise SkipTest("with these settings, the model is not used at every position")
        config = self.config
        assert isinstance(config, NeuralConfig)
        data = worlds.build(self.world)
        length = max(worlds.LENGTHS)
        model = self.build_large(Sizes(data.num_users, data.num_items, data.num_providers, length))
        sequences, split = self.resident(data), leave_one_out(data)
        objective, losses = Objective(config, config.stages()[-1]), []
        whole_histories = packed_windows(data, split, length, 0, np.random.default_rng(0))
        for packed, windows in ((True, whole_histories), (False, prefix_windows(data, split, length))):
            whole = windows.gather(sequences, torch.arange(len(windows.ends)).numpy())
            index = TrainingIndex(data, sequences, split, length)
            with torch.no_grad():
                step = TrainingStep(model, whole, packed, objective.first, index=index)
                losses.append(objective.losses(step).parts)
        for name, _, task in objective.tasks:
            if task.per_target:
                packed_loss, prefix_loss = (part[name] for part in losses)
                torch.testing.assert_close(packed_loss, prefix_loss, rtol=0, atol=1e-5)

    def test_bfloat16_products_change_little(self) -> None:
        """If the model declares mixed precision, gradients with products in bfloat16 have nearly the same direction."""
        config = self.config
        assert isinstance(config, NeuralConfig)
        found = []
        data = worlds.build(self.world)
        sizes = Sizes(data.num_users, data.num_items, data.num_providers, SIZES.max_length)
        for dtype in (torch.float32, torch.bfloat16):
            model = self.build(sizes)
            assert isinstance(model, SequentialModel)
            for loss in self.stage_losses(model, data, CASTING_PAYS, dtype):  # enough tokens to be cast
                loss.backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            found.append(torch.cat(gradients))
        gradient, rounded_gradient = found
        cosine = torch.nn.functional.cosine_similarity(gradient, rounded_gradient, dim=0)
        least = 0.99
        assert cosine > least, f"the cosine of the gradients is {cosine:.4f}"

    def test_gradients_with_dropout_are_finite(self) -> None:
        """In training mode, with a batch that is filled up for products in bfloat16, every gradient is finite."""
        data = worlds.build(self.world)
        model = self.build(Sizes(data.num_users, data.num_items, data.num_providers, SIZES.max_length))
        assert isinstance(model, SequentialModel)
        for loss in self.stage_losses(model.train(), data, CASTING_PAYS, torch.bfloat16):
            loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            finite = parameter.grad is None or bool(torch.isfinite(parameter.grad.to_dense()).all())
            assert finite, f"the gradient of {name} is not finite"

    def test_asking_twice_gives_the_same(self) -> None:
        """Equal histories have equal views, bit for bit, and `encode` has no side effects."""
        model, batch = self.build_large(), _histories((6, 1, 4))
        for first, second in _both(model, batch, batch):
            assert torch.equal(first, second)

    def test_a_seed_fixes_the_weights(self) -> None:
        """Weights depend only on torch's generator."""
        one, same, other = (self.build(seed=seed).state_dict() for seed in (3, 3, 4))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one), "weights do not depend on the seed"

    def test_gradient_reaches_every_parameter(self) -> None:
        """The training loss has a gradient for every parameter, except those declared in `without_gradient`."""
        data = worlds.build("cycle")
        model = self.build_large(Sizes(data.num_users, data.num_items, data.num_providers, SIZES.max_length))
        for loss in self.stage_losses(model, data, 64):
            loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if not re.search(self.without_gradient, name):
                assert parameter.grad is not None, f"{name} takes no part in the loss"
                assert parameter.grad.abs().sum() > 0, f"the gradient of {name} is zero"

    def test_saved_weights_come_back(self) -> None:
        """A model loaded from saved weights has the same views and item vectors, bit for bit."""
        model, batch = self.build_large(), _histories((6, 1, 4))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            save_weights(model, path)
            loaded = self.build(seed=1)
            load_weights(loaded, path)
        assert isinstance(loaded, SequentialModel)
        assert torch.equal(model.item_vectors(), loaded.item_vectors())
        for before, after in zip(_views(model, batch), _views(loaded, batch), strict=True):
            assert torch.equal(before, after)

    def test_histories_and_users_are_read_as_declared(self) -> None:
        """Other items change a view unless `reads_histories` is false; other users do if the model declares users."""
        model, batch = self.build_large(), _histories((6, 5, 6))
        others = replace(batch, users=batch.users.flip(0))
        for what, changed, declared in (
            ("items", _changed(batch, items_from=0, providers_from=6), self.reads_histories),
            ("users", others, self.entry.uses_users),
        ):
            moved = [not torch.equal(before[0], after[0]) for before, after in _both(model, batch, changed)]
            assert any(moved) == declared, (
                f"other {what} {'change' if any(moved) else 'do not change'} the views, which is not what is declared"
            )

    def test_providers_are_used_as_declared(self) -> None:
        """Changing the providers changes a view or a loss if, and only if, the model declares that it uses them."""
        model, batch = self.build_large(), _histories((6, 5, 6))
        changed = _changed(batch, items_from=6, providers_from=0)
        moved = any(not torch.equal(before, after) for before, after in _both(model, batch, changed))
        moved = moved or self._losses_depend_on_providers()
        assert moved == self.entry.uses_providers, (
            f"uses_providers = {self.entry.uses_providers}, but other providers"
            f" {'change' if moved else 'do not change'} the views and losses"
        )

    def _losses_depend_on_providers(self) -> bool:
        """Return whether the loss of a stage changes with the providers of the training interactions."""
        with torch.no_grad():
            data = worlds.build(self.world)
            known = data.num_providers - UNKNOWN_PROVIDER
            others = replace(data, providers=UNKNOWN_PROVIDER + 1 + (data.providers - UNKNOWN_PROVIDER) % known)
            model = self.build_large(Sizes(data.num_users, data.num_items, data.num_providers, SIZES.max_length))
            before, after = (list(self.stage_losses(model, one, 64)) for one in (data, others))
        return any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


class CountingModelCase(_ModelCase):
    """Tests of a counting model."""

    def fitted(self, seed: int = 0) -> CountingModel:
        """Return the model fitted on a small random log."""
        model = self.build()
        assert isinstance(model, CountingModel), f"{self.model} is not a CountingModel"
        generator = torch.Generator().manual_seed(seed)
        users = torch.arange(SIZES.users).repeat_interleave(12)
        items, providers = (
            torch.randint(1, top + 1, (len(users),), generator=generator, dtype=torch.int32)
            for top in (SIZES.items, SIZES.providers)
        )
        times = torch.arange(12).repeat(SIZES.users)
        model.fit(TrainingLog(users.numpy(), items.numpy(), providers.numpy(), times.numpy()))
        return model

    def test_shapes(self) -> None:
        """The background is float64 [items + 1]; no pair of row and item is picked twice, padding never."""
        model, batch = self.fitted(), _histories((6, 1, 4))
        assert model.background.shape == (SIZES.items + 1,)
        assert model.background.dtype == torch.float64
        picked = model.pick(batch)
        assert picked.rows.shape == picked.items.shape == picked.scores.shape
        assert picked.scores.dtype == torch.float64
        found = list(zip(picked.rows.tolist(), picked.items.tolist(), strict=True))
        assert len(set(found)) == len(found), "a pair of row and item is picked twice"
        assert all(0 <= row < len(batch.items) and 1 <= item <= SIZES.items for row, item in found)

    def test_padding_changes_nothing(self) -> None:
        """A history has the same scores alone and padded in a batch with longer ones."""
        model, lengths = self.fitted(), (6, 1, 4, 2)
        batch = _histories(lengths)
        together = _scores(model, batch)
        for row, length in enumerate(lengths):
            torch.testing.assert_close(together[row], _scores(model, _rows(batch, row, length))[0])

    def test_saved_tables_come_back(self) -> None:
        """A model loaded from saved tables gives the same scores, bit for bit."""
        model, batch = self.fitted(), _histories((6, 1, 4))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tables.safetensors"
            save_weights(model, path)
            loaded = self.build()
            load_weights(loaded, path)
        assert isinstance(loaded, CountingModel)
        assert torch.equal(_scores(model, batch), _scores(loaded, batch))

    def test_providers_are_used_as_declared(self) -> None:
        """Changing the providers changes scores if, and only if, the model declares that it uses them."""
        model, batch = self.fitted(), _histories((6, 5, 6))
        changed = _changed(batch, items_from=6, providers_from=0)
        moved = not torch.equal(_scores(model, batch), _scores(model, changed))
        assert moved == self.entry.uses_providers, (
            f"uses_providers = {self.entry.uses_providers}, but other providers"
            f" {'change' if moved else 'do not change'} the scores"
        )


def _histories(lengths: tuple[int, ...]) -> Histories:
    """Return random histories of these lengths."""
    generator = torch.Generator().manual_seed(1)
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    items, providers = (
        torch.randint(1, top + 1, real.shape, generator=generator) * real for top in (SIZES.items, SIZES.providers)
    )
    times = torch.randint(1, 1000, real.shape, generator=generator).cumsum(dim=1).double()
    ends = torch.tensor(lengths)
    return Histories(torch.arange(len(lengths)), items, providers, ends, times * real, times[:, -1] + 1000)


def _rows(batch: Histories, row: int, length: int) -> Histories:
    one = slice(row, row + 1)
    assert batch.times is not None
    assert batch.next_times is not None
    return Histories(
        batch.users[one],
        batch.items[one, :length],
        batch.providers[one, :length],
        batch.lengths[one],
        batch.times[one, :length],
        batch.next_times[one],
    )


def _changed(batch: Histories, items_from: int, providers_from: int, times_from: int | None = None) -> Histories:
    """Return the histories with other items, other providers and, if asked for, later times from these positions on."""
    items, providers = batch.items.clone(), batch.providers.clone()
    for ids, top, begin in ((items, SIZES.items, items_from), (providers, SIZES.providers, providers_from)):
        ids[:, begin:] = torch.where(ids[:, begin:] > 0, ids[:, begin:] % top + 1, 0)
    batch = replace(batch, items=items, providers=providers)
    if times_from is None:
        return batch
    assert batch.times is not None
    assert batch.next_times is not None
    times = batch.times.clone()
    # The first of them comes just after the one before it, so that the shortest interval is another one, too.
    before, first = times[:, times_from - 1 : times_from], times[:, times_from : times_from + 1]
    times[:, times_from:] += before - first + 1e-3
    return replace(batch, times=times * (batch.items > 0), next_times=batch.next_times + 1000)


def _views(model: SequentialModel, batch: Histories, *, every_position: bool = False) -> list[Tensor]:
    with torch.no_grad():
        views: Views = model.encode(batch, every_position=every_position)
    return [view for view in (views.user, views.provider) if view is not None]


def _both(
    model: SequentialModel, first: Histories, second: Histories, *, every_position: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Return each view of the first histories beside that of the second."""
    one, other = (_views(model, batch, every_position=every_position) for batch in (first, second))
    return list(zip(one, other, strict=True))


def _scores(model: CountingModel, batch: Histories) -> Tensor:
    """Return all scores, float64 `[B, items + 1]`."""
    picked = model.pick(batch)
    scores = model.background.repeat(len(batch.items), 1)
    scores[picked.rows, picked.items] = picked.scores
    return scores
