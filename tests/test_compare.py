"""`compare`, `export ranks` and `import-ranks`."""

import gzip
import json
from pathlib import Path

import duckdb
import numpy as np
import pytest

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import leave_one_out, split_dataset
from ipsrec_bench.data.target_facts import target_facts
from ipsrec_bench.errors import DataError, StoreError, SuiteError
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import compare_named, read_named
from ipsrec_bench.run.imports import Labels, import_ranks
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.store.connect import reading
from ipsrec_bench.suite.load import load_suite

from .conftest import vocabulary
from .planted import built, difference_of, fill, mean_over_seeds, planted_ranks


def compared(path, a, b):
    with reading(path) as connection:
        named = read_named(connection, read_run(connection), a, b)
    return compare_named(named)


def test_two_rows_are_compared_on_every_metric(tmp_path):
    made = compared(fill(tmp_path / "s.duckdb"), "ipsrec-s", "pop")
    assert [c.metric for c in made] == ["hr@5", "hr@10", "mrr@5", "mrr@10"]
    test = paired_t_test(difference_of(2, 0, "mrr@5"))
    assert made[2].by_users == test
    assert (made[2].row.display, made[2].reference.display, made[2].seeds) == ("IPSREC-S", "POP", 3)


def test_two_cells_are_compared_whatever_their_seeds(tmp_path):
    path = fill(tmp_path / "s.duckdb", datasets=("abcdef",), rows=[("0", ""), ("1", "")])
    (one, *_) = compared(path, "abcdef01", "abcdef12")
    test = paired_t_test(metric("hr@5", planted_ranks(0, 1)) - metric("hr@5", planted_ranks(1, 2)))
    assert (one.by_users.mean, one.p, one.seeds) == (test.mean, test.p, 1)
    assert one.row.display == "0 (abcdef, seed 1)"
    own = compared(path, "abcdef01", "0")[0]  # against its own row, with all of its seeds
    assert (own.seeds, own.reference_seeds) == (1, 3)
    assert own.difference == pytest.approx(
        metric("hr@5", planted_ranks(0, 1)).mean() - mean_over_seeds(0, "hr@5").mean()
    )


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
        ("nobody", "pop", "'nobody' is neither a row of the suite 'planted'"),
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
    with pytest.raises(StoreError, match="differ in data \\(fingerprints g and f\\)"):
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


def enter(tmp_path, own, text, name="theirs.csv", replace=False, **labels):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    labelled = Labels("theirs", **labels)
    return import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", labelled, replace=replace).record


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
    assert [line.row.label for line in report.settings][-1] == "theirs"
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
    assert any("the shortest has 3 items" in warning for warning in built(tmp_path / "s.duckdb").warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "1 of .* test users are missing"),
        (lambda rows: [*rows, rows[0]], r"theirs.csv:\d+: the user '.*' occurs twice"),
        (lambda rows: ["stranger,1\n", *rows], "theirs.csv:2: the data have no user 'stranger'"),
        (lambda rows: [rows[0].split(",")[0] + ",0\n", *rows[1:]], "theirs.csv:2: the rank is '0'; expected a whole"),
        (lambda rows: [rows[0].split(",")[0] + ",31\n", *rows[1:]], "from 1 to 30"),
        (lambda rows: [rows[0].split(",")[0] + ",1.5\n", *rows[1:]], "the rank is '1.5'"),
        (lambda rows: [",3\n", *rows[1:]], "theirs.csv:2: the user is missing"),
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
        ("{user},{item},nan", "not a finite number"),
        ("{user},{item},high", "the score is 'high'"),
        ("{user},nothing,1", "the data have no item 'nothing'"),
        ("{user},{item},1\n{user},{item},2", "theirs.csv:3: the item '.*' of user '.*' occurs twice"),
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


def test_a_packed_file_of_ranks_that_was_cut_off_is_refused(tmp_path, own):
    """Its end holds nothing but the checksum, so that the ranks before it may be anything."""
    notes = map(str, np.random.default_rng(0).random((60, 20)).tolist())
    text = "".join(f'{line},"{note}"\n' for line, note in zip(perfect(own).splitlines(), notes, strict=False))
    (tmp_path / "theirs.csv.gz").write_bytes(gzip.compress(text.encode())[:-6])
    with pytest.raises(DataError, match=r"theirs\.csv\.gz: the gzip file is truncated or damaged"):
        import_ranks(tmp_path / "theirs.csv.gz", own[0], tmp_path / "data", tmp_path / "s.duckdb", Labels("theirs"))


