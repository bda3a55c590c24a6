"""`compare`, `export ranks` and `import-ranks`."""

import json

import duckdb
import numpy as np
import pytest

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.errors import DataError, StoreError, SuiteError
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.selections import compare_named
from ipsrec_bench.run.imports import import_ranks
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import find_run
from ipsrec_bench.suite.load import load_suite

from .conftest import vocabulary
from .planted import built, fill, mean_over_seeds, planted_ranks


def compared(path, a, b):
    with reading(path) as connection:
        return compare_named(connection, find_run(connection), a, b)


def test_two_rows_are_compared_on_every_metric(tmp_path):
    made = compared(fill(tmp_path / "s.duckdb"), "ipsrec-s", "pop")
    assert [c.metric for c in made] == ["hr@5", "hr@10", "mrr@5", "mrr@10"]
    test = paired_t_test(mean_over_seeds(2, "mrr@5") - mean_over_seeds(0, "mrr@5"))
    assert made[2].by_users == test
    assert (made[2].row.display, made[2].reference.display, made[2].seeds) == ("IPSREC-S", "POP", 3)


def test_two_cells_are_compared_whatever_their_seeds(tmp_path):
    path = fill(tmp_path / "s.duckdb", datasets=("abcdef",), rows=[("0", ""), ("1", "")])
    (one, *_) = compared(path, "abcdef01", "abcdef12")
    test = paired_t_test(metric("hr@5", planted_ranks(0, 1)) - metric("hr@5", planted_ranks(1, 2)))
    assert (one.by_users.mean, one.p, one.seeds) == (test.mean, test.p, 1)
    assert one.row.display == "0 (abcdef, seed 1)"
    assert compared(path, "abcdef01", "0")[0].difference == 0  # a cell against its own row: the seed in common


def test_two_runs_are_compared_row_by_row(tmp_path):
    path = fill(tmp_path / "s.duckdb")
    fill(path, rows=[("pop", ""), ("sasrec", "")])
    made = compared(path, "planted@1", "planted@2")
    assert {(c.row.display, c.reference.display) for c in made} == {
        ("planted@1: pop", "planted@2: pop"),
        ("planted@1: sasrec", "planted@2: sasrec"),
    }
    assert {c.difference for c in made} == {0.0}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("nobody", "pop", "'nobody' is no row of the suite 'planted'"),
        ("planted", "pop", "compare a run with a run"),
        ("planted@7", "planted", "holds no run 7 of the suite 'planted'"),
    ],
)
def test_names_that_mean_nothing(tmp_path, a, b, message):
    with pytest.raises(StoreError, match=message):
        compared(fill(tmp_path / "s.duckdb"), a, b)


def test_other_data_of_the_same_name_cannot_be_paired(tmp_path):
    path = fill(tmp_path / "s.duckdb", datasets=("abcdef",), rows=[("0", "")])
    fill(path, datasets=("abcdef",), rows=[("1", "")], fingerprint="g")
    with pytest.raises(StoreError, match="different data called 'abcdef' \\(fingerprints 'f', 'g'\\)"):
        compared(path, "1", "abcdef01")


