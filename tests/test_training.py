"""Training: samples, losses, and the loop."""

import dataclasses
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.errors import ModelError, SuiteError
from ipsrec_bench.kernels.dropout import Dropout
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.training import softmax
from ipsrec_bench.training.catalogue import bce, bce_loss, gbce, gbce_power, sampled_softmax, scored, softmax_loss
from ipsrec_bench.training.contrast import contrastive_loss
from ipsrec_bench.training.fit import Loop, TrainingData, Validation, fit
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.optimiser import Optimiser, _FusedAdam
from ipsrec_bench.training.samples import packed_windows, prefix_windows
from ipsrec_bench.training.softmax import full_cross_entropy
from ipsrec_bench.training.tasks.provider_prediction import provider_loss
from ipsrec_bench.training.weights import load_weights, save_weights

from .conftest import TINY_SUITE

CPU = torch.device("cpu")


def packed(data, split, max_length, min_context=0, seed=0):
    return packed_windows(data, split, max_length, min_context, np.random.default_rng(seed))


WINDOWS = {"prefix": prefix_windows, "packed": packed}


def all_samples(windows, data, batch_size=50):
    """Return every (history as the model sees it, target) of an epoch."""
    sequences = ResidentSequences(data, CPU)
    found = []
    for chosen in windows.batches(batch_size, np.random.default_rng(0)):
        batch = windows.gather(sequences, chosen)
        width = batch.histories.items.shape[1]
        rows, positions = batch.predicted // width, batch.predicted % width
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
@pytest.mark.parametrize("min_context", [0, 1, 4, 20])
def test_packed_windows_predict_every_target_once_with_its_context(world, max_length, min_context):
    split = leave_one_out(world)
    exact = {}
    for user, history, target in all_samples(prefix_windows(world, split, 10**6), world):
        exact.setdefault((user, target), []).append(history)
    samples = all_samples(packed(world, split, max_length, min_context), world)
    assert sorted((user, target) for user, _, target in samples) == expected_targets(world)
    for user, history, target in samples:
        candidates = [h for h in exact[user, target] if h[-len(history) :] == history]
        assert candidates
        assert any(len(history) >= min(len(h), max_length, min_context + 1) for h in candidates)
        assert len(history) <= max_length


def test_prefix_and_packed_are_the_same_samples_within_the_window(world):
    split = leave_one_out(world)
    prefix = all_samples(prefix_windows(world, split, 50), world)
    assert sorted(prefix) == sorted(all_samples(packed(world, split, 50), world))


def test_over_the_epochs_a_target_is_predicted_from_every_context(world):
    split, seen = leave_one_out(world), {}
    longest = int(np.argmax(np.diff(world.offsets)))
    for epoch in range(60):
        for user, history, target in all_samples(packed(world, split, 4, seed=epoch), world):
            if user == longest:
                seen.setdefault(target, set()).add(len(history))
    first = int(world.offsets[longest])
    late = int(world.items[first + 9])
    assert seen[late] == {1, 2, 3, 4}
    assert all_samples(packed(world, split, 4, seed=3), world) == all_samples(packed(world, split, 4, seed=3), world)


