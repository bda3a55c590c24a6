"""Data: reading, order, ids, statistics, split, and every kind of bad input."""

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.data.split import leave_one_out, split_dataset
from ipsrec_bench.data.split_statistics import SplitStatistics, describe_split
from ipsrec_bench.data.statistics import describe
from ipsrec_bench.data.synthetic import generate
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.errors import DataError
from ipsrec_bench.suite.schema import Protocol, SyntheticSource, TableSource

from .conftest import lengths, raw_sequences, vocabulary

CASES = Path(__file__).parent / "cases"
HEADER = "user,item,provider,time\n"
LOG = """user,item,provider,time
u2,a,p,5
u1,b,q,2
u1,a,p,1
u1,c,,2
u2,b,q,5
"""


def test_rows_are_ordered_by_user_time_and_source_row(prepared_table):
    data = prepared_table(LOG)
    assert raw_sequences(data) == {"u1": ["a", "b", "c"], "u2": ["a", "b"]}
    assert data.items.dtype == data.providers.dtype == np.int32
    assert data.offsets.tolist() == [0, 3, 5]


def test_an_empty_provider_is_unknown_and_counted(prepared_table):
    data = prepared_table(LOG)
    assert vocabulary(data, "providers") == {2: "p", 3: "q"}
    assert data.providers.tolist() == [2, 3, UNKNOWN_PROVIDER, 2, 3]
    assert (data.statistics.providers, data.statistics.actions, data.statistics.known_provider_actions) == (2, 5, 4)
    assert data.num_providers == 3


@pytest.mark.parametrize(
    ("name", "delimiter"), [("log.tsv", "\t"), ("log.csv", ","), ("log.txt", ";"), ("log.csv.gz", ",")]
)
def test_delimited_files_give_the_same_data(tmp_path, name, delimiter):
    import gzip

    path = tmp_path / name
    text = LOG.replace(",", delimiter)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    data = prepare("x", TableSource(path=str(path)), tmp_path / "data")
    assert raw_sequences(data) == {"u1": ["a", "b", "c"], "u2": ["a", "b"]}


def test_parquet_and_named_columns(tmp_path):
    duckdb.sql(
        "SELECT * FROM (VALUES (7, 3, 'x', 2.5), (7, 4, 'y', 1.5)) AS t(who, what, maker, moment)"
    ).write_parquet(str(tmp_path / "log.parquet"))
    source = TableSource(path=str(tmp_path / "log.parquet"), user="who", item="what", provider="maker", time="moment")
    assert raw_sequences(prepare("x", source, tmp_path)) == {"7": ["4", "3"]}


def test_atomic_files_and_their_item_table(tmp_path):
    (tmp_path / "d.inter").write_text(
        'user_id:token\titem_id:token\ttimestamp:float\n1\ta\t3\n1\t"b\t1\n', encoding="utf-8"
    )
    (tmp_path / "d.item").write_text('item_id:token\tbrand:token\na\tacme\n"b\t\n', encoding="utf-8")
    source = TableSource.model_validate(
        {
            "path": str(tmp_path / "d.inter"),
            "items": {"path": str(tmp_path / "d.item"), "item": "item_id", "provider": "brand"},
        }
    )
    data = prepare("x", source, tmp_path)
    assert raw_sequences(data) == {"1": ['"b', "a"]}
    assert data.providers.tolist() == [UNKNOWN_PROVIDER, 2]


def test_a_joined_item_table_gives_the_provider_and_must_not_be_ambiguous(tmp_path, prepared_table):
    items = tmp_path / "items.csv"
    items.write_text("id,maker\na,p\na,p\na,\nb,q\n,r\n,s\n", encoding="utf-8")
    table = {"path": str(items), "item": "id", "provider": "maker"}
    data = prepared_table(LOG, items=table)
    assert vocabulary(data, "providers") == {2: "p", 3: "q"}
    assert data.providers.tolist() == [2, 3, UNKNOWN_PROVIDER, 2, 3]
    items.write_text("id,maker\na,p\na,other\n", encoding="utf-8")
    with pytest.raises(DataError, match="item 'a' has 2 different providers"):
        prepared_table(LOG, items=table)


