"""Ranking: counted ranks are sorted ranks, and metrics are what their names say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import leave_one_out, repeated
from ipsrec_bench.errors import ModelError
from ipsrec_bench.models.api import PickedScores, Sizes, TrainingLog
from ipsrec_bench.models.configs import ModelConfig, TransformerConfig
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.ranking import rank
from ipsrec_bench.ranking.metrics import gains, metric, realistic_rank
from ipsrec_bench.ranking.rank import Background, count_picked_ranks, count_ranks, rank_targets

from .conftest import sequences


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from([8, 16, 40, 2040]), st.integers(0, 10**6))
def test_counted_ranks_are_sorted_ranks_at_any_tile(users, items, tile, seed):
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: exact in float32, and full of ties.
    u = torch.randint(-2, 3, (users, 3), generator=generator).float()
    v = torch.randint(-2, 3, (items + 1, 3), generator=generator).float()
    target = torch.randint(1, items + 1, (users,), generator=generator)
    higher, ties = count_ranks(u, v, target, tile=tile)
    for i in range(users):
        scores = (v[1:] @ u[i]).tolist()
        own = scores[target[i] - 1]
        assert higher[i] == sum(score > own for score in scores)
        assert ties[i] == sum(score == own for score in scores) - 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(2, 700), st.sampled_from([16, 64, 100]), st.integers(0, 10**6))
def test_equal_vectors_tie_whatever_the_shapes(users, copies, d, seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(users, d, generator=generator)
    v = torch.randn(1, d, generator=generator).expand(copies + 1, d)
    target = torch.randint(1, copies + 1, (users,), generator=generator)
    higher, ties = count_ranks(u, v, target, tile=96)
    assert not higher.any()
    assert (ties == copies - 1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 300), st.integers(0, 10**6))
def test_ranks_of_real_vectors_depend_on_neither_tile_nor_batch(users, items, seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(users, 64, generator=generator)
    v = torch.randn(items + 1, 64, generator=generator)
    v[::3] = v[0] * (1 + 2.0**-22 * torch.randint(-2, 3, (len(v[::3]), 1), generator=generator))  # all but equal
    target = torch.randint(1, items + 1, (users,), generator=generator)
    exact = (u.double() @ v[1:].double().T).float()
    own = exact.gather(1, target[:, None] - 1)
    expected = ((exact > own).sum(1), (exact == own).sum(1) - 1)
    for tile in (8, 64, 2040):
        for count, right in zip(count_ranks(u, v, target, tile=tile), expected, strict=True):
            assert torch.equal(count, right)
    alone = [count_ranks(u[i : i + 1], v, target[i : i + 1]) for i in range(users)]
    for j, right in enumerate(expected):
        assert torch.equal(torch.cat([counts[j] for counts in alone]), right)


def test_scores_that_underflow_are_ranked_exactly():
    """Products in float32 then have an error that no share of the vectors' norms bounds."""
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(60, 64, generator=generator) * 1e-20, torch.randn(3001, 64, generator=generator) * 1e-22
    target = torch.randint(1, 3001, (60,), generator=generator)
    exact = (users.double() @ items[1:].double().T).float()
    own = exact.gather(1, target[:, None] - 1)
    assert len(exact.unique()) > 100
    higher, ties = count_ranks(users, items, target)
    assert torch.equal(higher, (exact > own).sum(1))
    assert torch.equal(ties, (exact == own).sum(1) - 1)


