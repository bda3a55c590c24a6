"""Controls: changed providers, equal times in another order, transitions of shuffled histories, and their table."""

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsrec_bench.data import transitions
from ipsrec_bench.data.controls import popularity, shuffled
from ipsrec_bench.data.prepare import prepare, prepared_path
from ipsrec_bench.data.prepared import UNKNOWN_PROVIDER
from ipsrec_bench.errors import DataError, StoreError, SuiteError
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import compare_named, read_named
from ipsrec_bench.report.summary import summary
from ipsrec_bench.report.tables import tables_of
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.cells import TUNED
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.suite.schema import SyntheticSource, TableSource

from .conftest import raw_sequences, vocabulary
from .planted import SEEDS, SETTINGS, USERS, built, mean_over_seeds, planted_ranks
from .test_data import REAL, needs_real_data
from .test_store import record

# Providers


@st.composite
def logs(draw):
    """Items and providers of a log; some items have several providers, and some interactions an unknown one."""
    offers = draw(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 7)), min_size=1, max_size=40, unique=True))
    rows = offers + draw(st.lists(st.sampled_from(offers), max_size=60))
    rows = draw(st.permutations(rows))
    items, providers = (np.array(column, dtype=np.int32) for column in zip(*rows, strict=True))
    return items, providers


def offers_of(items, providers) -> set[tuple[int, int]]:
    return set(zip(items.tolist(), providers.tolist(), strict=True))


@given(logs())
def test_a_shuffle_keeps_the_offers_of_each_provider_and_of_each_item(log):
    items, providers = log
    if not (providers != UNKNOWN_PROVIDER).any():
        with pytest.raises(DataError, match="nothing to shuffle"):
            shuffled(items, providers)
        return
    changed = shuffled(items, providers)
    assert changed.dtype == np.int32
    assert np.array_equal(changed, shuffled(items, providers))
    before, after = offers_of(items, providers), offers_of(items, changed)
    for side in (0, 1):
        assert Counter(offer[side] for offer in before) == Counter(offer[side] for offer in after)
    of_item = defaultdict(Counter), defaultdict(Counter)
    for found, column in zip(of_item, (providers, changed), strict=True):
        for item, provider in zip(items.tolist(), column.tolist(), strict=True):
            found[item][provider] += 1
    for item, counts in of_item[0].items():  # an item's offers keep their numbers of interactions
        assert sorted(counts.values()) == sorted(of_item[1][item].values())


@pytest.mark.parametrize("per_item", [1, 3])
def test_a_shuffle_takes_the_information_away_and_nothing_else(tmp_path, per_item):
    source = SyntheticSource(providers_per_item=per_item, provider_strength="high")
    data = prepare("d", source, tmp_path)
    other = prepare("d", source.model_copy(update={"providers_as": "shuffled"}), tmp_path)
    for name in ("items", "times", "offsets"):
        assert getattr(data, name).tobytes() == getattr(other, name).tobytes()
    assert vocabulary(data, "users") == vocabulary(other, "users")
    assert vocabulary(data, "providers") == vocabulary(other, "providers")
    assert data.num_providers == other.num_providers
    assert data.fingerprint != other.fingerprint
    assert data.statistics.stickiness > 2 * data.statistics.shuffled_stickiness
    s = other.statistics
    assert s.stickiness == pytest.approx(s.shuffled_stickiness, abs=0.01)
    assert s.stickiness == pytest.approx(1 / 50, abs=0.015)
    # The new provider says nothing of the old one. By chance, one in 50 is the same.
    assert np.mean(data.providers == other.providers) < 0.06
    assert json.loads((other.path / "meta.json").read_text())["source"]["providers_as"] == "shuffled"


def test_being_unknown_is_shuffled_too(prepared_table):
    log = "user,item,provider,time\n" + "".join(
        f"u{i // 10},i{i},{'' if i < 150 else f'p{i % 7}'},{i}\n" for i in range(300)
    )
    data = prepared_table(log, providers_as="shuffled")
    unknown = data.providers == UNKNOWN_PROVIDER
    assert unknown.sum() == 150
    assert 45 < unknown[:150].sum() < 105


