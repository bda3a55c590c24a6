"""`protocol.candidates = "available"`: a target is ranked among the items that exist at its time."""

from dataclasses import replace

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.lifetimes import Lifetimes
from ipsrec_bench.data.predictions import read_predictions
from ipsrec_bench.data.split import repeated, split_dataset, target_sets
from ipsrec_bench.errors import DataError
from ipsrec_bench.models.api import CountingModel, Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.ranking import rank
from ipsrec_bench.ranking.available import count_at_least
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import exact_scores, rank_targets
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.tables import tables_of
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.store.connect import reading
from ipsrec_bench.suite.load import load_suite
from ipsrec_bench.suite.schema import Protocol
from ipsrec_bench.training.index import TrainingIndex

LENGTH = 4
KINDS = ["sasrec", "pop", "recent-pop", "repeat", "markov", "item-knn", "v-sknn", "provider-pop"]
SPLITS = ["leave-one-out", "temporal", "user-holdout"]


def random_world(world, rng, lifespan):
    """Return `world` with few users, random items and times, and lifetimes of about `lifespan`."""
    users = rng.integers(20, 40)
    lengths = rng.integers(1, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    num_items = int(rng.integers(2, 25))
    items = rng.integers(1, num_items + 1, offsets[-1]).astype(np.int32)
    items[:num_items] = np.arange(1, num_items + 1)[: len(items)]
    times = np.concatenate([np.sort(rng.integers(0, 60, length)) for length in lengths])
    data = replace(
        world,
        items=items,
        providers=(items % 3 + 1).astype(np.int32),
        times=times if rng.random() < 0.5 else times / 4,
        offsets=offsets,
        num_items=num_items,
        num_providers=3,
    )
    first = rng.integers(0, 60, num_items).astype(data.times.dtype)
    return data, Lifetimes(first, first + rng.integers(-1, lifespan + 1, num_items), given=True)


def fitted(name, data, split, sequences):
    """Return a model with many ties."""
    torch.manual_seed(3)
    entry = model_entry(name)
    config = entry.config() if entry.counts else entry.config(embedding_size=8, inner_size=16)
    model = build_model(name, config, Sizes(data.num_users, data.num_items, data.num_providers, LENGTH))
    if isinstance(model, CountingModel):
        model.fit(TrainingIndex(data, sequences, split, LENGTH).log)
    else:
        with torch.no_grad():
            table = model.item_embedding.weight
            table.copy_(table[torch.randint(1, len(table), (len(table),)) % 4 + 1] if len(table) > 5 else table)
    return model.eval()


def naive(model, data, sequences, targets, mask):
    """Score every item for one target at a time and count those that exist then."""
    found = []
    for user, position in zip(targets.users, targets.positions, strict=True):
        begin = max(data.offsets[user], position - LENGTH)
        history = sequences.gather(*(np.array([x]) for x in (user, begin, position)))
        with torch.inference_mode():
            if isinstance(model, CountingModel):
                scores, picked = model.background.clone(), model.pick(history)
                scores[picked.items] = picked.scores
            else:
                vectors = model.item_vectors()
                scores = exact_scores(model.encode(history, every_position=False).user.expand_as(vectors), vectors)
        scores = scores.numpy()[1:]
        target, now = data.items[position], data.times[position]
        rivals = (targets.lifetimes.first <= now) & (now <= targets.lifetimes.last)
        rivals[target - 1] = False
        if mask:
            rivals[data.items[data.offsets[user] : position] - 1] = False
        found.append([(rivals & (scores > scores[target - 1])).sum(), (rivals & (scores == scores[target - 1])).sum()])
    higher, ties = np.array(found).T
    if mask:
        misses = repeated(data, targets)
        higher[misses], ties[misses] = data.num_items, 0
    return higher.tolist(), ties.tolist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(KINDS),
    st.sampled_from(SPLITS),
    st.sampled_from([False, "miss"]),
    st.sampled_from([0, 5, 100]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_ranks_are_a_naive_count_among_the_items_that_exist(world, name, split_name, mask, lifespan, derived, seed):
    rng = np.random.default_rng(seed)
    data, lifetimes = random_world(world, rng, lifespan)
    protocol = Protocol(split=split_name, valid_share=0.3, test_share=0.3, mask_history=mask, candidates="available")
    split = split_dataset(data, protocol)
    sequences = ResidentSequences(data, torch.device("cpu"))
    model = fitted(name, data, split, sequences)
    parts = int(rng.choice([1, 64, 512]))  # tiles of 2048, 32 and 4 items
    for targets in (split.valid, split.test):
        wanted = targets if derived else replace(targets, lifetimes=lifetimes)
        ranks = rank_targets(model, data, sequences, wanted, LENGTH, mask_history=mask, tile_parts=parts)
        assert (ranks.higher.tolist(), ranks.ties.tolist()) == naive(model, data, sequences, wanted, mask)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 10**6))