def test_times_may_be_timestamps_and_large_integers_keep_their_order(prepared_table):
    stamps = "user,item,provider,time\nu,a,p,2019-10-01 00:00:01 UTC\nu,b,p,2019-09-30 23:59:59 UTC\n"
    assert raw_sequences(prepared_table(stamps)) == {"u": ["b", "a"]}
    # Neighbours that float32 cannot distinguish.
    seconds = "user,item,provider,time\nu,a,p,893286639\nu,b,p,893286638\nu,c,p,893286637\n"
    assert raw_sequences(prepared_table(seconds, name="s.csv")) == {"u": ["c", "b", "a"]}
    fractions = "user,item,provider,time\nu,a,p,1.4\nu,b,p,1.2\nu,c,p,1\nu,d,p,1.3\n"
    data = prepared_table(fractions, name="f.csv")
    assert raw_sequences(data) == {"u": ["c", "b", "d", "a"]}
    assert data.statistics.tie_share == 0


def test_the_time_may_consist_of_several_columns(prepared_table):
    text = "user,item,provider,month,day\nu,a,p,10,01\nu,b,p,09,30\nu,c,p,09,02\n"
    assert raw_sequences(prepared_table(text, time="month + day")) == {"u": ["c", "b", "a"]}
    with pytest.raises(DataError, match=r"there is no column 'month \+ hour' \(time column\)"):
        prepared_table(text, time="month + hour")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40))
def test_preparation_equals_a_stable_sort(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("p")
    lines = [f"{u},{i},{i % 2},{t}" for u, i, t in rows]
    (folder / "l.csv").write_text("user,item,provider,time\n" + "\n".join(lines) + "\n", encoding="utf-8")
    data = prepare("x", TableSource(path=str(folder / "l.csv")), folder)
    expected: dict[str, list[str]] = {}
    for u, i, _ in sorted(rows, key=lambda row: (str(row[0]), row[2])):
        expected.setdefault(str(u), []).append(str(i))
    assert raw_sequences(data) == expected


def test_the_order_of_a_file_of_many_blocks_is_kept(tmp_path):
    n = 600_000
    path = tmp_path / "big.csv"
    path.write_text("user,item,provider,time\n" + "".join(f"u,{i},p,0\n" for i in range(n)), encoding="utf-8")
    assert raw_sequences(prepare("big", TableSource(path=str(path)), tmp_path))["u"] == list(map(str, range(n)))


def test_the_fingerprint_is_of_the_output(prepared_table):
    header, *rows = LOG.splitlines()
    one = prepared_table(LOG)
    moved = prepared_table("\n".join([header, *sorted(rows)]) + "\n", name="moved.csv")
    other = prepared_table(LOG.replace("u2,a", "u2,c"), name="other.csv")
    assert one.path != moved.path
    assert one.fingerprint == moved.fingerprint != other.fingerprint


def test_preparing_again_reuses_and_a_changed_file_does_not(tmp_path, prepared_table):
    first = prepared_table(LOG)
    before = (first.path / "meta.json").stat().st_mtime_ns
    again = prepare("table", TableSource(path=str(tmp_path / "log.csv")), tmp_path / "data")
    assert (again.path / "meta.json").stat().st_mtime_ns == before
    changed = prepared_table(LOG + "u3,a,p,1\n")
    assert changed.path != first.path
    assert changed.num_users == 3
    assert json.loads((changed.path / "meta.json").read_text())["files"].keys() == {"log.csv"}


def test_a_preparation_that_fails_leaves_nothing_behind(tmp_path, prepared_table, monkeypatch):
    def fail(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ipsrec_bench.data.prepare.describe", fail)
    with pytest.raises(KeyboardInterrupt):
        prepared_table(LOG)
    assert list((tmp_path / "data" / "prepared").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("user,item,provider,time\n", {}, "the dataset is empty"),
        ("", {}, "the file is empty"),
        (
            LOG,
            {"user": "usr"},
            "no column 'usr' (user column); the file has 'user', 'item', 'provider', 'time'; did you mean 'user'?",
        ),
        (LOG, {"time": "when"}, "there is no column 'when' (time column)"),
        (
            LOG.replace("u1,b,q,2", "u1,b,q,noon"),
            {},
            "log.csv:3: the time is 'noon', which is neither a finite number",
        ),
        (LOG.replace("u1,b,q,2", "u1,b,q,nan"), {}, "log.csv:3: the time is 'nan'"),
        (LOG.replace("u1,b,q,2", "u1,b,q,2020-01-01"), {}, "mixes numbers and timestamps"),
        (LOG.replace("u1,b,q,2", ",b,q,2"), {}, "log.csv:3: the user is missing"),
        (LOG.replace("u1,b,q,2", "u1,,q,2"), {}, "log.csv:3: the item is missing"),
        (LOG.replace("u1,b,q,2", "u1,b,q,"), {}, "log.csv:3: the time is missing"),
        (
            LOG.replace("u1,b,q,2", "u1,b"),
            {},
            "log.csv:3: Expected Number of Columns: 4 Found: 2; correct the line or remove it",
        ),
    ],
)
def test_bad_rows_are_named(prepared_table, text, options, words):
    with pytest.raises(DataError) as caught:
        prepared_table(text, **options)
    assert words in str(caught.value)
    assert "log.csv" in str(caught.value)


def test_a_path_is_a_file_and_not_a_pattern(prepared_table):
    prepared_table(LOG, name="log1.csv")
    bracketed = prepared_table("user,item,provider,time\nx,y,z,1\n", name="log[1].csv")
    assert raw_sequences(bracketed) == {"x": ["y"]}


@pytest.mark.parametrize(
    ("text", "mark"), [("user;item;time\nx;y;1\n", "';'"), ("user\titem\ttime\nx\ty\t1\n", "a tab")]
)
def test_the_error_of_a_missing_column_names_the_delimiter_that_the_header_seems_to_have(prepared_table, text, mark):
    with pytest.raises(DataError) as caught:
        prepared_table(text)
    assert f"set `delimiter` if another character (perhaps {mark}) separates the columns" in str(caught.value)


def test_a_file_in_the_working_directory_is_not_the_suites_and_the_error_says_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG, encoding="utf-8")
    with pytest.raises(DataError, match=r"log\.csv: there is no such file; a path of a suite is relative to .*raw"):
        prepare("x", TableSource(path="log.csv"), tmp_path / "data")