def test_one_provider_and_popularity_classes(prepared_table):
    """Without the last two interactions of each user, a is counted 4 times, b 3 times, c once and d never."""
    histories = {"u1": "aaaabd", "u2": "bbbcdd", "u3": "dd"}
    log = "user,item,provider,time\n" + "".join(
        f"{user},{item},p{place % 2},{place}\n" for user, items in histories.items() for place, item in enumerate(items)
    )
    one = prepared_table(log, providers_as="one")
    assert set(one.providers.tolist()) == {2}
    assert vocabulary(one, "providers") == {2: "one provider"}
    assert one.statistics.stickiness == 1
    data = prepared_table(log, providers_as="popularity")
    names = vocabulary(data, "providers")
    assert {
        (vocabulary(data, "items")[item], names[provider])
        for item, provider in zip(data.items.tolist(), data.providers.tolist(), strict=True)
    } == {
        ("a", "items with 4 to 7 interactions"),
        ("b", "items with 2 to 3 interactions"),
        ("c", "items with 1 interaction"),
        ("d", "items without interactions"),
    }
    assert data.reading.largest_providers[0] == ("items without interactions", 5)


def test_held_out_interactions_do_not_change_popularity():
    offsets = np.array([0, 5, 10])
    items = np.array([1, 1, 2, 3, 4, 2, 2, 2, 1, 3], dtype=np.int32)
    other = items.copy()
    other[[3, 4, 8, 9]] = 1, 1, 2, 2
    classes = {}
    for column in (items, other):
        found, names = popularity(offsets, column)
        for item, one in zip(column.tolist(), found.tolist(), strict=True):
            classes.setdefault(item, set()).add(names[one - 2])
    assert classes[1] == {"items with 2 to 3 interactions"}
    assert classes[2] == {"items with 4 to 7 interactions"}


def test_another_column_is_the_provider(prepared_table, tmp_path):
    log = "user,item,provider,brand,time\nu,a,p,x,1\nu,b,q,x,2\nu,c,q,NA,3\n"
    data = prepared_table(log, providers_as={"column": "brand"})
    assert vocabulary(data, "providers") == {2: "x"}
    assert data.providers.tolist() == [2, 2, UNKNOWN_PROVIDER]
    (tmp_path / "items.csv").write_text("item,maker,brand\na,m,y\nb,m,z\nc,m,z\n", encoding="utf-8")
    items = {"path": str(tmp_path / "items.csv"), "item": "item", "provider": "maker"}
    joined = prepared_table(log, items=items, providers_as={"column": "brand"})
    assert vocabulary(joined, "providers") == {2: "y", 3: "z"}
    with pytest.raises(DataError, match="there is no column 'colour'"):
        prepared_table(log, providers_as={"column": "colour"})


def test_popularity_needs_no_provider_in_the_data(prepared_table):
    log = "user,item,time\nu,a,1\nu,b,2\nu,c,3\n"
    data = prepared_table(log, providers_as="popularity")
    assert (data.num_providers, data.reading.notes) == (3, ())
    with pytest.raises(DataError, match=r"log\.csv: no provider is known, so there is nothing to shuffle"):
        prepared_table(log, providers_as="shuffled")


# Suites

SUITE = """
title = "Controls"
seeds = [1]
[datasets.world]
source = "synthetic"
[models]
{models}
[controls]
providers = {providers}
"""


def expanded(providers: str, models: str = "sasrec = {}\nipsrec-s = {}", *overrides: str):
    text = SUITE.format(providers=providers, models=models)
    return cells_of(parse_suite(Path("controls.toml"), text, overrides))


def test_rows_that_use_providers_have_twins():
    cells = expanded(
        '["shuffled", "popularity"]', 'pop = {}\nsasrec = {}\nipsrec-s = {variants."w/o CL" = {lambda = 0}}'
    )
    assert [(cell.dataset, cell.label) for cell in cells] == [
        ("world", "pop"),
        ("world", "sasrec"),
        ("world", "ipsrec-s"),
        ("world", "ipsrec-s w/o CL"),
        ("world, shuffled providers", "ipsrec-s"),
        ("world, shuffled providers", "ipsrec-s w/o CL"),
        ("world, popularity as provider", "ipsrec-s"),
        ("world, popularity as provider", "ipsrec-s w/o CL"),
    ]
    own, other = cells[2], cells[4]
    assert (own.config, own.training, own.seed) == (other.config, other.training, other.seed)
    assert (own.source.providers_as, other.source.providers_as) == ("as given", "shuffled")