def test_batches_hold_about_the_targets_asked_for_and_depend_on_the_seed(world):
    windows = prefix_windows(world, leave_one_out(world), 8)
    sizes = [len(batch) for batch in windows.batches(64, np.random.default_rng(1))]
    assert max(sizes) == 64
    assert sum(size < 64 for size in sizes) <= 1
    one, two, other = (windows.batches(64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    targets=st.integers(1, 40),
    items=st.integers(2, 70),
    d=st.integers(1, 9),
    first=st.integers(0, 1),
    rows=st.integers(1, 50),
    tile=st.integers(1, 80),
    kept=st.integers(0, 9000),
)
def test_the_tiled_cross_entropy_is_the_plain_one(targets, items, d, first, rows, tile, kept):
    """Loss and gradients, for any tile and any number kept, also if the loss is a term of a weighted sum."""
    generator = torch.Generator().manual_seed(targets)
    users, table = torch.randn(targets, d, generator=generator), torch.randn(items, d, generator=generator)
    wanted = torch.randint(first, items, (targets,), generator=generator)
    found = []
    for tiled in (True, False):
        u, v = users.clone().requires_grad_(), table.clone().requires_grad_()
        if tiled:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(softmax, "ROWS", rows)
                patch.setattr(softmax, "TILE", tile)
                patch.setattr(softmax, "KEPT", kept)
                loss = full_cross_entropy(u, v, wanted, first=first, dtype=torch.float32)
        else:
            loss = torch.nn.functional.cross_entropy(u @ v[first:].T, wanted - first)
        (3 * loss + u.sum()).backward()
        found.append((loss.detach(), u.grad, v.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_the_number_of_kept_tiles_changes_nothing_in_float32(monkeypatch):
    torch.manual_seed(0)
    users, table, wanted = torch.randn(64, 8), torch.randn(5000, 8), torch.randint(1, 5000, (64,))
    found = []
    for kept in (0, 64 * softmax.TILE * 4, softmax.KEPT):  # none, the first of three, all
        monkeypatch.setattr(softmax, "KEPT", kept)
        u, v = users.clone().requires_grad_(), table.clone().requires_grad_()
        full_cross_entropy(u, v, wanted, first=1, dtype=torch.float32).backward()
        found.append((u.grad, v.grad))
    for gradients in found[1:]:
        assert all(torch.equal(ours, wanted) for ours, wanted in zip(gradients, found[0], strict=True))


def test_bfloat16_losses_of_a_nearly_certain_model_are_not_negative():
    users = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    users *= 6 / users.norm(dim=1, keepdim=True)
    loss = full_cross_entropy(users, users, torch.arange(300), first=0, dtype=torch.bfloat16)
    assert 0 <= loss < 1e-4


def test_bfloat16_factors_change_gradients_by_thousandths():
    torch.manual_seed(0)
    wanted, gradients = torch.randint(1, 5000, (700,)), []  # three blocks of targets
    users, table = torch.randn(700, 64), torch.randn(5000, 64) * 0.3
    for dtype in (torch.float32, torch.bfloat16):
        u, v = users.clone().requires_grad_(), table.clone().requires_grad_()
        full_cross_entropy(u, v, wanted, first=1, dtype=dtype).backward()
        gradients.append((u.grad, v.grad))
    for full, rounded in zip(*gradients, strict=True):
        assert 0 < (rounded - full).norm() / full.norm() < 0.01


@pytest.mark.parametrize("length", [2.0, 2.5])
def test_bfloat16_gradients_of_a_nearly_certain_model_are_as_good_as_others(length):
    found = []
    vectors = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    vectors *= length / vectors.norm(dim=1, keepdim=True)
    for dtype in (torch.float32, torch.bfloat16):
        u, v = (vectors * 2).requires_grad_(), vectors.clone().requires_grad_()
        full_cross_entropy(u, v, torch.arange(300), first=0, dtype=dtype).backward()
        found.append((u.grad, v.grad))
    for full, rounded in zip(*found, strict=True):
        assert 0 < (rounded - full).norm() / full.norm() < 0.01


def test_one_block_of_targets_is_kept_at_a_time(monkeypatch):
    alive, partitions = [], softmax._partitions

    def watched(*arguments):
        assert sum(part() is not None for part in alive) <= 1  # the tile that was used last
        tiles, kept = partitions(*arguments)
        assert len(kept) == 3
        alive.extend(weakref.ref(part) for part in kept)
        return tiles, kept

    monkeypatch.setattr(softmax, "_partitions", watched)
    users, table = torch.randn(3 * softmax.ROWS, 4, requires_grad=True), torch.randn(3 * softmax.TILE, 4)
    full_cross_entropy(users, table, torch.arange(len(users)), first=0, dtype=torch.float32)
    assert len(alive) == 9


def test_sampled_softmax_estimates_the_partition_without_bias():
    """The mean over many draws of exp(loss) is that of the exact softmax; with many negatives so is the loss."""
    torch.manual_seed(0)
    users, table, wanted = torch.randn(7, 4), torch.randn(30, 4), torch.randint(1, 30, (7,))
    counts = np.arange(30) ** 2
    exact_loss = full_cross_entropy(users, table, wanted, first=1, dtype=torch.float32)
    own = (users * table[wanted]).sum(1)
    for row in range(7):
        one = users[row : row + 1], table, wanted[row : row + 1]
        exact_partition = (users[row] @ table[1:].T).exp().sum()
        rng = np.random.default_rng(row)
        loss = sampled_softmax(counts, 20, rng)
        estimates = torch.stack([(loss(*one, first=1) + own[row]).exp() for _ in range(3000)])
        error = estimates.std() / len(estimates) ** 0.5
        assert abs(estimates.mean() - exact_partition) < 4 * error
        assert error < 0.05 * exact_partition
    many = sampled_softmax(counts, 200_000, np.random.default_rng(0))(users, table, wanted, first=1)
    torch.testing.assert_close(many, exact_loss, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_is_its_definition(calibration):
    torch.manual_seed(0)
    users, table, wanted = torch.randn(5, 4), torch.randn(11, 4), torch.randint(1, 11, (5,))
    found = gbce(calibration, 3, np.random.default_rng(1))(users, table, wanted, first=1)
    negatives = np.random.default_rng(1).integers(1, 11, size=3)
    alpha = 3 / 9  # of nine items that are not the target
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    assert calibration == 0.75 or beta == {0.0: 1.0, 1.0: alpha}[calibration]
    terms = []
    for user, target in zip(users, wanted.tolist(), strict=True):
        positive = torch.sigmoid(user @ table[target]) ** beta
        others = [1 - torch.sigmoid(user @ table[n]) for n in negatives if n != target]
        terms.append(-(positive.log() + sum(o.log() for o in others)) / 4)
    torch.testing.assert_close(found, torch.stack(terms).mean())


@pytest.mark.parametrize("per_target", [False, True])
def test_bce_is_its_definition(per_target):
    """With one negative per target, it is the loss of the original SASRec, halved: the mean of two terms."""
    torch.manual_seed(0)
    users, table, wanted = torch.randn(5, 4), torch.randn(11, 4), torch.randint(1, 11, (5,))
    found = bce(2, np.random.default_rng(1), per_target=per_target)(users, table, wanted, first=1)
    negatives = np.random.default_rng(1).integers(1, 11, size=(5, 2) if per_target else 2)
    terms = []
    for user, target, drawn in zip(users, wanted.tolist(), np.broadcast_to(negatives, (5, 2)), strict=True):
        labels = torch.tensor([1.0] + [0.0] * sum(drawn != target))
        scores = torch.stack([user @ table[item] for item in (target, *drawn[drawn != target])])
        terms.append(torch.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / 3)
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_negatives_per_target_are_drawn_like_those_per_batch():
    """One target alone has the same negatives either way, and therefore the same loss and gradient."""
    torch.manual_seed(0)
    counts = np.arange(11)
    for loss in (
        lambda rng, per_target: sampled_softmax(counts, 6, rng, per_target=per_target),
        lambda rng, per_target: gbce(0.5, 6, rng, per_target=per_target),
    ):
        found = []
        for per_target in (False, True):
            torch.manual_seed(1)
            users, table = torch.randn(1, 4, requires_grad=True), torch.nn.Parameter(torch.randn(11, 4))
            value = loss(np.random.default_rng(3), per_target)(users, table, torch.tensor([7]), first=1)
            value.backward()
            found.append((value.detach(), users.grad, table.grad.to_dense()))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


def test_sampled_losses_of_all_items_are_those_of_the_catalogue():
    torch.manual_seed(0)
    users, table, wanted = torch.randn(5, 4), torch.randn(8, 4), torch.tensor([1, 7, 3, 3, 2])
    others = torch.stack([torch.tensor([item for item in range(1, 8) if item != target]) for target in wanted])
    own, against = scored(users, table, wanted, others)
    exact_loss = full_cross_entropy(users, table, wanted, first=1, dtype=torch.float32)
    torch.testing.assert_close(softmax_loss(own, against), exact_loss)
    assert gbce_power(1.0, 6, 6) == gbce_power(0.0, 6, 6) == 1.0
    torch.testing.assert_close(bce_loss(own, against, 1.0), bce_loss(own, against))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_torchs_bit_for_bit(weight_decay):
    """Also if a weight has no gradient in some steps, or none at first."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.full(shape, 0.5)) for shape in ((), (7,), (30, 8))] for _ in range(2))
    adam = _FusedAdam(ours, 1e-2, weight_decay)
    kind = partial(torch.optim.AdamW, weight_decay=weight_decay) if weight_decay else torch.optim.Adam
    reference = kind(theirs, lr=1e-2, fused=True)
    for step in range(6):
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(a.shape, generator=generator)
            a.grad, b.grad = (None, None) if step == 2 * number else (gradient, gradient.clone())
        adam.step()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lazy_adam_has_no_weight_decay():
    text = TINY_SUITE + "optimiser = 'lazy-adam'\nweight_decay = 0.1\n"
    with pytest.raises(SuiteError, match=r"training.weight_decay: found 0.1, but 'lazy-adam' leaves rows alone"):
        cells_of(parse_suite(Path("tiny.toml"), text))


def test_weight_decay_enters_a_key_unless_it_is_0():
    text = TINY_SUITE + "weight_decay = "
    keys = [cells_of(parse_suite(Path("tiny.toml"), t))[2].key("x") for t in (TINY_SUITE, text + "0", text + "0.1")]
    assert keys[0] == keys[1] != keys[2]


def test_lazy_adam_updates_only_rows_that_a_batch_touched(world):
    sizes = Sizes(world.num_users, world.num_items, world.num_providers, 20)
    config = model_entry("sasrec").config.model_validate({"embedding_size": 8, "inner_size": 16})
    windows = prefix_windows(world, leave_one_out(world), 20)
    moved, after = {}, {}
    for lazy in (False, True):
        torch.manual_seed(0)
        model = build_model("sasrec", config, sizes)
        before = model.item_embedding.weight.detach().clone()
        optimiser = Optimiser(model, 1e-2, lazy=lazy)
        loss = sampled_softmax(np.zeros(world.num_items + 1), 4, np.random.default_rng(0))
        batches = [windows.gather(ResidentSequences(world, CPU), np.arange(i, i + 2)) for i in (0, 100)]
        for batch in batches:
            optimiser.step(batch_losses(model, config, batch, packed=False, catalogue_loss=loss).total)
            after.setdefault(lazy, []).append(model.item_embedding.weight.detach().clone())
        moved[lazy] = (after[lazy][-1] != before).any(dim=1)
    drawn = np.random.default_rng(0)
    touched = set()
    for batch in batches:
        touched |= set(batch.histories.items.flatten().tolist()) | set(batch.targets.tolist())
        touched |= {int(draw * world.num_items) + 1 for draw in drawn.random(4)}
    assert set(moved[True].nonzero()[:, 0].tolist()) == touched - {0}
    assert torch.equal(moved[True], moved[False])
    # A row of the first batch alone stands still in the second step, where its momentum moves it on in plain Adam.
    first_only = sorted(set(batches[0].targets.tolist()) - set(batches[1].histories.items.flatten().tolist()))
    first_only = [row for row in first_only if torch.equal(after[True][0][row], after[True][1][row])]
    assert first_only
    assert not any(torch.equal(after[False][0][row], after[False][1][row]) for row in first_only)


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.07])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate):
    ones = torch.ones(400, 1000, requires_grad=True)
    torch.manual_seed(3)
    dropout = Dropout(rate)
    once, again = dropout(ones), dropout(ones)
    assert not torch.equal(once, again)
    assert abs(float((once == 0).float().mean()) - rate) < 0.004
    assert set(once.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - rate)))}
    once.sum().backward()
    assert torch.equal(ones.grad, once)
    torch.manual_seed(3)
    assert torch.equal(Dropout(rate)(ones), once)
    assert dropout.eval()(ones) is ones


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.floats(0.1, 5),
    st.sampled_from(["item-to-provider", "symmetric", "nt-xent"]),
    st.sampled_from(["dot", "cosine"]),
)
def test_contrastive_losses_are_their_definitions(owners, tau, contrast, similarity):
    """By naive loops: each anchor's positive against the vectors of other users that its loss takes as negatives.

    Gradients are compared, too, because autograd does not record that pairs are hidden.
    """
    generator = torch.Generator().manual_seed(len(owners))
    views = torch.randn(2, len(owners), 4, generator=generator, dtype=torch.float64).requires_grad_()
    samples = [(side, i) for side in (0, 1) for i in range(len(owners))]

    def rho(one, other):
        a, b = views[one], views[other]
        return a @ b / (a.norm() * b.norm() if similarity == "cosine" else 1.0) / tau

    def loss(anchor, sides):
        side, i = anchor
        positive = rho(anchor, (1 - side, i)).exp()
        negatives = sum(rho(anchor, s).exp() for s in samples if s[0] in sides(side) and owners[s[1]] != owners[i])
        return -(positive / (positive + negatives)).log()

    anchors, sides = {
        "item-to-provider": (samples[: len(owners)], lambda side: {1 - side}),
        "symmetric": (samples, lambda side: {1 - side}),
        "nt-xent": (samples, lambda _: {0, 1}),
    }[contrast]
    expected = sum(loss(anchor, sides) for anchor in anchors) / len(anchors)
    found = contrastive_loss(*views, torch.tensor(owners), contrast=contrast, similarity=similarity, tau=tau)
    torch.testing.assert_close(found, torch.as_tensor(expected))
    torch.testing.assert_close(*(torch.autograd.grad(value, views)[0] for value in (found, expected)))


def test_the_provider_loss_is_the_mean_binary_cross_entropy_over_known_providers():
    generator = torch.Generator().manual_seed(0)
    logits, providers = torch.randn(6, 9, generator=generator), torch.tensor([2, 8, 1, 5, 1, 3])
    labels = torch.nn.functional.one_hot(providers, 9)[:, 2:].float()  # 0 is padding, 1 the unknown provider
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 2:], labels)
    torch.testing.assert_close(provider_loss(logits, providers), expected)


def test_options_of_the_loss_change_it_as_documented(world):
    """On one batch of untrained IPSRec-S: the padding class, lambda, weight norms, and a loss without an output."""
    sizes = Sizes(world.num_users, world.num_items, world.num_providers, 20)
    torch.manual_seed(0)
    base = model_entry("ipsrec-s").config.model_validate({"embedding_size": 8, "inner_size": 16})
    model = build_model("ipsrec-s", base, sizes).eval()
    windows = prefix_windows(world, leave_one_out(world), 20)
    batch = windows.gather(ResidentSequences(world, CPU), np.arange(64))

    def losses(**update):
        with torch.no_grad():
            return batch_losses(model, base.model_copy(update=update), batch, packed=False)

    plain = losses()
    assert plain.total == plain.parts["next-item"] + 0.1 * plain.parts["provider-contrast"]
    assert "provider-contrast" not in losses(lambda_=0.0).parts
    user = model.encode(batch.histories, every_position=False).user
    scores = user @ model.item_vectors().T
    with_padding = torch.nn.functional.cross_entropy(scores, batch.targets)
    torch.testing.assert_close(losses(padding_class=True).parts["next-item"], with_padding.detach())
    assert with_padding > plain.parts["next-item"]
    one_user = dataclasses.replace(batch, histories=dataclasses.replace(batch.histories, users=torch.zeros(64).long()))
    with torch.no_grad():  # there is no other user as a negative
        alone = batch_losses(model, base, one_user, packed=False)
        released = batch_losses(model, base.model_copy(update={"same_user_negatives": True}), one_user, packed=False)
    assert alone.parts["provider-contrast"] == 0
    apart = dataclasses.replace(batch, histories=dataclasses.replace(batch.histories, users=torch.arange(64)))
    with torch.no_grad():
        torch.testing.assert_close(
            released.parts["provider-contrast"],
            batch_losses(model, base, apart, packed=False).parts["provider-contrast"],
        )
    norms = sum(p.norm() for name, p in model.named_parameters() if not name.endswith("bias"))
    torch.testing.assert_close(losses(weight_norm=0.01).total - plain.total, 0.01 * norms.detach())
    blind = build_model("sasrec", base, sizes)
    with pytest.raises(ModelError, match="no provider view"):
        batch_losses(blind, base, batch, packed=False)


def run_fit(world, tmp_path, validations, epochs=10, patience=2, name="sasrec", seed=1, lr=1e-3):
    config = model_entry(name).config.model_validate({"embedding_size": 8, "inner_size": 16})
    torch.manual_seed(seed)
    model = build_model(name, config, Sizes(world.num_users, world.num_items, world.num_providers, 8))
    seen, states = iter(validations), []

    def validate() -> Validation:
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return Validation(next(seen))

    epochs_seen = []
    fitted = fit(
        model,
        config,
        TrainingData(world, ResidentSequences(world, CPU), leave_one_out(world)),
        Training(epochs=epochs, patience=patience, batch_size=64, learning_rate=lr),
        Loop(
            packed=True,
            max_length=8,
            seed=seed,
            validate=validate,
            checkpoint=tmp_path / "best.safetensors",
            on_epoch=epochs_seen.append,
        ),
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
    assert first.epochs[-1].losses["next-item"] < first.epochs[0].losses["next-item"]


def test_a_loss_that_is_not_finite_is_an_error(world, tmp_path):
    with pytest.raises(ModelError, match=r"the training loss is not finite at step \d+ of epoch"):
        run_fit(world, tmp_path, [0.0] * 50, epochs=40, patience=50, lr=1e20)


def test_a_diverging_loss_is_an_error_at_its_step(world, tmp_path):
    sentence = (
        r"the training loss is \S+ at step \d+ of epoch \d+, where the first step's was 4\.\d+: training diverges"
    )
    with pytest.raises(ModelError, match=sentence):
        run_fit(world, tmp_path, [0.0] * 50, epochs=40, patience=50, lr=30.0)


def test_a_loss_may_grow_within_bounds_without_an_error(world, tmp_path):
    """With a learning rate that is far too large, scores stay within bounds: a bad model, not a diverging one."""
    _, fitted, _ = run_fit(world, tmp_path, [0.0] * 50, epochs=4, patience=50, lr=0.1)
    assert len(fitted.epochs) == 4


def test_weights_that_share_one_storage_are_saved(tmp_path):
    """As cuDNN stores those of an RNN, and as tied weights are."""

    def build():
        module = torch.nn.Module()
        storage = torch.randn(10)
        module.a, module.b = torch.nn.Parameter(storage[:6].view(2, 3).T), torch.nn.Parameter(storage[6:])
        module.tied = module.b
        return module

    saved, loaded = build(), build()
    save_weights(saved, tmp_path / "weights.safetensors")
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert torch.equal(saved.a, loaded.a)
    assert torch.equal(saved.b, loaded.b)
    assert loaded.tied is loaded.b