def test_missing_files_and_variables_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        prepare("x", TableSource(path=str(tmp_path / "none.csv")), tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(DataError, match="environment variable NOT_SET is not set"):
        prepare("x", TableSource(path="${NOT_SET}/x.csv"), tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.csv").write_text(LOG, encoding="utf-8")
    assert prepare("x", TableSource(path="x.csv"), tmp_path).num_users == 2
    monkeypatch.setenv("NOT_SET", str(tmp_path / "raw"))
    assert prepare("x", TableSource(path="${NOT_SET}/x.csv"), tmp_path).num_users == 2


# Statistics


def naive_stickiness(items, providers, order) -> tuple[int, int]:
    same = counted = 0
    for a, b in pairwise(order):
        if items[a] != items[b] and UNKNOWN_PROVIDER not in (providers[a], providers[b]):
            counted += 1
            same += providers[a] == providers[b]
    return same, counted


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=5), min_size=1, max_size=4)
)
def test_stickiness_equals_counting_over_all_orders(users):
    from itertools import permutations
    from math import factorial

    offsets = lengths([len(user) for user in users])
    items = np.array([i for user in users for i, _ in user], dtype=np.int32)
    providers = np.array([p for user in users for _, p in user], dtype=np.int32)
    found = describe(offsets, items, providers, np.arange(len(items)), UNKNOWN_PROVIDER)

    real, shuffled = np.zeros(2), np.zeros(2)
    for user in users:
        i, p = zip(*user, strict=True)
        real += naive_stickiness(i, p, range(len(user)))
        orders = list(permutations(range(len(user))))
        shuffled += np.sum([naive_stickiness(i, p, order) for order in orders], axis=0) / factorial(len(user))
    assert found.stickiness == (None if real[1] == 0 else pytest.approx(real[0] / real[1]))
    assert found.shuffled_stickiness == (None if shuffled[1] < 1e-9 else pytest.approx(shuffled[0] / shuffled[1]))