def test_a_task_that_uses_providers_makes_a_row_use_them(tmp_path, monkeypatch):
    (tmp_path / "blind_twin.py").write_text(
        "from ipsrec_bench.training.tasks.api import Task\n"
        "class Blind(Task):\n    def loss(self, step): return step.main.user.sum()\n"
        "class Seeing(Blind):\n    uses_providers = True\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    cells = expanded(
        '["shuffled"]',
        "\n".join(
            f'{name} = {{type = "sasrec", tasks = {{"blind_twin:{task}" = {{}}}}}}'
            for name, task in (("a", "Seeing"), ("b", "Blind"))
        ),
    )
    assert [cell.label for cell in cells if cell.condition.control] == ["a"]


@pytest.mark.parametrize(
    ("providers", "overrides", "sentence"),
    [
        ('["as given"]', (), "'as given' is no control"),
        ('["shufled"]', (), "input should be 'shuffled', 'one' or 'popularity'; did you mean 'shuffled'"),
        ('["shuffled", "shuffled"]', (), "each value may occur only once"),
        ('[{column = "brand"}]', (), "'world' is from the embedded generator, which has no columns"),
        ('["shuffled"]', ("datasets.world.providers_as=one",), r"found 'one', and \[controls\] would replace it"),
        ('["shuffled"]', ('models=["pop", "sasrec"]',), "no row of the suite uses providers"),
        ("[]", ('datasets.world.providers_as={column="brand"}',), "the embedded generator has no columns"),
        ("[]", ("protocol.tie_order=-1",), "expected 'file', or a seed"),
    ],
)
def test_controls_that_cannot_be_are_refused(providers, overrides, sentence):
    with pytest.raises(SuiteError, match=sentence):
        expanded(providers, "sasrec = {}\nipsrec-s = {}", *overrides)


# Equal times


def by_day(groups: int, order) -> str:
    """A log of `groups` users with three interactions on each of two days, ordered as `order` says."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(groups):
        for day in (1, 2):
            rows += [
                f"u{user},{item},p,{day}" for item in order(rng.choice(np.arange(90, 120), 3, replace=False).tolist())
            ]
    return "user,item,provider,time\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("order", "groups", "word"),
    [
        (sorted, 20, "ascending"),  # as numbers: 95, 99, 104
        (lambda items: sorted(items, reverse=True), 20, "descending"),
        (lambda items: sorted(items, key=str), 20, "ascending"),  # as texts: 104, 95, 99
        (lambda items: items, 400, ""),
        (sorted, 10, ""),  # too few to tell from chance
    ],
)
def test_ties_that_are_sorted_by_item_are_noticed(prepared_table, order, groups, word):
    notes = prepared_table(by_day(groups, order)).reading.notes
    assert len(notes) == bool(word)
    if word:
        assert f"{2 * groups} of {2 * groups} groups" in notes[0]
        assert f"sorted by item id ({word})" in notes[0]
    assert not prepared_table(by_day(groups, order), tie_order=3).reading.notes


def test_ties_of_items_whose_ids_are_no_numbers_are_judged_as_texts(prepared_table):
    log = re.sub(r"(u\d+),(\d+)", r"\1,i\2", by_day(20, lambda items: sorted(items, key=str)))
    assert "sorted by item id (ascending)" in prepared_table(log).reading.notes[0]


def test_equal_times_are_drawn_and_nothing_else(prepared_table):
    log = by_day(200, sorted)
    found = [prepared_table(log, **({"tie_order": seed} if seed != "file" else {})) for seed in ("file", 1, 1, 2)]
    plain, first, again, second = map(raw_sequences, found)
    assert first == again
    assert first not in (plain, second)
    for user, items in plain.items():
        for part in (slice(0, 3), slice(3, 6)):
            assert sorted(items[part]) == sorted(first[user][part]) == sorted(second[user][part])
    orders = Counter(tuple(np.argsort([int(i) for i in items[:3]])) for items in first.values())
    assert len(orders) == 6
    assert max(orders.values()) < 60  # of 200; 33 are expected
    written = TableSource(path=str(found[0].path.parents[1].parent / "log.csv"))
    paths = [prepared_path("d", written.model_copy(update={"tie_order": order}), Path("d")) for order in ("file", None)]
    assert paths[0] == paths[1]


def test_a_tie_order_without_ties_gives_the_same_cells():
    cells = expanded("[]"), expanded("[]", "sasrec = {}\nipsrec-s = {}", "protocol.tie_order=1")
    assert cells[1][0].source.tie_order == 1
    assert [cell.key("f") for cell in cells[0]] == [cell.key("f") for cell in cells[1]]


@needs_real_data
def test_the_order_of_equal_times_in_real_data(tmp_path):
    """The renumbered file is not sorted by its ids. Half of its frequent rules are of the file's order, however."""
    data = prepare("beauty", TableSource(path=f"{REAL}/amazon-beauty.tsv.gz"), tmp_path)
    drawn = prepare("beauty", TableSource(path=f"{REAL}/amazon-beauty.tsv.gz", tie_order=1), tmp_path)
    assert data.reading.notes == ()
    assert np.array_equal(data.times, drawn.times)
    first, second = (transitions.rules(one.offsets, one.items)[0].frequent for one in (data, drawn))
    assert (first, transitions.rules(data.offsets, data.items)[0].shuffled) == (545, 17)
    assert 0.4 < second / first < 0.65
    other = prepare("beauty", TableSource(path=f"{REAL}/amazon-beauty.tsv.gz", providers_as="shuffled"), tmp_path)
    assert (other.statistics.providers, other.statistics.actions) == (435, 198502)
    assert other.statistics.stickiness == pytest.approx(other.statistics.shuffled_stickiness, abs=0.001)