def test_lines_of_ranks_that_cannot_be_read_are_refused_by_line(tmp_path, own):
    with pytest.raises(DataError, match=r"theirs\.csv: line 1 ends in \\n and line 3 in \\r\\n"):
        enter(tmp_path, own, perfect(own).replace("\n", "\r\n").replace("\r\n", "\n", 2))


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
def test_an_import_cannot_have_the_name_of_a_row_of_the_suite(tmp_path, own, name):
    path = tmp_path / "theirs.csv"
    path.write_text("user,rank\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"give the imported one another name|a row of the tables needs a name"):
        import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", Labels(name))


def perfect(own) -> str:
    _, _, test, users, _ = own
    return "user,rank\n" + "".join(f"{users[u]},1\n" for u in test.users)


OTHERS = {
    "mask_history (false and true)": ["protocol.mask_history=true"],
    "mask_history (false and miss)": ["protocol.mask_history=miss"],
    "candidates (all and available)": ["protocol.candidates=available"],
    "split (leave-one-out and user-holdout 0.1 0.5)": ["protocol.split=user-holdout", "protocol.test_share=0.5"],
    "data (fingerprints": ["datasets.world.users=50"],
    "filter (none and users with 4 or more": ["protocol.filter=4-core"],
}


@pytest.mark.parametrize(("difference", "overrides"), OTHERS.items(), ids=list(OTHERS))
def test_an_import_for_other_targets_is_left_out_and_named_everywhere(tmp_path, own, bench, difference, overrides):
    enter(tmp_path, own, perfect(own))
    other = [part for override in overrides for part in ("--set", override)]
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *other).returncode == 0
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "recent-pop"]
    (warning,) = (warning for warning in report.warnings if "left out" in warning)
    assert warning.startswith(f"theirs on world, seed 1, was imported for another {difference}")
    assert warning.endswith(" and is left out; import it again")
    with duckdb.connect(str(tmp_path / "s.duckdb"), read_only=True) as connection:
        for view in ("metrics", "user_ranks", "current_cells", "metrics_at(5)"):
            models = connection.execute(f"SELECT DISTINCT model FROM {view} ORDER BY ALL").fetchall()
            assert models == [("pop",), ("recent-pop",)]
    for a, b in (("theirs", "pop"), ("pop", "theirs")):
        done = bench("compare", a, b, "--store", "s.duckdb")
        assert done.returncode == 2
        assert f"was imported for another {difference}" in done.stderr.replace("\n", " ")


def test_an_import_of_another_share_is_left_out(tmp_path, own, bench):
    """The split's name is the same, its targets are others: sixty users were once compared on different ones."""
    holdout = ["protocol.split=user-holdout", "protocol.test_share=0.2"]
    more = [*holdout[:1], "protocol.test_share=0.4"]
    file = load_suite(own[0].path, holdout)
    test = split_dataset(own[1], cells_of(file)[0].protocol).test
    users = own[3]
    text = "user,rank\n" + "".join(f"{users[u]},1\n" for u in test.users)
    enter(tmp_path, (file,), text)
    settings = [part for override in more for part in ("--set", override)]
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *settings).returncode == 0
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "recent-pop"]
    assert any("another split (user-holdout 0.1 0.2 and user-holdout 0.1 0.4)" in line for line in report.warnings)
    same = [part for override in holdout for part in ("--set", override)]
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *same).returncode == 0
    assert [row.label for row in built(tmp_path / "s.duckdb").results.columns] == ["pop", "recent-pop", "theirs"]


@pytest.mark.parametrize(("difference", "overrides"), OTHERS.items(), ids=list(OTHERS))
@pytest.mark.usefixtures("own")
def test_runs_of_other_targets_are_not_compared(tmp_path, bench, difference, overrides):
    other = [part for override in overrides for part in ("--set", override)]
    for settings in ([], other):
        assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *settings).returncode == 0
    done = bench("compare", "own@1", "own@2", "--store", "s.duckdb")
    assert done.returncode == 2
    said = done.stderr.replace("\n", " ")
    assert "'own@1' and 'own@2' cannot be compared on 'world'" in said
    assert f"they differ in {difference}" in said
    assert "import" not in said
    with reading(tmp_path / "s.duckdb") as connection:
        keys = [next(c.key for c in read_run(connection, "own", number).cells if c.model == "pop") for number in (1, 2)]
    cells = bench("compare", *keys, "--store", "s.duckdb")
    assert (cells.returncode, f"they differ in {difference}" in cells.stderr.replace("\n", " ")) == (2, True)