def test_what_leave_one_out_leaks_and_what_ties_decide(prepared_table):
    rows = {
        "u": (1, 2, 3, 9, 9),  # target at 9, like what precedes it
        "v": (1, 2, 3, 4, 8),  # target at 8
        "w": (1, 2, 3),  # trains on the first two; target at 3
        "x": (1, 6),  # no target; trains on both
        "y": (5,),  # trains on one
    }
    log = HEADER + "".join(f"{user},{n},p,{t}\n" for user, times in rows.items() for n, t in enumerate(times))
    s = of_split(prepared_table(log))
    assert (s.test_users, s.valid_users) == (3, 2)
    assert s.tied_targets == pytest.approx(1 / 3)
    assert s.leaked_targets == pytest.approx(1 / 3)  # the newest training interaction is that of x, at 6
    later = of_split(prepared_table(log.replace("x,1,p,6", "x,1,p,9"), "later.csv"))
    assert later.leaked_targets == pytest.approx(2 / 3)  # 9 is not older than 9


def of_split(data, **protocol) -> SplitStatistics:
    split = split_dataset(data, Protocol(**protocol))
    return describe_split(data, split, target_facts(data, split))


def test_every_split_has_its_own_statistics(prepared_table):
    rows = {
        "a": "x1 y2 x3 x9",  # repeats x, at 9
        "b": "x1 y2 z7 w8",  # w is in no training interaction of the temporal split
        "c": "y1 x2 y3 x4",
        "d": "x9 y9",  # no history before the last cut
    }
    log = HEADER + "".join(f"{u},{word[0]},p,{word[1]}\n" for u, text in rows.items() for word in text.split())
    data = prepared_table(log)
    one_out = of_split(data)
    assert (one_out.test_users, one_out.valid_users) == (3, 3)
    assert one_out.leaked_targets == pytest.approx(2 / 3)  # d is trained on until 9, which is the time of a's target
    temporal = of_split(data, split="temporal", valid_share=0.2, test_share=0.25)
    assert (temporal.test_users, temporal.valid_users) == (2, 3)
    assert (temporal.leaked_targets, temporal.tied_targets) == (0, 0)
    assert (temporal.repeated_targets, temporal.unseen_targets) == (0.5, 0.5)