# Transitions


def naive_rules(histories, order: int) -> int:
    grams, begins = Counter(), Counter()
    for history in histories:
        for place in range(len(history)):
            if place + order <= len(history):
                begins[tuple(history[place : place + order])] += 1
            if place + order + 1 <= len(history):
                grams[tuple(history[place : place + order + 1])] += 1
    return sum(n >= transitions.SUPPORT and n >= transitions.CONFIDENCE * begins[g[:-1]] for g, n in grams.items())


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=30), min_size=1, max_size=12))
def test_rules_are_counted_as_by_hand(histories):
    offsets = np.cumsum([0, *map(len, histories)])
    found = transitions.rules(offsets, np.concatenate(histories).astype(np.int32))
    assert [one.order for one in found] == [1, 2]
    for one in found:
        assert one.frequent == naive_rules(histories, one.order)


def test_a_shuffle_destroys_the_rules_of_a_sequence_and_not_those_of_taste():
    rng = np.random.default_rng(1)
    begin = rng.integers(0, 200, 2000)
    chain = 1 + (begin[:, None] + np.arange(30)) % 200  # each item has one successor
    offsets = np.arange(0, 60_001, 30)
    first, second = transitions.rules(offsets, chain.ravel().astype(np.int32))
    assert (first.frequent, second.frequent) == (200, 200)
    assert first.lost > 0.95
    assert second.lost > 0.95
    groups = 1 + 3 * (begin[:, None] % 5) + rng.integers(0, 3, (2000, 30))  # users like three items, in any order
    first, _ = transitions.rules(offsets, groups.ravel().astype(np.int32))
    assert first.lost == 0
    empty = transitions.rules(np.array([0, 1]), np.array([1], dtype=np.int32))
    assert [one.lost for one in empty] == [None, None]


def test_statistics_say_what_was_changed(bench):
    shown = bench("data", "stats", "positive-control", "--set", "datasets.positive-control.providers_as=shuffled")
    assert "positive-control, shuffled providers" in shown.stdout
    assert "Frequent rules of second order" in shown.stdout
    done = bench("data", "stats", "positive-control", "--json")
    assert [rule["order"] for rule in json.loads(done.stdout)["rules"]] == [1, 2]
    suite = SUITE.format(providers='["shuffled"]', models="ipsrec-s = {}")
    Path(bench.keywords["cwd"], "own.toml").write_text(suite, encoding="utf-8")
    assert "world, shuffled providers" in bench("data", "list", "--suite", "own.toml").stdout
    twin = bench("data", "stats", "world, shuffled providers", "--suite", "own.toml", "--json")
    assert json.loads(twin.stdout)["stickiness"] < 0.05
    counted = bench("validate", "own.toml")
    assert "1 dataset x 1 models and variants x 1 seed, and 1 cell of controls" in counted.stdout