def test_a_constant_scorer_gets_the_rank_of_chance():
    assert realistic_rank(np.array([0, 0, 3]), np.array([99, 0, 1])).tolist() == [51, 1, 5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_scores_that_are_not_finite_are_refused(bad):
    u, v = torch.ones(2, 3), torch.ones(5, 3)
    v[2, 1] = bad
    with pytest.raises(ModelError, match="not finite"):
        count_ranks(u * 1e3, v, torch.tensor([1, 2]))


def test_whole_pipeline_equals_sorting_scores(world):
    torch.manual_seed(0)
    sizes = Sizes(world.num_users, world.num_items, world.num_providers, 5)
    model = build_model("sasrec", TransformerConfig(embedding_size=8, inner_size=16), sizes).eval()
    torch.nn.init.normal_(model.item_embedding.weight)
    resident, split = ResidentSequences(world, torch.device("cpu")), leave_one_out(world)
    for targets in (split.valid, split.test):
        ranks = rank_targets(model, world, resident, targets, 5)
        assert ranks.users.tolist() == targets.users.tolist()
        for i in range(0, len(ranks.users), 17):
            user, position = targets.users[i], targets.positions[i]
            begin = max(world.offsets[user], position - 5)
            history = resident.gather(*(np.array([x]) for x in (user, begin, position)))
            with torch.no_grad():
                scores = model.item_vectors()[1:] @ model.encode(history, every_position=False).user[0]
            order = scores.argsort(descending=True).tolist()
            assert order.index(world.items[position] - 1) == ranks.higher[i]
            assert ranks.ties[i] == 0


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("name", "masked"), [("sasrec", False), ("sasrec", True), ("markov", True)])
def test_threads_with_separate_batches_find_the_same_ranks(world, monkeypatch, name, masked):
    torch.manual_seed(0)
    entry = model_entry(name)
    model = build_model(name, entry.config(), Sizes(world.num_users, world.num_items, world.num_providers, 5))
    resident, split = ResidentSequences(world, torch.device("cpu")), leave_one_out(world)
    if entry.counts:
        users = np.repeat(np.arange(world.num_users), np.diff(world.offsets))
        model.fit(TrainingLog(users, world.items, world.providers, world.times))
    else:
        torch.nn.init.normal_(model.item_embedding.weight)
    alone = rank_targets(model, world, resident, split.test, 5, mask_history=masked)
    monkeypatch.setattr(rank, "THREADS_PAY", 0)
    monkeypatch.setattr(rank, "USERS_PER_BATCH", 16)
    together = rank_targets(model, world, resident, split.test, 5, mask_history=masked)
    assert together.higher.tolist() == alone.higher.tolist()
    assert together.ties.tolist() == alone.ties.tolist()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_an_error_in_a_thread_reaches_the_caller(world, monkeypatch):
    monkeypatch.setattr(rank, "THREADS_PAY", 0)
    sizes = Sizes(world.num_users, world.num_items, world.num_providers, 5)
    model = build_model("sasrec", TransformerConfig(embedding_size=8, inner_size=16), sizes)
    torch.nn.init.constant_(model.item_embedding.weight, torch.nan)
    resident, split = ResidentSequences(world, torch.device("cpu")), leave_one_out(world)
    with pytest.raises(ModelError, match="not finite"):
        rank_targets(model, world, resident, split.test, 5)
    assert torch.get_num_threads() == 2


def test_pop_ranks_by_training_counts(world):
    split, resident = leave_one_out(world), ResidentSequences(world, torch.device("cpu"))
    model = build_model("pop", ModelConfig(), Sizes(world.num_users, world.num_items, world.num_providers, 5))
    inside = world.ranges(world.offsets[:-1], split.train_ends)
    users = np.repeat(np.arange(world.num_users), np.diff(world.offsets))
    model.fit(TrainingLog(users[inside], world.items[inside], world.providers[inside], world.times[inside]))
    counts = np.zeros(world.num_items + 1, dtype=int)
    for user, items in enumerate(sequences(world)):
        for item in items[: split.train_ends[user] - world.offsets[user]]:
            counts[item] += 1
    ranks = rank_targets(model, world, resident, split.test, 5)
    targets = world.items[split.test.positions]
    assert ranks.higher.tolist() == [(counts[1:] > counts[target]).sum() for target in targets]
    assert ranks.ties.tolist() == [(counts[1:] == counts[target]).sum() - 1 for target in targets]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(2, 15), st.booleans(), st.integers(0, 10**6))
def test_ranks_of_picked_scores_are_sorted_ranks(users, items, mask, seed):
    generator = torch.Generator().manual_seed(seed)
    background = torch.randint(-1, 3, (items + 1,), generator=generator).double()
    some = torch.rand(users, items + 1, generator=generator) < 0.4
    some[:, 0] = False
    rows, picked = some.nonzero(as_tuple=True)
    values = torch.randint(-1, 4, (len(rows),), generator=generator).double()
    target = torch.randint(1, items + 1, (users,), generator=generator)
    scores = background.repeat(users, 1)
    scores[rows, picked] = values
    rivals = torch.ones(users, items + 1, dtype=torch.bool)
    rivals[:, 0] = False
    rivals[torch.arange(users), target] = False
    masked = None
    if mask:
        hidden = rivals & (torch.rand(users, items + 1, generator=generator) < 0.5)
        masked = hidden.nonzero(as_tuple=True)
        rivals &= ~hidden
    own = scores.gather(1, target[:, None])
    higher, ties = count_picked_ranks(PickedScores(rows, picked, values), Background.of(background), target, masked)
    assert torch.equal(higher, ((scores > own) & rivals).sum(1))
    assert torch.equal(ties, ((scores == own) & rivals).sum(1))