def test_data_stats_states_the_split(tmp_path, bench):
    (tmp_path / "t.toml").write_text(
        f'title = "t"\n[datasets.shop]\npath = "{CASES}/shop.csv"\n[protocol]\nsplit = "temporal"\ntest_share = 0.2\n'
        "[models.pop]\n",
        encoding="utf-8",
    )

    def stats(*arguments):
        done = bench("data", "stats", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["split"]

    assert stats(CASES / "shop.csv")["name"] == "leave-one-out"
    assert stats("shop", "--suite", "t.toml")["name"] == "temporal 0.1 0.2"
    assert stats("shop", "--suite", "t.toml", "--set", "protocol.split=user-holdout")["test_users"] == 8
    (tmp_path / "short.csv").write_text(HEADER + "u,a,p,1\n", encoding="utf-8")
    assert "no user has 4 interactions" in stats("short.csv")["problem"]
    assert "no user has 4 interactions" in bench("data", "stats", "short.csv").stdout
    assert "│ Split " in bench("data", "stats", CASES / "shop.csv").stdout


def test_counts_and_shares(prepared_table):
    s = prepared_table("user,item,provider,time\n" + "u,a,p,1\nu,b,p,1\nu,a,p,2\nu,c,q,3\nv,a,p,1\n").statistics
    assert (s.users, s.items, s.actions, s.providers) == (2, 3, 5, 2)
    assert s.repeat_share == pytest.approx(1 / 3)
    assert s.tie_share == pytest.approx(1 / 3)
    assert s.stickiness == pytest.approx(2 / 3)
    assert s.untied_stickiness == pytest.approx(1 / 2)
    assert s.length_quantiles["1"] == 4


# Split


@pytest.mark.parametrize(
    ("length", "trained", "has_valid", "has_test"),
    [(1, 1, 0, 0), (2, 2, 0, 0), (3, 2, 0, 1), (4, 2, 1, 1), (7, 5, 1, 1)],
)
def test_leave_one_out_keeps_what_short_histories_need(prepared_table, length, trained, has_valid, has_test):
    rows = [f"u,{i},p,{i}" for i in range(length)] + [f"v,{i},p,{i}" for i in range(4)]
    data = prepared_table("user,item,provider,time\n" + "\n".join(rows) + "\n")
    split = leave_one_out(data)
    assert split.train_ends[0] - data.offsets[0] == trained
    assert (0 in split.valid.users, 0 in split.test.users) == (has_valid, has_test)
    if has_test:
        assert split.test.positions[0] == length - 1
    if has_valid:
        assert split.valid.positions[0] == length - 2


def test_having_no_user_to_evaluate_is_an_error(prepared_table):
    data = prepared_table("user,item,provider,time\nu,a,p,1\nv,b,p,1\nw,a,p,1\n")
    with pytest.raises(DataError, match="no user has 4 interactions or more"):
        leave_one_out(data)


# Synthetic worlds


def test_worlds_are_reproducible_and_differ_only_in_the_deciding_factor(tmp_path):
    one, two = generate(SyntheticSource()), generate(SyntheticSource())
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    positive = prepare("p", SyntheticSource(provider_strength="high"), tmp_path).statistics
    negative = prepare("n", SyntheticSource(provider_strength="none"), tmp_path).statistics
    assert positive.stickiness > 2 * positive.shuffled_stickiness
    assert negative.stickiness < 1.3 * negative.shuffled_stickiness
    assert (positive.users, positive.actions) == (negative.users, negative.actions)


def provider_steps(**settings) -> list[tuple[int, int]]:
    log = generate(SyntheticSource(users=300, **settings))
    same_user = log.user[1:] == log.user[:-1]
    return list(zip(log.provider[:-1][same_user].tolist(), log.provider[1:][same_user].tolist(), strict=True))


def test_loyalty_and_drift_act_as_named():
    loyal = provider_steps(loyalty=1.0, drift=0.0)
    assert 0.78 < np.mean([a == b for a, b in loyal]) < 0.86  # 80% of the steps; of the others some by chance
    drifting = provider_steps(loyalty=0.0, drift=1.0)
    following = dict(Counter(drifting).most_common(50))
    assert len({a for a, _ in following}) == len({b for _, b in following}) == 50  # each has one successor
    assert 0.78 < sum(following.values()) / len(drifting) < 0.86
    wandering = provider_steps(loyalty=0.0, drift=0.0)
    assert max(Counter(wandering).values()) / len(wandering) < 0.01


def test_impossible_worlds_are_refused():
    with pytest.raises(ValueError, match="may not add up to more than 1"):
        SyntheticSource(loyalty=0.6, drift=0.5)
    with pytest.raises(ValueError, match="may not exceed providers"):
        SyntheticSource(providers=2)


# Real data

REAL = os.environ.get("IPSREC_BENCH_REAL_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="IPSREC_BENCH_REAL_DATA names no folder of real datasets")


@needs_real_data
@pytest.mark.parametrize(
    ("name", "counts", "ties", "sticky", "shuffled", "untied", "tied", "leaked"),
    [
        ("amazon-beauty", (22363, 12101, 435, 198502), 0.44, 0.207, 0.122, 0.124, 0.4346, 0.9995),
        ("amazon-toys", (19412, 11924, 657, 167597), 0.0, 0.234, 0.158, 0.234, 0.0, 0.9999),
    ],
)
def test_real_statistics(tmp_path, name, counts, ties, sticky, shuffled, untied, tied, leaked):
    data = prepare(name, TableSource(path=f"{REAL}/{name}.tsv.gz"), tmp_path)
    s = data.statistics
    assert (s.users, s.items, s.providers, s.actions) == counts
    assert s.tie_share == pytest.approx(ties, abs=0.005)
    assert s.stickiness == pytest.approx(sticky, abs=0.0006)
    assert s.shuffled_stickiness == pytest.approx(shuffled, abs=0.0006)
    assert s.untied_stickiness == pytest.approx(untied, abs=0.0006)
    assert of_split(data).tied_targets == pytest.approx(tied, abs=0.0001)
    assert of_split(data).leaked_targets == pytest.approx(leaked, abs=0.0001)
    assert of_split(data, split="temporal").leaked_targets == 0


@needs_real_data
def test_a_time_in_two_columns(tmp_path):
    source = TableSource(
        path=f"{REAL}/tmall-ijcai15-head.csv.gz",
        user="user_id",
        item="item_id",
        provider="merchant_id",
        time="month + day",
    )
    s = prepare("tmall", source, tmp_path).statistics
    assert (s.users, s.items, s.providers, s.actions) == (62, 5915, 1445, 9999)
    assert s.tie_share == pytest.approx(0.86, abs=0.005)


@needs_real_data
def test_real_join(tmp_path):
    import zipfile

    with zipfile.ZipFile(Path(str(REAL)) / "xwines-slim.zip") as archive:
        archive.extractall(tmp_path)
    source = TableSource.model_validate(
        {
            "path": str(tmp_path / "XWines_Slim_150K_ratings.csv"),
            "user": "UserID",
            "item": "WineID",
            "time": "Date",
            "items": {"path": str(tmp_path / "XWines_Slim_1K_wines.csv"), "item": "WineID", "provider": "WineryID"},
        }
    )
    s = prepare("xwines", source, tmp_path).statistics
    assert (s.users, s.items, s.providers, s.actions) == (10561, 1007, 792, 150000)
    assert s.known_provider_actions == s.actions
    assert s.stickiness == pytest.approx(0.012, abs=0.0006)
    assert s.shuffled_stickiness == pytest.approx(0.006, abs=0.0006)


def test_times_are_kept_and_belong_to_the_fingerprint(prepared_table):
    log = "user,item,provider,time\n" + "\n".join(f"u,{item},p,{time}" for item, time in enumerate((3, 5, 5, 2**40)))
    data = prepared_table(log)
    assert data.times.dtype == np.int64
    assert data.times.tolist() == [3, 5, 5, 2**40]
    later = prepared_table(log.replace(",3\n", ",4\n"), "later.csv")
    assert later.items.tolist() == data.items.tolist()
    assert later.fingerprint != data.fingerprint
    numbers = prepared_table(log.replace(",3\n", ",2.5\n"), "numbers.csv")
    assert numbers.times.tolist() == [2.5, 5.0, 5.0, 2.0**40]
    stamps = prepared_table(
        "user,item,provider,time\nu,1,p,1970-01-01 00:00:01\nu,2,p,1970-01-01 00:00:02\n", "stamps.csv"
    )
    assert stamps.times.tolist() == [1_000_000, 2_000_000]


@pytest.mark.parametrize(
    ("first", "second", "time_format", "per_second", "seconds"),
    [
        ("3", "86403", "", 1, 86_400),
        ("1e3", "1000.5", "", 1, 0.5),
        ("1999-12-31", "2000-01-01", "", 1_000_000, 86_400),
        ("2000-01-01 00:00:00.25", "2000-01-01 00:00:01", "", 1_000_000, 0.75),
        ("2000-01-01 00:00:00.123456789", "2000-01-01 00:00:01", "", 1_000_000_000, 1 - 0.123456789),
        ("31.12.1999", "01.01.2000", "%d.%m.%Y", 1_000_000, 86_400),
        ("0:00:00.000000001", "0:00:02.000000001", "%H:%M:%S.%n", 1_000_000_000, 2),
    ],
)
def test_models_get_times_in_seconds(prepared_table, first, second, time_format, per_second, seconds):
    log = f"user,item,provider,time\nu,a,p,{first}\nu,b,p,{second}\n"
    data = prepared_table(log, time_format=time_format)
    assert data.times_per_second == per_second
    sequences = ResidentSequences(data, torch.device("cpu"), times=True)
    histories = sequences.gather(np.array([0]), np.array([0]), np.array([1]))
    assert histories.times.dtype == torch.float64
    assert float(histories.next_times - histories.times[:, 0]) == pytest.approx(seconds, abs=1e-6)