SUITE = """
title = "Own"
seeds = [1]
[datasets.world]
source = "synthetic"
users = 60
items = 30
providers = 5
mean_length = 6
[models.pop]
[models.recent-pop]
[protocol]
cutoffs = [5, 10]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.toml").write_text(SUITE, encoding="utf-8")
    file = load_suite(tmp_path / "own.toml")
    data = prepare("world", cells_of(file)[0].source, tmp_path / "data")
    return file, data, leave_one_out(data).test, vocabulary(data, "users"), vocabulary(data, "items")


def enter(tmp_path, own, text, name="theirs.csv", **options):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", model="theirs", **options)


def test_ranks_of_another_model_enter_the_tables(tmp_path, own, bench):
    _, _, test, users, _ = own
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 31, len(test.users))
    text = "user,rank\n" + "".join(f"{users[u]},{r}\n" for u, r in zip(test.users, ranks, strict=True))
    (tmp_path / "theirs.csv").write_text(text, encoding="utf-8")
    done = bench("import-ranks", "theirs.csv", "--suite", "own.toml", "--model", "theirs", "--store", "s.duckdb")
    assert done.returncode == 0, done.stderr
    assert f"Imported the ranks of {len(ranks)} test users" in done.stdout
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "recent-pop", "theirs"]
    line = next(line for line in report.results.lines if line.metric == "ndcg@10")
    assert line.cells[2].score.mean == pytest.approx(metric("ndcg@10", ranks).mean())
    assert not report.missing
    assert {c.row.label for c in report.comparisons} | {c.reference.label for c in report.comparisons} == {
        "pop",
        "recent-pop",
        "theirs",
    }
    assert [row.label for row, _ in report.settings][-1] == "theirs"
    compared_too = bench("compare", "theirs", "pop", "--store", "s.duckdb", "--json")
    assert json.loads(compared_too.stdout)[0]["reference"]["display"] == "Pop"
    again = bench("run", "own.toml", "--store", "s.duckdb", "--quiet")  # a new run of the suite has them, too
    assert again.returncode == 0
    assert [row.label for row in built(tmp_path / "s.duckdb").results.columns][-1] == "theirs"


def test_lists_with_scores_are_ranked_with_ties(tmp_path, own):
    _, data, test, users, items = own
    rng = np.random.default_rng(1)
    targets = data.items[test.positions]
    rows, higher, ties = [], [], []
    for user, target in zip(test.users, targets, strict=True):
        chosen = rng.permutation(np.arange(1, 31))[:20]
        scores = rng.integers(0, 6, 20) / 2
        rows += [(users[user], items[i], s) for i, s in zip(chosen, scores, strict=True)]
        if target in chosen:
            own_score = scores[chosen == target][0]
            higher.append((scores > own_score).sum())
            ties.append((scores == own_score).sum() - 1)
        else:
            higher.append(data.num_items - 1)
            ties.append(0)
    text = "user\titem\tscore\n" + "".join(
        f"{u}\t{i}\t{s}\n" for u, i, s in rng.permutation(np.array(rows, dtype=object))
    )
    found = enter(tmp_path, own, text, "theirs.tsv")
    assert found.ranks["test"].users.tolist() == test.users.tolist()
    assert found.ranks["test"].higher.tolist() == higher
    assert found.ranks["test"].ties.tolist() == ties
    assert found.depth == 20


@pytest.mark.parametrize("column", ["score", "rank"])
def test_lists_without_the_history_where_the_suite_masks_it(tmp_path, own, column):
    _, data, test, users, items = own
    rows, higher, missed = [], [], []
    for user, position in zip(test.users, test.positions, strict=True):
        history = set(data.items[data.offsets[user] : position].tolist())
        target = int(data.items[position])
        values = {i: i if column == "rank" else 30 - i for i in range(1, data.num_items + 1)}
        rows += [f"{users[user]},{items[i]},{value}\n" for i, value in values.items()]
        missed.append(target in history)
        higher.append(sum(i < target and i not in history for i in range(1, target)))
    assert any(missed)
    text = f"user,item,{column}\n" + "".join(rows)
    kept = [h for h, miss in zip(higher, missed, strict=True) if not miss]
    for mask, expected in (
        ("true", kept),
        ("miss", [data.num_items if miss else h for h, miss in zip(higher, missed, strict=True)]),
    ):
        found = enter(tmp_path, (load_suite(own[0].path, [f"protocol.mask_history={mask}"]),), text)
        assert found.ranks["test"].higher.tolist() == expected
        assert found.depth is None


def test_short_lists_are_warned_of(tmp_path, own, bench):
    _, _, test, users, items = own
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    text = "user,item,score\n" + "".join(f"{users[u]},{items[i]},{i}\n" for u in test.users for i in (1, 2, 3))
    enter(tmp_path, own, text)
    assert any("the shortest of 3 items" in warning for warning in built(tmp_path / "s.duckdb").warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "1 of .* test users are not in it"),
        (lambda rows: [*rows, rows[0]], r"theirs.csv:\d+: the user '.*' stands there twice"),
        (lambda rows: ["stranger,1\n", *rows], "theirs.csv:2: the data have no user 'stranger'"),
        (lambda rows: [rows[0].split(",")[0] + ",0\n", *rows[1:]], "theirs.csv:2: the rank is '0'; expected a whole"),
        (lambda rows: [rows[0].split(",")[0] + ",31\n", *rows[1:]], "from 1 to 30"),
        (lambda rows: [rows[0].split(",")[0] + ",1.5\n", *rows[1:]], "the rank is '1.5'"),
        (lambda rows: [",3\n", *rows[1:]], "theirs.csv:2: there is no user"),
    ],
)
def test_wrong_ranks_are_refused_with_their_place(tmp_path, own, change, message):
    _, _, test, users, _ = own
    rows = [f"{users[u]},{1 + u % 9}\n" for u in test.users]
    with pytest.raises(DataError, match=message):
        enter(tmp_path, own, "user,rank\n" + "".join(change(rows)))
    assert not (tmp_path / "s.duckdb").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{user},{item},nan", "which is no number"),
        ("{user},{item},high", "the score is 'high'"),
        ("{user},nothing,1", "the data have no item 'nothing'"),
        ("{user},{item},1\n{user},{item},2", "theirs.csv:3: the item '.*' of user '.*' stands there twice"),
    ],
)
def test_wrong_lists_are_refused_with_their_place(tmp_path, own, line, message):
    _, _, test, users, items = own
    with pytest.raises(DataError, match=message):
        enter(tmp_path, own, "user,item,score\n" + line.format(user=users[test.users[0]], item=items[1]) + "\n")


def test_other_mistakes_of_an_import(tmp_path, own, bench):
    with pytest.raises(DataError, match="expected columns 'user' and 'rank'"):
        enter(tmp_path, own, "user,position\na,1\n")
    with pytest.raises(SuiteError, match="no dataset 'wrld'; did you mean 'world'"):
        enter(tmp_path, own, "user,rank\n", dataset="wrld")
    done = bench("import-ranks", "none.csv", "--suite", "own.toml", "--model", "pop")
    assert (done.returncode, "the suite has a row 'pop' itself" in done.stderr) == (2, True)
    done = bench("import-ranks", "none.csv", "--suite", "own.toml", "--model", "x")
    assert (done.returncode, "none.csv: there is no such file" in done.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ranks_are_exported(tmp_path, bench, kind):
    fill(tmp_path / "s.duckdb")
    done = bench("export", "ranks", "--format", kind, "--store", "s.duckdb", "-o", f"it's.{kind}")
    assert done.returncode == 0, done.stderr
    rows = duckdb.sql(f"SELECT * FROM '{tmp_path}/it''s.{kind}'").fetchall()
    assert len(rows) == 4 * 3 * 400
    columns = duckdb.sql(f"SELECT * FROM '{tmp_path}/it''s.{kind}'").columns
    ranks = [row[columns.index("rank")] for row in rows if row[columns.index("model")] == "sasrec"]
    assert sorted(ranks) == sorted(
        np.minimum(np.concatenate([planted_ranks(1, seed) for seed in (1, 2, 3)]), 900).tolist()
    )
    wrong = bench("export", "ranks", "--suite", "plantd", "--store", "s.duckdb")
    assert (wrong.returncode, "did you mean 'planted'" in wrong.stderr) == (2, True)


def test_facts_of_targets_are_those_of_a_naive_count(own):
    _, data, test, _, _ = own
    split = leave_one_out(data)
    facts = target_facts(data, split)
    trained = [
        (int(i), int(p))
        for begin, end in zip(data.offsets, split.train_ends, strict=False)
        for i, p in zip(data.items[begin:end], data.providers[begin:end], strict=True)
    ]
    for index, (user, position) in enumerate(zip(test.users, test.positions, strict=True)):
        item, provider = int(data.items[position]), int(data.providers[position])
        history = slice(data.offsets[user], position)
        assert facts.users[index] == user
        assert facts.history[index] == position - data.offsets[user]
        assert facts.item_count[index] == sum(i == item for i, _ in trained)
        assert facts.provider_count[index] == (-1 if provider == 1 else sum(p == provider for _, p in trained))
        assert facts.item_seen[index] == (item in data.items[history])
        assert facts.provider_seen[index] == (provider != 1 and provider in data.providers[history])


@pytest.mark.parametrize("name", ["Pop", "recent-pop", "best", " ", "a\x01b"])
def test_an_import_takes_no_name_of_the_suites_own(tmp_path, own, name):
    path = tmp_path / "theirs.csv"
    path.write_text("user,rank\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"give the imported one another name|a row of the tables needs a name"):
        import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", model=name)


def perfect(own) -> str:
    _, _, test, users, _ = own
    return "user,rank\n" + "".join(f"{users[u]},1\n" for u in test.users)


def test_an_import_for_other_data_or_another_protocol_is_left_out(tmp_path, own, bench):
    enter(tmp_path, own, perfect(own))
    other = ["--set", "protocol.mask_history=true"]
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *other).returncode == 0
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "recent-pop"]
    assert any("imported for another mask_history and is left out" in warning for warning in report.warnings)
    fewer = ["--set", "datasets.world.users=50"]
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *fewer).returncode == 0
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "recent-pop"]
    assert any("imported for another dataset" in warning for warning in report.warnings)


def test_a_replaced_import_leaves_nothing_behind(tmp_path, own):
    enter(tmp_path, own, perfect(own))
    enter(tmp_path, own, perfect(own).replace(",1\n", ",2\n"))
    with reading(tmp_path / "s.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (1,)
        assert connection.execute("SELECT DISTINCT higher FROM ranks").fetchall() == [(1,)]


def test_an_imported_variant_may_stand_alone_and_another_seed_is_no_baseline(tmp_path, own, bench):
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    enter(tmp_path, own, perfect(own), variant="big")
    path = tmp_path / "better.csv"
    path.write_text(perfect(own), encoding="utf-8")
    import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", model="better", seed=7)
    report = built(tmp_path / "s.duckdb")
    assert {c.reference.label for c in report.comparisons} <= {"pop", "recent-pop"}
    assert "theirs big" in {c.row.label for c in report.comparisons}


def test_rows_of_one_title_are_told_apart(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=[("pop", ""), ("sasrec", "")], display=lambda _: "SAME")
    report = built(path)
    assert [row.display for row in report.results.columns] == ["SAME (pop)", "SAME (sasrec)"]
    assert compared(path, "sasrec", "pop")[0].difference != 0