@pytest.mark.parametrize("name", ["sasrec", "repeat"])
def test_a_masked_history_leaves_the_candidates(world, name):
    """Mask by hand: score everything, remove the items of the user's history, and sort; repeats are misses."""
    torch.manual_seed(0)
    sizes = Sizes(world.num_users, world.num_items, world.num_providers, 3)
    config = TransformerConfig(embedding_size=8, inner_size=16) if name == "sasrec" else ModelConfig()
    model = build_model(name, config, sizes).eval()
    if name == "repeat":
        users = np.repeat(np.arange(world.num_users), np.diff(world.offsets))
        model.fit(TrainingLog(users, world.items, world.providers, world.times))
    resident, targets = ResidentSequences(world, torch.device("cpu")), leave_one_out(world).test
    ranks = rank_targets(model, world, resident, targets, 3, mask_history=True)
    unmasked = rank_targets(model, world, resident, targets, 3)
    repeats = repeated(world, targets)
    assert repeats.any()
    assert (ranks.higher[repeats] == world.num_items).all()
    assert not ranks.ties[repeats].any()
    assert (ranks.higher <= unmasked.higher)[~repeats].all()
    assert (ranks.higher < unmasked.higher)[~repeats].any()
    for i in range(0, len(targets.users), 7):
        user, position = targets.users[i], targets.positions[i]
        history = resident.gather(
            np.array([user]), np.array([max(world.offsets[user], position - 3)]), np.array([position])
        )
        with torch.no_grad():
            if name == "sasrec":
                scores = exact(model.encode(history, every_position=False).user, model.item_vectors())
            else:
                picked = model.pick(history)
                scores = model.background.clone()
                scores[picked.items] = picked.scores
        target, had = world.items[position], set(world.items[world.offsets[user] : position].tolist())
        if target in had:
            continue
        rivals = [item for item in range(1, world.num_items + 1) if item not in had | {target}]
        assert ranks.higher[i] == sum(scores[item] > scores[target] for item in rivals)
        assert ranks.ties[i] == sum(scores[item] == scores[target] for item in rivals)


def exact(user, items):
    return (user.double() @ items.double().T)[0].float()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_picked_scores_that_are_not_finite_are_refused(bad):
    one = torch.tensor([0])
    with pytest.raises(ModelError, match="not finite"):
        count_picked_ranks(
            PickedScores(one, one + 1, torch.tensor([bad]).double()), Background.of(torch.zeros(4)), one + 2
        )
    with pytest.raises(ModelError, match="not finite"):
        Background.of(torch.tensor([0.0, 1.0, bad]))


def test_metrics_by_hand():
    rank = np.array([1, 2, 5, 6, 100])
    assert metric("hr@5", rank).tolist() == [1, 1, 1, 0, 0]
    assert metric("mrr@5", rank).tolist() == [1, 0.5, 0.2, 0, 0]
    assert metric("ndcg@10", rank) == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(6), 1 / np.log2(7), 0])


def test_a_full_tile_of_higher_items_is_counted():
    """No tile has more items than its dtype can count."""
    v = torch.ones(5000, 4)
    v[1] = 0.5
    higher, ties = count_ranks(torch.ones(3, 4), v, torch.ones(3, dtype=torch.int64))
    assert higher.tolist() == [4998] * 3
    assert not ties.any()


@pytest.mark.parametrize("cutoff", [7, 2**31 - 1])
def test_a_cutoff_beyond_the_catalogue_counts_every_rank_and_takes_no_memory(cutoff):
    ranks = np.array([1, 3, 7], dtype=np.int64)
    assert metric(f"hr@{cutoff}", ranks).tolist() == [1, 1, 1]
    assert metric(f"mrr@{cutoff}", ranks).tolist() == [1, 1 / 3, 1 / 7]
    assert metric(f"ndcg@{cutoff}", ranks) == pytest.approx([1, 1 / 2, 1 / 3])
    assert len(gains(f"mrr@{cutoff}", 7)) == 9
    assert metric(f"hr@{cutoff}", ranks[:0]).tolist() == []