@pytest.mark.usefixtures("own")
def test_runs_on_the_same_targets_are_compared_whatever_else_differs(tmp_path, bench):
    for length in (5, 3):
        settings = ["--set", f"protocol.max_length={length}", "--set", "protocol.mask_history=true"]
        assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet", *settings).returncode == 0
    assert len(compared(tmp_path / "s.duckdb", "own@1", "own@2")) == 2 * 6


def test_the_views_do_not_mix_a_row_with_an_import_of_its_name(tmp_path, own, bench):
    enter(tmp_path, own, perfect(own))
    (tmp_path / "own.toml").write_text(SUITE.replace("[models.pop]", "[models.theirs]\ntype = 'pop'\n[models.pop]"))
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    with duckdb.connect(str(tmp_path / "s.duckdb"), read_only=True) as connection:
        rows = connection.execute("SELECT model, users, \"hr@5\" FROM metrics WHERE split = 'test'").fetchall()
    values = {model: (users, value) for model, users, value in rows}
    assert values["theirs"] == values["pop"]
    assert len(rows) == 3


def test_imports_for_different_targets_are_never_compared(tmp_path, own, bench):
    """Where no cell of the run's own is complete, the newest import decides, and nothing fails."""
    path = tmp_path / "other.csv"
    path.write_text(perfect(own), encoding="utf-8")
    masked = load_suite(own[0].path, ["protocol.mask_history=true"])
    import_ranks(path, masked, tmp_path / "data", tmp_path / "s.duckdb", Labels("masked"))
    enter(tmp_path, own, perfect(own))
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    duckdb.connect(str(tmp_path / "s.duckdb")).execute(
        "UPDATE cells SET status = 'failed', error = 'no' WHERE type <> 'external'"
    ).close()
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns if "theirs" in row.label or "masked" in row.label] == ["theirs"]
    assert any("masked on world, seed 1, was imported for another mask_history" in line for line in report.warnings)


@pytest.mark.usefixtures("own")
def test_cells_without_a_digest_are_compared_by_their_settings(tmp_path, bench):
    """Older versions kept none; and under a mask, their repeated targets were candidates."""
    for mask in ("false", "true"):
        settings = ["--set", f"protocol.mask_history={mask}", "--store", f"{mask}.duckdb", "--quiet"]
        for length in (5, 3):
            assert bench("run", "own.toml", "--set", f"protocol.max_length={length}", *settings).returncode == 0
        duckdb.connect(str(tmp_path / f"{mask}.duckdb")).execute(
            "DELETE FROM cell_targets WHERE cell IN (SELECT cell FROM cells WHERE settings LIKE '%\"max_length\": 5%')"
        ).close()
    assert len(compared(tmp_path / "false.duckdb", "own@1", "own@2")) == 2 * 6
    with pytest.raises(StoreError, match=r"mask_history \(true, targets exempt and true\)"):
        compared(tmp_path / "true.duckdb", "own@1", "own@2")


@pytest.mark.usefixtures("own")
def test_other_targets_under_the_same_settings_are_found_by_their_digest(tmp_path, bench):
    for length in (5, 3):
        settings = ["--set", f"protocol.max_length={length}", "--store", "s.duckdb", "--quiet"]
        assert bench("run", "own.toml", *settings).returncode == 0
    duckdb.connect(str(tmp_path / "s.duckdb")).execute(
        "UPDATE cell_targets SET targets = 'x' WHERE cell IN (SELECT cell FROM cells WHERE settings LIKE"
        " '%\"max_length\": 5%')"
    ).close()
    with pytest.raises(StoreError, match="differ in set of targets under the same settings"):
        compared(tmp_path / "s.duckdb", "own@1", "own@2")


@pytest.mark.usefixtures("own")
def test_a_cell_of_the_runs_own_that_ranks_other_targets_is_left_out_and_named(tmp_path, bench):
    """As after a change to the split that nobody raised RANKS_FORMAT for."""
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    duckdb.connect(str(tmp_path / "s.duckdb")).execute(
        "UPDATE cell_targets SET targets = 'x' WHERE cell = (SELECT min(cell) FROM cells)"
    ).close()
    report = built(tmp_path / "s.duckdb")
    (warning,) = (warning for warning in report.warnings if "left out" in warning)
    assert warning == (
        "Pop on world, seed 1, was run with another set of targets under the same settings and is left out; run the"
        " suite again with --force"
    )
    assert [row.label for row in report.results.columns] == ["recent-pop"]
    done = bench("compare", "pop", "recent-pop", "--store", "s.duckdb")
    assert (done.returncode, "run the suite again with --force" in done.stderr.replace("\n", " ")) == (2, True)