# The table

MODELS = {"sasrec": 1, "ipsrec-s": 2}
"""Model and the place in `planted_ranks` that says how good it is."""


def planted(path: Path, twin: int, *, twin_users: int = USERS, failed: bool = False, variant: str = ""):
    """Return the report on a run in which the twin of ipsrec-s has the ranks of the model at the place `twin`.

    `variant` is that of ipsrec-s and its twin.
    """
    text = """
title = "Planted"
seeds = [1, 2, 3]
datasets = ["d"]
models = ["sasrec", "ipsrec-s"]
[protocol]
metrics = ["hr", "mrr"]
[controls]
providers = ["shuffled"]
"""
    suite = parse_suite(Path("planted.toml"), text)
    cells = [
        PlannedCell(f"{model}{seed}", "d", model, model.upper(), model, variant if place == 2 else "", seed)
        for model, place in MODELS.items()
        for seed in SEEDS
    ]
    control = {"base": "d", "control": "shuffled providers"}
    cells += [
        PlannedCell(
            f"twin{seed}", "d, shuffled providers", "ipsrec-s", "IPSREC-S", "ipsrec-s", variant, seed, **control
        )
        for seed in SEEDS
    ]
    with writing(path) as connection:
        begin_run(connection, suite, [], cells)
        for fingerprint in "fg":
            connection.execute(
                "INSERT INTO datasets VALUES (?, 'd', ?, 900, 3, 20, 19, 4.0, 0.1, 0, 0.5, NULL, false, 1.0, 'none')",
                [fingerprint, USERS],
            )
        for cell in cells:
            users = twin_users if cell.control else USERS
            ranks = planted_ranks(twin if cell.control else MODELS[cell.model], cell.seed, users) - 1
            ranks = Ranks(np.arange(users), np.minimum(ranks, 899).astype(np.int32), np.zeros(users, dtype=np.int32))
            settings = {"fingerprint": "g" if cell.control else "f", "settings": SETTINGS, "seed": cell.seed}
            if failed and cell.control:
                record_cell(connection, record(cell.key, error="MemoryError: big", ranks=None, epochs=(), **settings))
            else:
                record_cell(connection, record(cell.key, ranks={"test": ranks}, **settings))
    return built(path)


def test_the_table_compares_each_row_with_its_twin(tmp_path):
    report = planted(tmp_path / "s.duckdb", twin=1)
    assert [(c.dataset, c.metric, c.row.label, c.reference.display) for c in report.controls] == [
        ("d", name, "ipsrec-s", "IPSREC-S, shuffled providers") for name in ("mrr@10", "hr@5", "hr@10", "mrr@5")
    ]
    ours, theirs = mean_over_seeds(2, "mrr@10"), mean_over_seeds(1, "mrr@10")
    c = report.controls[0]
    assert (c.mean, c.reference_mean) == (pytest.approx(ours.mean()), pytest.approx(theirs.mean()))
    assert c.verdict == "better"
    # The twin has the ranks of the baseline: nothing is left of the gain.
    gain = next(c for c in report.control_gains if c.metric == "mrr@10")
    assert (gain.row.display, gain.reference.label, gain.difference) == ("IPSREC-S, shuffled providers", "sasrec", 0)
    assert [row.label for row in report.results.columns] == ["sasrec", "ipsrec-s"]
    assert {c.dataset for c in report.comparisons} == {"d"}
    assert report.cells == len(report.provenance) == 9
    pages = write_report(report, tmp_path / "out", ("html", "md", "latex", "json")).pages
    for kind in ("html", "md"):
        text = pages[kind].read_text(encoding="utf-8")
        assert "Controls: what the provider information brings" in text
        assert "IPSREC-S is better than IPSREC-S, shuffled providers on d" in text
    assert "shuffled providers" in pages["latex"].with_name("table-controls.tex").read_text(encoding="utf-8")
    assert len(json.loads(pages["json"].read_text(encoding="utf-8"))["controls"]) == 4
    (table,) = (table for table in tables_of(report) if table.name == "controls")
    assert [cell.text for cell in table.rows[0].cells][-2:] == [
        f"{100 * (ours.mean() / theirs.mean() - 1):+.1f}%",
        "+0.0%",
    ]


