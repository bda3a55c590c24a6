"""V-SKNN, STAN and sequential rules against the formulas of their docstrings, counted one by one."""

import math

import numpy as np
import pytest
import torch

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.models import session_knn
from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.training.index import TrainingIndex

USERS, ITEMS = 40, 15


def random_log():
    """Return a log in which items repeat, last interactions fall on the same time, and user 3 has none."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, USERS)
    lengths[3] = 0
    users = np.repeat(np.arange(USERS), lengths)
    items = (1 + ITEMS * rng.random(len(users)) ** 1.5).astype(np.int32)
    times = np.concatenate([np.sort(rng.integers(0, 50, length)) for length in lengths])
    return TrainingLog(users, items, np.ones_like(items), times)


def sessions():
    """Return histories of known users, of one without training interactions, and of one beyond the log."""
    rng = np.random.default_rng(1)
    lengths = torch.tensor([6, 1, 3, 6, 2, 5])
    items = torch.from_numpy(1 + rng.integers(0, ITEMS, (6, 6)))
    items[0, :6] = torch.tensor([2, 5, 2, 7, 5, 2])
    real = torch.arange(6) < lengths[:, None]
    times = torch.from_numpy(np.sort(rng.integers(0, 50, (6, 6)), axis=1)).double() * real
    return Histories(torch.tensor([0, 1, 2, 3, 4, USERS + 5]), items * real, real.long(), lengths, times, lengths * 1.0)


def counted(name, log, histories, **settings):
    """Return the scores of all items, `[B, items + 1]`."""
    model = build_model(name, model_entry(name).config(**settings), Sizes(USERS + 6, ITEMS, 1, 6))
    model.fit(log)
    picked = model.pick(histories)
    scores = model.background.repeat(len(histories.items), 1)
    scores[picked.rows, picked.items] = picked.scores
    return scores


def last_places(items):
    return {item: place for place, item in enumerate(items, start=1)}


def one_by_one(log, histories, similarity, weight, k, m):
    """Return, for each session, the sums over its neighbours, by item."""
    training = {int(user): log.items[log.users == user].tolist() for user in np.unique(log.users)}
    ends = {user: float(log.times[log.users == user][-1]) for user in training}
    found = []
    for user, row, length, times in zip(
        histories.users.tolist(), histories.items, histories.lengths.tolist(), histories.times, strict=True
    ):
        session, now = last_places(row[:length].tolist()), float(times[length - 1])
        candidates = [n for n in training if n != user and set(training[n]) & set(session)]
        candidates = sorted(candidates, key=lambda n: (-ends[n], n))[:m]
        order = {n: place for place, n in enumerate(candidates)}
        near = {n: similarity(session, length, last_places(training[n]), now - ends[n]) for n in candidates}
        kept = sorted(candidates, key=lambda n: (-np.float32(near[n]), order[n]))[:k]
        scores = {}
        for n in kept:
            theirs = last_places(training[n])
            newest = max(set(session) & set(theirs), key=session.get)
            for item in theirs:
                scores[item] = scores.get(item, 0.0) + near[n] * weight(session, length, theirs, newest, item)
        found.append(scores)
    return found


def check(scores, expected):
    for row, own in zip(scores, expected, strict=True):
        largest = max(own.values(), default=1.0)
        assert {item for item in range(1, ITEMS + 1) if row[item] >= 1} == set(own)
        for item, score in own.items():
            assert float(row[item]) == pytest.approx(1 + score / largest, rel=1e-6)


@pytest.mark.parametrize(("k", "m"), [(100, 1000), (5, 1000), (5, 12), (3, 4), (1, 1)])
@pytest.mark.parametrize("pairs", [1 << 22, 20], ids=["one block", "blocks"])
def test_v_sknn_is_its_formula(monkeypatch, k, m, pairs):
    monkeypatch.setattr(session_knn, "PAIRS_AT_A_TIME", pairs)
    log, histories = random_log(), sessions()
    scores = counted("v-sknn", log, histories, neighbours=k, sample_size=m)

    def similarity(session, length, theirs, _):
        return sum(session[item] / length for item in set(session) & set(theirs))

    def weight(session, length, _, newest, __):
        return 1 / (length - session[newest] + 1)

    check(scores, one_by_one(log, histories, similarity, weight, k, m))


@pytest.mark.parametrize(("k", "m"), [(100, 5000), (5, 12), (3, 4)])
@pytest.mark.parametrize("decays", [(1.02, 0.1, 2.05), (3.0, 2.0, 0.5)])
def test_stan_is_its_formula(k, m, decays):
    log, histories = random_log(), sessions()
    one, two, three = decays
    settings = {"position_decay": one, "time_decay": two, "item_decay": three, "neighbours": k, "sample_size": m}
    scores = counted("stan", log, histories, **settings)
    span = float(log.times.max() - log.times.min())

    def similarity(session, length, theirs, distance):
        shared = sum(math.exp((session[item] - length) / one) for item in set(session) & set(theirs))
        return shared / math.sqrt(len(theirs)) * math.exp(-abs(distance) / (two * span))

    def weight(_, __, theirs, newest, item):
        return math.exp(-abs(theirs[item] - theirs[newest]) / three)

    check(scores, one_by_one(log, histories, similarity, weight, k, m))


def test_the_unit_of_the_data_does_not_matter(prepared_table):
    """Times of histories are in seconds, and those of the log in microseconds if the file has dates."""
    rng = np.random.default_rng(0)
    rows = [(user, rng.integers(12), 1000 * user + 100 * n) for user in range(30) for n in range(6)]
    scores = []
    for name in ("seconds", "dates"):
        head, stamps = "user,item,provider,time\n", (np.datetime64(time, "s") for _, _, time in rows)
        times = stamps if name == "dates" else (time for *_, time in rows)
        lines = (f"u{user},i{item},p,{time}" for (user, item, _), time in zip(rows, times, strict=True))
        data = prepared_table(head + "\n".join(lines), f"{name}.csv")
        sequences = ResidentSequences(data, torch.device("cpu"), times=True)
        log = TrainingIndex(data, sequences, leave_one_out(data), 6).log
        users = np.arange(data.num_users)
        histories = sequences.gather(users, np.array(data.offsets[:-1]), data.offsets[1:] - 1)
        scores.append(counted("stan", log, histories, neighbours=5, time_decay=0.1))
    torch.testing.assert_close(*scores)
    assert (scores[0] > 1).any()


@pytest.mark.parametrize(("steps", "rules"), [(10, 1000), (2, 1000), (1, 1000), (10, 3)])
def test_sequential_rules_are_their_formula(steps, rules):
    log, histories = random_log(), sessions()
    scores = counted("sequential-rules", log, histories, steps=steps, rules=rules)
    weights = {}
    for x in range(len(log.users)):
        for y in range(x + 1, min(x + steps, len(log.users) - 1) + 1):
            if log.users[x] == log.users[y]:
                rule = int(log.items[x]), int(log.items[y])
                weights[rule] = weights.get(rule, 0.0) + 1 / (y - x)
    for row, newest in zip(scores, histories.last(histories.items).tolist(), strict=True):
        own = {item: weight for (first, item), weight in weights.items() if first == newest}
        best = sorted(own, key=lambda item: (-np.float32(own[item]), item))[:rules]
        assert {item for item in range(1, ITEMS + 1) if row[item] >= 1} == set(best)
        for item in best:
            assert float(row[item]) == pytest.approx(1 + own[item], rel=1e-6)


def test_with_one_step_sequential_rules_order_as_markov_does():
    log, histories = random_log(), sessions()
    rules, markov = counted("sequential-rules", log, histories, steps=1, rules=1000), counted("markov", log, histories)
    assert torch.equal(rules - 1 >= 1, markov >= 1)
    assert torch.equal((rules - 1)[rules > 1], markov[markov >= 1].floor())


def test_nobody_is_their_own_neighbour():
    """User 0 alone has the items 1 and 2, so it has no neighbour; another user has it."""
    users, items = np.array([0, 0, 1]), np.array([1, 2, 3], dtype=np.int32)
    log = TrainingLog(users, items, items, users)
    one = torch.tensor([1])
    for user, neighbours in ((0, set()), (1, {1, 2})):
        histories = Histories(torch.tensor([user]), one[:, None], one[:, None], one)
        (row,) = counted("v-sknn", log, histories)
        assert {item for item in range(1, ITEMS + 1) if row[item] >= 1} == neighbours