def test_prefixes_are_counted_as_one_by_one(size, largest, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, largest, size)
    ends, least = rng.integers(0, size + 1, 20), rng.integers(0, largest + 2, 20)
    expected = [(values[:end] >= at).sum() for end, at in zip(ends, least, strict=True)]
    assert count_at_least(values, ends, least).tolist() == expected


@pytest.mark.parametrize("name", ["sasrec", "markov"])
def test_threads_find_the_same_ranks(world, monkeypatch, name):
    data, lifetimes = random_world(world, np.random.default_rng(5), 30)
    split = split_dataset(data, Protocol(candidates="available"))
    sequences = ResidentSequences(data, torch.device("cpu"))
    model, targets = fitted(name, data, split, sequences), replace(split.test, lifetimes=lifetimes)
    alone = rank_targets(model, data, sequences, targets, LENGTH)
    before = torch.get_num_threads()
    monkeypatch.setattr(rank, "THREADS_PAY", 0)
    monkeypatch.setattr(rank, "USERS_PER_BATCH", 8)
    torch.set_num_threads(2)
    together = rank_targets(model, data, sequences, targets, LENGTH)
    torch.set_num_threads(before)
    assert together.higher.tolist() == alone.higher.tolist()
    assert together.ties.tolist() == alone.ties.tolist()


def test_available_candidates_are_named_and_never_mixed_with_all(world):
    every = target_sets(world, split_dataset(world, Protocol()), Protocol())["test"]
    protocol = Protocol(candidates="available")
    available = target_sets(world, split_dataset(world, protocol), protocol)["test"]
    assert every.targets == available.targets
    assert available.candidates == (
        f"{world.num_items} items, of which those that exist at the time of the target (from their first to their last"
        " interaction)"
    )


def test_candidates_enter_the_key_only_if_they_are_not_all(tiny_suite, tmp_path):
    def keys(*overrides):
        return [cell.key("data") for cell in cells_of(load_suite(tiny_suite, overrides), tmp_path)]

    assert keys() == keys("protocol.candidates=all") == keys("protocol.ties=expected")
    assert not set(keys()) & set(keys("protocol.candidates=available"))


def test_lists_of_other_systems_are_refused_but_not_their_ranks(world, tmp_path):
    targets = split_dataset(world, Protocol(candidates="available")).test
    names = duckdb.read_parquet(str(world.path / "users.parquet")).order("id").project("raw").fetchall()
    users = [names[user][0] for user in targets.users]
    (tmp_path / "ranks.csv").write_text("\n".join(["user,rank", *(f"{user},3" for user in users)]))
    found = read_predictions(tmp_path / "ranks.csv", world, targets, mask_history=False)
    assert set(found.higher.tolist()) == {2}
    (tmp_path / "lists.csv").write_text(f"user,item,rank\n{users[0]},0,1")
    with pytest.raises(DataError, match=r"lists cannot be ranked under protocol.candidates = 'available'; give"):
        read_predictions(tmp_path / "lists.csv", world, targets, mask_history=False)


def test_a_report_shows_new_and_repeated_targets_apart(tiny_suite, tmp_path, bench):
    settings = ["--set", "protocol.candidates=available", "--set", "seeds=[1]", "--set", "training.epochs=1"]
    done = bench("run", str(tiny_suite), "--store", "s.duckdb", "--quiet", *settings)
    assert (done.returncode, done.stderr) == (0, "")
    with reading(tmp_path / "s.duckdb") as connection:
        run = read_run(connection)
        material = read_material(connection, run)
    report = build_report(material)
    assert dict(report.protocol)["Candidates"].startswith("the items that exist at the time of the target")
    (facts,) = material.targets.values()
    lines = {line.row.label: line for line in report.novelty}
    assert list(lines) == ["pop", "recent-pop", "sasrec", "ipsrec-s"]
    (key,) = {cell.key for cell in run.cells if cell.label == "sasrec"}
    values = metric(report.metric, material.ranks[key].ranks)
    parts = [facts.item_count >= 0, (facts.provider_count >= 0) & ~facts.provider_seen, facts.provider_seen]
    expected = [values[part].mean() for part in [*parts, facts.item_seen]]
    assert lines["sasrec"].means == pytest.approx(expected)
    assert lines["sasrec"].users == tuple(part.sum() for part in [*parts, facts.item_seen])
    (table,) = (table for table in tables_of(report) if table.name == "novelty")
    assert [cell.text for cell in table.rows[2].cells][2:] == [f"{value:.4f}" for value in expected]