def test_two_imports_under_one_label_are_refused_unless_one_replaces_the_other(tmp_path, own, bench):
    enter(tmp_path, own, perfect(own))
    enter(tmp_path, own, perfect(own))  # the same once more
    other = perfect(own).replace(",1\n", ",2\n")
    with pytest.raises(
        StoreError, match=r"'theirs' on 'world', seed 1, was imported before, from theirs\.csv; import it"
    ):
        enter(tmp_path, own, other, "other.csv")
    enter(tmp_path, own, other, "other.csv", seed=2)
    enter(tmp_path, own, other, "other.csv", variant="big")
    with pytest.raises(StoreError, match="'theirs big' on 'world'"):  # the same label, put together otherwise
        import_ranks(tmp_path / "theirs.csv", own[0], tmp_path / "data", tmp_path / "s.duckdb", Labels("theirs big"))
    words = ["import-ranks", "other.csv", "--suite", "own.toml", "--model", "theirs", "--store", "s.duckdb"]
    refused = bench(*words)
    assert (refused.returncode, "--replace" in refused.stderr) == (2, True)
    done = bench(*words, "--replace")
    assert (done.returncode, "They replace those of theirs.csv" in done.stdout) == (0, True)
    with reading(tmp_path / "s.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM cell_targets").fetchone() == (3,)
        assert connection.execute("SELECT DISTINCT higher FROM ranks").fetchall() == [(1,)]


def test_an_import_with_the_name_of_a_later_row_of_the_suite_is_left_out_and_named(tmp_path, own, bench):
    enter(tmp_path, own, perfect(own))
    path = own[0].path
    path.write_text(path.read_text().replace("[models.pop]", "[models.pop]\n[models.theirs]\ntype = 'recent-pop'"))
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    report = built(tmp_path / "s.duckdb")
    assert [row.label for row in report.results.columns] == ["pop", "theirs", "recent-pop"]
    (said,) = (warning for warning in report.warnings if "imported" in warning)
    assert "the suite now has a row 'theirs': the import is left out; import it under another name" in said
    with reading(tmp_path / "s.duckdb") as connection:
        assert connection.execute("SELECT count(*) FROM current_cells").fetchone() == (3,)


def test_an_import_for_other_targets_is_replaced_by_a_new_one(tmp_path, own, bench):
    path = tmp_path / "theirs.csv"
    path.write_text(perfect(own), encoding="utf-8")
    masked = load_suite(own[0].path, ["protocol.mask_history=miss"])
    import_ranks(path, masked, tmp_path / "data", tmp_path / "s.duckdb", Labels("theirs"))
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    words = ["import-ranks", "theirs.csv", "--suite", "own.toml", "--model", "theirs", "--store", "s.duckdb"]
    done = bench(*words)
    assert (done.returncode, "They replace those of theirs.csv" in done.stdout) == (0, True)
    assert [row.label for row in built(tmp_path / "s.duckdb").results.columns][-1] == "theirs"
    late = bench(*words, "--set", "protocol.mask_history=miss")
    assert "The newest run of the suite has other targets or candidates" in late.stdout


def ranked_lists(own, *, rank_of, depth=30):
    """Return lists of all items in the order of their ids, except for the target, which gets the rank asked for."""
    _, data, test, users, items = own
    rows = []
    for number, (user, position) in enumerate(zip(test.users, test.positions, strict=True)):
        target = int(data.items[position])
        order = [i for i in range(1, data.num_items + 1) if i != target]
        order.insert(rank_of(number) - 1, target)
        rows += [f"{users[user]},{items[i]},{r}\n" for r, i in enumerate(order[:depth], start=1)]
    return "user,item,rank\n" + "".join(np.random.default_rng(0).permutation(np.array(rows, dtype=object)))


