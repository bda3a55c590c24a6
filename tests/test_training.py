"""Training: samples, losses, and the loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training.fit import fit
from ipsrec_bench.training.objective import batch_losses, item_to_provider
from ipsrec_bench.training.samples import packed_windows, prefix_windows

CPU = torch.device("cpu")
WINDOWS = {"prefix": prefix_windows, "packed": packed_windows}


def all_samples(windows, data, batch_size=50):
    """Return every (history as the model sees it, target) of an epoch."""
    sequences = ResidentSequences(data, CPU)
    found = []
    for chosen in windows.batches(batch_size, np.random.default_rng(0)):
        batch = windows.gather(sequences, chosen)
        rows, positions = batch.predicted.nonzero(as_tuple=True)
        assert len(rows) == len(batch.targets)
        for row, position, target in zip(rows.tolist(), positions.tolist(), batch.targets.tolist(), strict=True):
            history = batch.histories.items[row, : position + 1].tolist()
            found.append((int(batch.histories.users[row]), tuple(history), target))
    return found


def expected_targets(data):
    split = leave_one_out(data)
    return sorted(
        (user, int(data.items[position]))
        for user, (start, end) in enumerate(zip(data.offsets[:-1], split.train_ends, strict=True))
        for position in range(start + 1, end)
    )


@pytest.mark.parametrize("way", WINDOWS)
@pytest.mark.parametrize("max_length", [1, 2, 3, 7, 50])
def test_every_training_target_is_predicted_once(world, way, max_length):
    windows = WINDOWS[way](world, leave_one_out(world), max_length)
    samples = all_samples(windows, world)
    assert sorted((user, target) for user, _, target in samples) == expected_targets(world)
    assert windows.targets == len(samples)


@pytest.mark.parametrize("max_length", [1, 2, 5, 8])
def test_a_packed_target_keeps_half_the_window(world, max_length):
    split = leave_one_out(world)
    exact = {}
    for user, history, target in all_samples(prefix_windows(world, split, 10**6), world):
        exact.setdefault((user, target), []).append(history)
    for user, history, target in all_samples(packed_windows(world, split, max_length), world):
        candidates = [h for h in exact[user, target] if h[-len(history) :] == history]
        assert candidates
        assert any(len(history) >= min(len(h), max_length - max_length // 2) for h in candidates)
        assert len(history) <= max_length


def test_prefix_and_packed_are_the_same_samples_within_the_window(world):
    split = leave_one_out(world)
    prefix = all_samples(prefix_windows(world, split, 50), world)
    packed = all_samples(packed_windows(world, split, 50), world)
    assert sorted(prefix) == sorted(packed)


def test_batches_hold_about_the_targets_asked_for_and_depend_on_the_seed(world):
    windows = prefix_windows(world, leave_one_out(world), 8)
    sizes = [len(batch) for batch in windows.batches(64, np.random.default_rng(1))]
    assert max(sizes) == 64
    assert sum(size < 64 for size in sizes) <= 1
    one, two, other = (windows.batches(64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["sasrec", "ipsrec-s", "ipsrec-c"])
def test_packed_and_prefix_losses_agree(world, name):
    config = model_entry(name).config.model_validate({"embedding_size": 8, "inner_size": 16})
    sizes = Sizes(world.num_items, world.num_providers, 50)
    torch.manual_seed(0)
    model = build_model(name, config, sizes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    sequences, split = ResidentSequences(world, CPU), leave_one_out(world)
    totals = []
    for way, make in WINDOWS.items():
        windows = make(world, split, 50)
        whole = windows.gather(sequences, np.arange(len(windows.ends)))
        with torch.no_grad():
            totals.append(batch_losses(model, config, whole, packed=way == "packed"))
    prefix, packed = totals
    assert abs(prefix.total - packed.total) < 1e-5
    assert (prefix.contrastive is None) == (name == "sasrec")
    if prefix.contrastive is not None:
        assert abs(prefix.contrastive - packed.contrastive) < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.floats(0.1, 5))
def test_the_contrastive_loss_is_equation_12(owners, tau):
    generator = torch.Generator().manual_seed(len(owners))
    user, provider = torch.randn(2, len(owners), 4, generator=generator, dtype=torch.float64)
    expected = 0.0
    for i, owner in enumerate(owners):
        positive = torch.exp(user[i] @ provider[i] / tau)
        negatives = sum(torch.exp(user[i] @ provider[j] / tau) for j in range(len(owners)) if owners[j] != owner)
        expected += -torch.log(positive / (positive + negatives))
    found = item_to_provider(user, provider, torch.tensor(owners), tau)
    torch.testing.assert_close(found, expected / len(owners))


def run_fit(world, tmp_path, validations, epochs=10, patience=2, name="sasrec", seed=1, lr=1e-3):
    config = model_entry(name).config.model_validate({"embedding_size": 8, "inner_size": 16})
    torch.manual_seed(seed)
    model = build_model(name, config, Sizes(world.num_items, world.num_providers, 8))
    seen, states = iter(validations), []

    def validate() -> float:
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(seen)

    epochs_seen = []
    fitted = fit(
        model,
        config,
        world,
        ResidentSequences(world, CPU),
        leave_one_out(world),
        Training(epochs=epochs, patience=patience, batch_size=64, learning_rate=lr),
        packed=True,
        max_length=8,
        seed=seed,
        validate=validate,
        checkpoint=tmp_path / "best.safetensors",
        on_step=lambda _: None,
        on_epoch=epochs_seen.append,
    )
    assert tuple(epochs_seen) == fitted.epochs
    return model, fitted, states


def test_training_stops_by_patience_and_keeps_the_best_weights(world, tmp_path):
    model, fitted, states = run_fit(world, tmp_path, [0.1, 0.3, 0.2, 0.3, 0.9])
    assert (fitted.best_epoch, fitted.best_valid, len(fitted.epochs)) == (2, 0.3, 4)
    assert all(torch.equal(v, states[1][k]) for k, v in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_training_is_reproducible_and_learns(world, tmp_path):
    flat = [0.0] * 30
    one, first, _ = run_fit(world, tmp_path, flat, epochs=8, patience=9, name="ipsrec-c")
    two, second, _ = run_fit(world, tmp_path, flat, epochs=8, patience=9, name="ipsrec-c")
    other, _, _ = run_fit(world, tmp_path, flat, epochs=8, patience=9, name="ipsrec-c", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert [e.loss for e in first.epochs] == [e.loss for e in second.epochs]
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert first.epochs[-1].cross_entropy < first.epochs[0].cross_entropy


def test_a_loss_that_is_no_number_is_an_error(world, tmp_path):
    from ipsrec_bench.errors import ModelError

    with pytest.raises(ModelError, match="the training loss is not finite in step"):
        run_fit(world, tmp_path, [0.0] * 50, epochs=40, patience=50, lr=1e20)