@pytest.mark.parametrize(("variant", "name"), [("", "IPSREC-S"), (TUNED, "IPSREC-S tuned"), ("big", "IPSREC-S big")])
def test_the_first_screen_says_what_a_control_without_information_means(tmp_path, variant, name):
    report = planted(tmp_path / "s.duckdb", twin=1, variant=variant)
    twin = report.controls[0].reference
    assert (twin.display, twin.control) == (f"{name}, shuffled providers", "shuffled providers")
    assert twin.tuned == (variant == TUNED)
    said = next(one.text for one in summary(report) if one.section == "controls")
    assert said.startswith(f"{name} against {name}, shuffled providers: better on d (+")
    assert said.endswith(" So much of its result comes from provider information.")


def test_a_twin_of_the_same_ranks_shows_nothing(tmp_path):
    report = planted(tmp_path / "s.duckdb", twin=2)
    assert {c.difference for c in report.controls} == {0}
    assert "better" not in {c.verdict for c in report.controls}


def test_twins_with_other_users_are_left_out_and_missing_ones_are_named(tmp_path):
    report = planted(tmp_path / "s.duckdb", twin=1, twin_users=USERS - 1)
    assert not report.controls
    assert sum("ranks different users than the row that it controls" in warning for warning in report.warnings) == 3
    report = planted(tmp_path / "t.duckdb", twin=1, failed=True)
    assert not report.controls
    assert [(cell.dataset, cell.error) for cell in report.missing] == [
        ("d, shuffled providers", "MemoryError: big")
    ] * 3


def test_a_dataset_with_changed_providers_says_so_beside_every_table(bench, tmp_path):
    suite = SUITE.format(providers="[]", models="pop = {}\nrecent-pop = {}").replace(
        'source = "synthetic"',
        'source = "synthetic"\nproviders_as = "popularity"\ntie_order = 2\nusers = 60\nitems = 40',
    )
    (tmp_path / "own.toml").write_text(suite, encoding="utf-8")
    bench("run", "own.toml", "--quiet")
    report = built(tmp_path / "reports" / "ipsrec-bench.duckdb")
    assert report.caution == "The providers are not the data's own: world (popularity as provider)."
    assert ("world: providers", "not the data's own: popularity as provider") in report.protocol
    assert ("world: order of equal times", "random, seed 2") in report.protocol


def test_a_row_is_compared_with_its_twin_as_the_report_does(tmp_path):
    report = planted(tmp_path / "s.duckdb", twin=1, variant="big")
    with reading(tmp_path / "s.duckdb") as connection:
        run = read_run(connection)
        named = read_named(connection, run, "ipsrec-s big", "ipsrec-s big, shuffled providers")
        gain = read_named(connection, run, "ipsrec-s big, shuffled providers", "sasrec")
        with pytest.raises(StoreError, match=r"after a comma a condition: 'shuffled providers'.*did you mean 'ipsrec"):
            read_named(connection, run, "sasrec", "ipsrec-s big, shufled providers")
        twin = next(cell for cell in run.further if cell.label == "ipsrec-s big")
        masked = replace(twin, dataset=f"{twin.base}, masked", control="", protocol="masked")
        with pytest.raises(StoreError, match="did you mean 'ipsrec-s big, shuffled providers'"):
            read_named(connection, replace(run, further=(*run.further, masked)), "sasrec", "ipsrec-s big, shufled")
        with pytest.raises(StoreError, match="'sasrec' and 'sasrec' are the same row; name two different ones"):
            read_named(connection, run, "sasrec", "sasrec")
    for one, reported in ((named, report.controls), (gain, report.control_gains)):
        made = {c.metric: c for c in compare_named(one)}
        assert {*made} == {c.metric for c in reported}
        for c in reported:
            same = made[c.metric]
            assert (same.row.display, same.reference.display) == (c.row.display, c.reference.display)
            assert (same.by_users, same.method, same.family) == (c.by_users, c.method, c.family)
            assert (same.adjusted_p, same.adjusted_method_p) == (c.adjusted_p, c.adjusted_method_p)