def test_a_rank_beside_an_item_is_that_of_the_item(tmp_path, own):
    number = len(own[2].users)
    found = enter(tmp_path, own, ranked_lists(own, rank_of=lambda n: 1 + n % 30))
    assert found.ranks["test"].higher.tolist() == [n % 30 for n in range(number)]
    assert found.depth is None
    cut = enter(tmp_path, own, ranked_lists(own, rank_of=lambda n: 1 + n % 30, depth=10), replace=True)
    assert cut.ranks["test"].higher.tolist() == [n % 30 if n % 30 < 10 else 29 for n in range(number)]
    assert cut.depth == 10
    _, data, test, users, items = own
    alone = "user,item,rank,score\n" + "".join(
        f"{users[u]},{items[int(data.items[p])]},{1 + n % 30},0.5\n"
        for n, (u, p) in enumerate(zip(test.users, test.positions, strict=True))
    )
    single = enter(tmp_path, own, alone, replace=True)  # the target's row alone says as much as a whole list
    assert single.ranks["test"].higher.tolist() == [n % 30 for n in range(number)]
    assert single.depth is None


def test_a_list_of_one_item_each_hits_where_it_is_the_target(tmp_path, monkeypatch):
    """tests/cases/top1.csv recommends one item to everybody; its column `rank` made it perfect."""
    cases = Path(__file__).parent / "cases"
    monkeypatch.setenv("IPSREC_BENCH_CASES", str(cases))
    file = load_suite(cases / "small.toml")
    found = import_ranks(cases / "top1.csv", file, tmp_path / "data", tmp_path / "s.duckdb", Labels("top1")).record
    data = prepare("shop", cells_of(file)[0].source, tmp_path / "data")
    test, items = leave_one_out(data).test, vocabulary(data, "items")
    targets = [items[int(i)] for i in data.items[test.positions]]
    assert found.ranks["test"].higher.tolist() == [0 if t == "i0" else data.num_items - 1 for t in targets]
    assert targets.count("i0") < len(targets) / 2
    assert found.depth == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{user},{item},0"], "theirs.csv:2: the rank is '0'; expected a whole number from 1 to 30"),
        (["{user},{item},31"], "the rank is '31'"),
        (["{user},{item},1.5"], "the rank is '1.5'"),
        (["{user},{item},"], "theirs.csv:2: the rank is"),
        (["{user},{item},1", "{user},{other},1"], "theirs.csv:3: the user '.*' has two items at rank 1"),
        (["{user},{item},1", "{user},{item},2"], "theirs.csv:3: the item '.*' of user '.*' occurs twice"),
        (["{user},nothing,1"], "theirs.csv:2: the data have no item 'nothing'"),
        (["{user},{item},1"], "test users are missing"),
    ],
)
def test_wrong_lists_with_ranks_are_refused_with_their_place(tmp_path, own, lines, message):
    _, _, test, users, items = own
    text = "\n".join(lines).format(user=users[test.users[0]], item=items[1], other=items[2])
    with pytest.raises(DataError, match=message):
        enter(tmp_path, own, f"user,item,rank\n{text}\n")
    assert not (tmp_path / "s.duckdb").exists()


def test_lists_without_names_of_columns_are_refused(tmp_path, own):
    _, _, test, users, items = own
    rows = "".join(f"{users[u]},{items[i]},{i}\n" for u in test.users for i in (1, 2))
    with pytest.raises(DataError, match="expected columns 'user' and 'rank', or 'user', 'item' and 'score' or 'rank'"):
        enter(tmp_path, own, rows)
    with pytest.raises(DataError, match=r"occurs twice; a file of lists needs the column 'item', too"):
        enter(tmp_path, own, "user,rank\n" + "".join(f"{users[u]},{i}\n" for u in test.users for i in (1, 2)))


def test_an_imported_variant_needs_no_whole_model_and_another_seed_is_not_a_baseline(tmp_path, own, bench):
    assert bench("run", "own.toml", "--store", "s.duckdb", "--quiet").returncode == 0
    enter(tmp_path, own, perfect(own), variant="big")
    path = tmp_path / "better.csv"
    path.write_text(perfect(own), encoding="utf-8")
    import_ranks(path, own[0], tmp_path / "data", tmp_path / "s.duckdb", Labels("better", seed=7))
    report = built(tmp_path / "s.duckdb")
    assert {c.reference.label for c in report.comparisons} <= {"pop", "recent-pop"}
    assert "theirs big" in {c.row.label for c in report.comparisons}


def test_rows_with_the_same_title_stay_distinct(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=[("pop", ""), ("sasrec", "")], display=lambda _: "SAME")
    report = built(path)
    assert [row.display for row in report.results.columns] == ["SAME (pop)", "SAME (sasrec)"]
    assert compared(path, "sasrec", "pop")[0].difference != 0
