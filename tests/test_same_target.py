"""Histories with the same target, and the contrastive losses that use them."""

from collections import Counter

import numpy as np
import pytest
import torch

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.samples import packed_windows, prefix_windows
from ipsrec_bench.training.tasks.api import TrainingStep
from ipsrec_bench.training.tasks.registry import task_entry
from ipsrec_bench.training.tasks.same_target_contrast import SameTargetContrast, same_target

LENGTH, ROWS = 6, 80
WAYS = ["prefix", "packed"]


def index_of(data):
    return TrainingIndex(data, ResidentSequences(data, torch.device("cpu")), leave_one_out(data), LENGTH)


def targets_of(data):
    """Return the flat positions of all training targets, found user by user."""
    ends = leave_one_out(data).train_ends
    return [p for begin, end in zip(data.offsets[:-1], ends, strict=True) for p in range(begin + 1, end)]


def test_another_of_the_same_target_is_drawn_uniformly_from_the_others(world):
    index, positions = index_of(world), np.array(targets_of(world))
    items = np.asarray(world.items)[positions]
    rng = np.random.default_rng(0)
    draws = np.stack([index.another_of_same_target(positions, rng) for _ in range(400)])
    for column, (position, item) in enumerate(zip(positions.tolist(), items.tolist(), strict=True)):
        others = set(positions[items == item].tolist()) - {position}
        found = Counter(draws[:, column].tolist())
        assert set(found) <= (others or {position})
        if others:
            share = 400 / len(others)
            assert max(found.values()) < share + 7 * share**0.5
    same = index.another_of_same_target(positions, np.random.default_rng(0))
    assert np.array_equal(same, draws[0])


def test_only_training_targets_have_another(world):
    index, targets = index_of(world), targets_of(world)
    others = set(range(len(world.items))) - set(targets)
    for position in sorted(others):
        with pytest.raises(ValueError, match="not that of a training target"):
            index.another_of_same_target(np.array([targets[0], position]), np.random.default_rng(0))


def step_of(world, way, model="sasrec", **settings):
    """Return a step over a batch of windows of `world`, whose model is in evaluation mode."""
    split, index = leave_one_out(world), index_of(world)
    draws = np.random.default_rng(0)
    windows = prefix_windows(world, split, LENGTH)
    if way == "packed":
        windows = packed_windows(world, split, LENGTH, 0, draws)
    batch = windows.gather(ResidentSequences(world, torch.device("cpu")), draws.permutation(len(windows.ends))[:ROWS])
    torch.manual_seed(0)
    small = {"embedding_size": 8, "inner_size": 16, **settings}
    config = model_entry(model).config.model_validate(small)
    built = build_model(model, config, Sizes(world.num_users, world.num_items, world.num_providers, LENGTH))
    return TrainingStep(built.eval(), batch, way == "packed", index=index, rng=np.random.default_rng(0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["sasrec", "ipsrec-c"])
def test_the_newest_views_are_those_after_the_last_interactions(world, way, model):
    step = step_of(world, way, model)
    alone = step.encode(step.batch.histories)
    torch.testing.assert_close(step.newest.user, alone.user, rtol=1e-5, atol=1e-5)
    if alone.provider is not None:
        torch.testing.assert_close(step.newest.provider, alone.provider, rtol=1e-5, atol=1e-5)
    assert torch.equal(step.newest.owners, step.batch.histories.users)


@pytest.mark.parametrize("way", WAYS)
def test_histories_with_the_same_target_precede_it(world, way):
    step = step_of(world, way)
    newest = step.batch.newest
    width = step.batch.histories.items.shape[1]
    pairs = zip(step.batch.predicted.tolist(), step.batch.targets.tolist(), strict=True)
    last = {flat // width: target for flat, target in pairs}
    assert [last[row] for row in range(len(newest))] == np.asarray(world.items)[newest].tolist()
    found = same_target(step)
    again = step.index.another_of_same_target(newest, np.random.default_rng(0))
    for row, position in enumerate(again.tolist()):
        assert world.items[position] == world.items[newest[row]]
        history = found.items[row, : found.lengths[row]].tolist()
        assert history == world.items[position - len(history) : position].tolist()


def task_of(**settings):
    return SameTargetContrast(task_entry("same-target-contrast").config(**settings))


@pytest.mark.parametrize("way", WAYS)
def test_the_ways_to_contrast(world, way):
    """Without dropout, a second pass equals the first, and `us_x` equals `su`."""
    losses = {
        name: task_of(contrast=name, semantic_weight=0.25).loss(step_of(world, way))
        for name in ("un", "su", "us", "us_x")
    }
    torch.testing.assert_close(losses["us_x"], losses["su"])
    torch.testing.assert_close(losses["us"], losses["un"] + 0.25 * losses["su"])
    assert losses["un"] < losses["su"]


def test_a_second_pass_has_other_dropout(world):
    step = step_of(world, "prefix")
    without = task_of(contrast="un", similarity="cosine").loss(step)
    step = step_of(world, "prefix")
    step.model.train()
    assert task_of(contrast="un", similarity="cosine").loss(step) > without + 0.1


def test_samples_of_the_same_user_are_negatives_only_if_asked_for(world):
    fewer, all_others = (
        task_of(contrast="su", same_user_negatives=way).loss(step_of(world, "prefix")) for way in (False, True)
    )
    assert fewer < all_others


def test_a_batch_of_no_dataset_is_refused(world):
    step = step_of(world, "prefix")
    step.index = None
    with pytest.raises(ModelError, match="looks up training interactions"):
        task_of(contrast="su").loss(step)
    assert task_of(contrast="un").loss(step).isfinite()
