"""The first screen of a report: its statements, and the forest plot, over one and several datasets."""

import re
from dataclasses import replace

import pytest

from ipsrec_bench.report.compared import verdict_rule
from ipsrec_bench.report.content import AllPairsTable
from ipsrec_bench.report.declared import of_baseline, with_all_pairs
from ipsrec_bench.report.forest import ALL, METHODS, MODELS, NEW, forests
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import results_of
from ipsrec_bench.report.sentences import finding, seeds_wanted
from ipsrec_bench.report.summary import of_controls, summary
from ipsrec_bench.report.tables.across import across
from ipsrec_bench.report.tables.order import order
from ipsrec_bench.stats.across import mean_ranks, pooled, relative_difference
from ipsrec_bench.store.connect import reading, writing

from .planted import built, fill
from .test_report import matrix

DATASETS = ("beauty", "toys", "tmall")
STATISTICS = 'baseline = "sasrec"\nproposed = ["ipsrec-s"]'


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A report over three datasets with the same ranks, where Pop lacks nothing."""
    return built(fill(tmp_path_factory.mktemp("three") / "s.duckdb", datasets=DATASETS, statistics=STATISTICS))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A report on one dataset with one seed."""
    path = tmp_path_factory.mktemp("one") / "s.duckdb"
    return built(fill(path, statistics=STATISTICS, seeds=(1,)))


def lines_of(chart) -> list[dict]:
    return [line for rows in chart.spec["datasets"].values() for line in rows if "kind" in line]


def test_gains_and_their_pooled_mean_follow_from_the_ranks(three):
    (row,) = three.across.rows
    expected = relative_difference(matrix(2, "mrr@10"), matrix(1, "mrr@10"))
    assert [gain.dataset for gain in row.gains] == [*DATASETS]
    for gain in row.gains:
        assert gain.difference.test == expected.test
        assert gain.difference.of_method
        assert (gain.seeds, gain.reference_seeds) == (3, 3)
    assert row.pooled == pooled([expected.test.mean] * 3, [expected.test.standard_error] * 3)
    assert row.lacks == ()


@pytest.mark.parametrize("datasets", [("d",), ("d", "e", "g")])
def test_no_interval_of_a_gain_is_below_nothing(tmp_path, datasets):
    """The delta method's interval may be; the page cuts it everywhere, and the pooled gain is of the whole errors."""
    path = fill(tmp_path / "s.duckdb", datasets=datasets, statistics=STATISTICS, users=40, seeds=(1,))
    with writing(path) as connection:
        higher = 'CASE WHEN "user" = 1 THEN 0 ELSE 500 END'
        connection.execute(
            f"UPDATE ranks SET higher = {higher} FROM cells WHERE cells.cell = ranks.cell AND type = 'ipsrec-s'"
        )
        connection.execute(
            'UPDATE ranks SET higher = CASE WHEN "user" = 2 THEN 0 ELSE 500 END FROM cells'
            " WHERE cells.cell = ranks.cell AND type = 'sasrec'"
        )
    with reading(path) as connection:
        results = results_of(connection, read_run(connection))
    ours, theirs = (results.matrix("d", results.row(label), results.metric) for label in ("ipsrec-s", "sasrec"))
    whole = relative_difference(ours, theirs)
    assert whole.test.low < -1
    report = built(path)
    (row,) = report.across.rows
    assert [gain.difference.test.low for gain in row.gains] == [-1.0] * len(datasets)
    assert {gain.difference.test.high for gain in row.gains} == {whole.test.high}
    if row.pooled:
        errors = [whole.test.standard_error] * len(datasets)
        assert row.pooled.test.mean == pooled([whole.test.mean] * len(datasets), errors).test.mean
        assert "cut at -100%" in next(across(report)).note
    else:
        assert "interval -100.0% to" in summary(report)[0].text
    (chart,) = forests(report)
    assert min(line["low"] for line in lines_of(chart)) == -100
    assert chart.title.endswith("intervals cut at -100%")


def test_mean_ranks_and_wins_are_of_all_whole_models(three):
    assert not three.across.cut
    assert "cut at" not in next(across(three)).note
    standings = three.across.standings
    assert [one.row.label for one in standings] == ["ipsrec-s", "sasrec", "pop"]
    tables = [[matrix(row, "mrr@10") for row in (0, 1, 2)]] * 3
    assert [one.rank for one in standings] == list(mean_ranks(tables))[::-1]
    assert [one.wins for one in standings] == [
        ((0, 3, 0), (3, 0, 0), (3, 0, 0)),
        ((0, 0, 3), (0, 3, 0), (3, 0, 0)),
        ((0, 0, 3), (0, 0, 3), (0, 3, 0)),
    ]
    gains, ranks = across(three)
    assert three.across.friedman is None
    assert "have no power with fewer than about 10 datasets. This suite has 3." in ranks.note
    assert [line.cells[1].text for line in gains.rows] == [*DATASETS, "all 3 datasets", "a new dataset"]


def test_a_row_that_lacks_a_dataset_is_named_and_nothing_is_filled_in(three):
    (row,) = three.across.rows
    lacking = replace(row, gains=row.gains[:2], lacks=("tmall",))
    standings = (replace(three.across.standings[0], rank=None, lacks=("tmall",)), *three.across.standings[1:])
    report = replace(three, across=replace(three.across, rows=(lacking,), standings=standings))
    gains, ranks = across(report)
    assert "IPSREC-S has no gain on tmall; nothing is filled in." in gains.note
    assert "IPSREC-S lacks tmall and has no mean rank; nothing is filled in." in ranks.note
    assert ranks.rows[0].cells[1].text == "–"
    assert "Not compared on tmall." in summary(report)[0].text


def test_a_gain_without_an_error_is_named_where_the_others_are_pooled(three):
    (row,) = three.across.rows
    same = row.gains[2].difference
    same = replace(same, test=replace(same.test, mean=0.0, low=0.0, high=0.0, standard_error=0.0))
    gains = (*row.gains[:2], replace(row.gains[2], difference=same))
    of_two = pooled([gain.difference.test.mean for gain in gains[:2]], [0.1, 0.1])
    report = replace(three, across=replace(three.across, rows=(replace(row, gains=gains, pooled=of_two),)))
    table, _ = across(report)
    assert "The gain of IPSREC-S on tmall has no error, because it does not vary, and is not pooled." in table.note
    assert [line.cells[1].text for line in table.rows] == [*DATASETS, "2 of 3 datasets"]
    assert "Over the 2 datasets other than tmall, where the gain has no error, MRR@10 +" in summary(report)[0].text
    (chart,) = forests(report)
    assert {line["line"] for line in lines_of(chart)} == {*DATASETS, "2 of 3 datasets"}
    table, _ = across(three)
    assert "not pooled" not in table.note


def test_an_order_of_single_trainings_is_not_one_of_methods(three, one, tmp_path):
    (said,) = one.order.sentences
    assert said.startswith("On d, IPSREC-S w/o CL is first, and stays above IPSREC-S in ")
    assert said.endswith(
        "of 2,000 resamples of users. IPSREC-S w/o CL and IPSREC-S have one training each, so their seeds are not"
        " resampled: this is an order of trained models, not of methods."
    )
    stability, *_ = order(one)
    said = " 4 models have one training each, so their seeds are not resampled: this is an order of trained models"
    assert stability.note.endswith(f"{said}, not of methods.")
    assert all(said.endswith("resamples of users and seeds.") for said in three.order.sentences)
    later = [("sasrec", 2), ("sasrec", 3)]
    two = built(fill(tmp_path / "s.duckdb", datasets=("d", "e"), rows=[("pop", ""), ("sasrec", "")], leave_out=later))
    _, ranks = across(two)
    assert " SASREC has one training, so its seeds are not resampled: this is an order of trained models" in ranks.note
    first, _ = two.order.sentences
    assert "resamples of users and seeds. SASREC has one training, so" in first
    _, ranks = across(three)
    assert "one training" not in ranks.note
    counting = tuple(replace(line, one_training=False) for line in one.order.lines)  # deterministic rows
    assert replace(one.order, lines=counting).sentences[0].endswith("% of 2,000 resamples of users.")


def test_the_first_statement_says_who_is_better_where_and_over_all_datasets(three):
    first = summary(three)[0]
    (row,) = three.across.rows
    gain = f"{100 * row.pooled.test.mean:+.1f}%"
    assert first.text.startswith(
        f"IPSREC-S against SASREC: better on beauty ({gain}), toys ({gain}) and tmall ({gain})."
    )
    assert f"Over these 3 datasets MRR@10 {gain} (95% interval" in first.text
    assert re.search(r", p (= |< )0\.\d{4}, not corrected\); a new dataset", first.text)
    assert "; a new dataset may bring" in first.text
    assert (first.section, first.tone) == ("across", "better")
    said = " ".join(statement.text for statement in summary(three))
    assert "One dataset" not in said


def test_the_chance_of_one_more_training_names_its_winner_and_its_dataset(three):
    beauty, toys, tmall = three.findings
    likely = replace(beauty, next_training=replace(beauty.next_training, probability=0.97))
    lost = replace(
        toys, by_users=replace(toys.by_users, mean=-0.1), next_training=replace(toys.next_training, probability=0.25)
    )
    open_one = replace(tmall, adjusted_p=0.5, adjusted_method_p=0.5)

    def said(*findings):
        return summary(replace(three, findings=findings))[-1].text

    assert (
        "In one more training of both, IPSREC-S beats SASREC on beauty again with a probability of 0.97 and SASREC"
        " beats IPSREC-S on toys again with a probability of 0.75."
    ) in said(likely, lost, open_one)
    assert said(likely, likely, lost, likely, open_one).endswith(
        "In one more training of both, the least sure of 4 winners is this one: SASREC beats IPSREC-S on toys again"
        " with a probability of 0.75."
    )
    assert "more training" not in said(open_one)


def test_with_one_training_each_nothing_is_said_of_the_methods(one):
    first, *others = summary(one)
    assert first.text.startswith("The trained IPSREC-S is better than the trained SASREC on d: MRR@10 +")
    assert first.text.endswith("With one training of each, this is no claim about the methods.")
    (c,) = one.findings
    more = summary(replace(one, findings=(replace(c, reference_seeds=3),)))[0].text
    assert more.endswith("With 1 and 3 trainings, this is no claim about the methods.")
    assert first.section == "comparisons"
    assert others[-1].text.endswith("One dataset says nothing about others.")


def test_what_is_undecided_comes_with_the_seeds_that_it_takes(three):
    def undecided(c, beauty=7):
        c = replace(c, adjusted_p=0.2, adjusted_method_p=0.2, detectable=0.1 * c.reference_mean)
        return replace(c, seeds_needed=replace(c.seeds_needed, seeds={"beauty": beauty, "toys": 9}.get(c.dataset)))

    report = replace(three, findings=tuple(map(undecided, three.findings)))
    said = [statement.text for statement in summary(report)]
    assert "not shown to differ on beauty" in said[0]
    assert said[-1] == (
        "Seeds of each model that would show a difference as large as the one found: 7 for IPSREC-S on beauty and 9 for"
        " IPSREC-S on toys. For IPSREC-S on tmall it takes more users: no number of seeds would show a difference as"
        " large as the one found. Gains of 10.0% are found with a power of 80%; smaller ones may have been missed."
    )
    alone = summary(replace(report, findings=(replace(report.findings[0], family=1),)))[0].text
    assert ", p = 0.2000, not corrected, not below 0.01)" in alone  # a family of one is not corrected
    there = replace(undecided(three.findings[0], beauty=3), margin=0.25)  # the method's equivalence is not known
    size = "a difference as large as the margin of 25%"
    said = summary(replace(three, findings=(there,)))[-1].text
    assert said.startswith(f"For IPSREC-S these seeds already suffice to show {size}.")
    assert f"These seeds already suffice to show {size} with a power of 80%." in finding(there, 0.95)
    assert seeds_wanted(there).endswith(f": these seeds already suffice to show {size} with a power of 80%.")


def test_the_verdict_is_the_declared_one_where_it_is_on_the_methods(three):
    (c, *_) = three.findings
    c = replace(c, adjusted_p=0.2, adjusted_method_p=0.001)
    said = summary(replace(three, findings=(c,)))[0].text
    assert said.startswith("IPSREC-S is not shown to differ from SASREC on beauty, as a method over 3 seeds each")
    assert "adjusted p = 0.2000, not below 0.01" in said
    assert c.of_method == "undecided"


def test_the_gains_that_are_found_are_those_of_the_test_of_the_verdict(three):
    (c, *_) = three.findings
    m = c.reference_mean
    c = replace(c, test="paired-t", adjusted_method_p=0.2, detectable=0.1 * m, method_detectable=0.4 * m)
    assert "Gains of 40.0% are found" in summary(replace(three, findings=(c,)))[-1].text


def test_a_comparison_without_a_test_of_the_methods_counts_in_their_family(tmp_path):
    rows = [("pop", ""), ("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-c", ""), ("ipsrec-x", "")]
    left_out = {(label, seed) for label in ("ipsrec-c", "ipsrec-x") for seed in (2, 3)}
    path = fill(tmp_path / "s.duckdb", rows=rows, leave_out=left_out, statistics='baseline = "sasrec"')
    with reading(path) as connection:
        results = results_of(connection, read_run(connection))
    found = {c.row.label: c for c in of_baseline(results) if c.metric == "hr@5"}
    c = found["ipsrec-s"]
    assert (c.family, found["ipsrec-c"].method, found["ipsrec-c"].adjusted_method_p) == (3, None, None)
    assert c.adjusted_method_p == pytest.approx(3 * c.method.test.p)  # Holm's first step of three
    assert c.detectable == c.method_detectable
    assert found["ipsrec-c"].method_detectable is None


def test_without_a_correction_no_p_is_called_adjusted(tmp_path):
    path = fill(tmp_path / "s.duckdb", statistics='baseline = "sasrec"\ncorrection = "none"')
    report = built(path)
    (c,) = report.findings
    assert (c.adjusted_p, c.family) == (c.p, 1)
    with reading(path) as connection:
        statistics = read_run(connection).suite.statistics
    pages = [write_report(report, tmp_path, (kind,)).main.read_text(encoding="utf-8") for kind in ("md", "html")]
    for text in (finding(c, 0.95), summary(report)[0].text, verdict_rule(statistics), *pages):
        assert "not corrected" in text
        shown = text.split("<script")[0]
        assert "djusted p" not in shown
        assert "over the comparisons of" not in shown
    (pairs,) = {c.family for c in with_all_pairs(report.comparisons, [all_of(report)])}
    assert pairs == 1
    assert with_all_pairs(report.comparisons, [all_of(report)]) == report.comparisons


def all_of(report) -> AllPairsTable:
    """Return p = 0.5 for every pair that is compared."""
    (c,) = report.findings
    return AllPairsTable("d", c.metric, (c.row, c.reference), ((1.0, 0.5), (0.5, 1.0)), ("a", "a"), 100, critical=2.6)


def test_a_dataset_where_the_baseline_is_0_has_no_gain_and_is_compared(tmp_path):
    path = fill(tmp_path / "s.duckdb", datasets=("d", "e", "g"), statistics=STATISTICS)
    with writing(path) as connection:
        connection.execute(
            "UPDATE ranks SET higher = 800 FROM cells"
            " WHERE cells.cell = ranks.cell AND type = 'sasrec' AND fingerprint = 'f1'"
        )
    report = built(path)
    (row,) = report.across.rows
    assert (row.lacks, row.undefined) == ((), ("e",))
    said = summary(report)[0].text
    assert "No gain on e: the baseline's mean is 0." in said
    assert "Not compared" not in said
    gains, _ = across(report)
    assert "IPSREC-S has no gain on e, where the baseline's mean is 0." in gains.note
    assert "so this interval is wide" in gains.note  # of two gains
    assert "prediction interval" not in gains.note


def test_unequal_budgets_and_rows_that_are_not_tuned_come_first(three):
    fairness = replace(three.fairness, sentences=("On a, budgets were equal",), unequal=("b", "c"), not_tuned="Not X")
    said = [one.text for one in summary(replace(three, fairness=fairness)) if one.section == "fairness"]
    assert said == ["Not X. Budgets of searches were not equal on b and c, which favours the rows that got more."]
    pairs = [(replace(c.row, tuning="tuned, 3 trials"), replace(c.reference, label=c.dataset)) for c in three.findings]
    findings = [replace(c, row=row, reference=replace(reference, display=c.dataset))
                for c, (row, reference) in zip(three.findings, pairs, strict=True)]  # fmt: skip
    (said,) = [one.text for one in summary(replace(three, findings=findings)) if one.section == "fairness"]
    assert said == (
        "IPSREC-S is tuned and beauty is not, which favours the former. IPSREC-S is tuned and toys is not, which"
        " favours the former. So it is with one other pair."
    )


def test_controls_say_whether_provider_information_matters(three):
    twin = replace(three.findings[0].reference, display="IPSREC-S, shuffled providers", control="shuffled providers")
    controls = [replace(c, reference=twin) for c in three.findings]
    (real,) = of_controls(controls)
    assert real.text.startswith("IPSREC-S against IPSREC-S, shuffled providers: better on beauty (+")
    assert real.text.endswith("So much of its result comes from provider information.")
    assert real.section == "controls"
    (nothing,) = of_controls([replace(c, adjusted_p=0.5, adjusted_method_p=0.5) for c in controls])
    assert nothing.text.endswith("Its result is not shown to come from provider information.")
    many = [replace(c, reference=replace(twin, display=f"twin {n}")) for n in range(5) for c in three.findings]
    said = [one.text for one in summary(replace(three, controls=tuple(many))) if one.section == "controls"]
    assert len(said) == 4
    assert said[3] == "2 other controls are not listed here."


def test_the_forest_plot_has_a_line_for_each_dataset_and_for_all_of_them(three, one):
    (chart,) = forests(three)
    assert chart.section == "first"
    lines = lines_of(chart)
    kinds = {line["line"]: line["kind"] for line in lines}
    assert kinds == {**dict.fromkeys(DATASETS, METHODS), "all 3 datasets": ALL, "a new dataset": NEW}
    (row,) = three.across.rows
    together = next(line for line in lines if line["kind"] == ALL)
    assert (together["gain"], together["low"]) == pytest.approx((100 * row.pooled.test.mean, 100 * row.pooled.test.low))
    (chart,) = forests(one)
    assert [(line["line"], line["kind"]) for line in lines_of(chart)] == [("IPSREC-S", MODELS)]


def test_intervals_far_beyond_the_others_are_cut_at_the_axis(three):
    (row,) = three.across.rows
    wide = replace(row.pooled, low=-40.0, high=50.0)
    (chart,) = forests(replace(three, across=replace(three.across, rows=(replace(row, pooled=wide),))))
    new = next(line for line in lines_of(chart) if line["kind"] == NEW)
    assert (new["cut_from"], new["cut_to"]) == (True, True)
    assert -1_000 < new["from"] < new["to"] < 1_500
    assert (new["low"], new["high"]) == (-4_000, 5_000)


def test_many_lines_are_pooled_on_the_first_screen_and_shown_in_their_section(three):
    (row,) = three.across.rows
    rows = tuple(replace(row, row=replace(row.row, display=f"M{number}")) for number in range(5))
    first, all_lines = forests(replace(three, across=replace(three.across, rows=rows)))
    assert {line["line"] for line in lines_of(first)} == {f"M{number}" for number in range(5)}
    assert {line["kind"] for line in lines_of(first)} == {ALL, NEW}
    assert (all_lines.section, len(lines_of(all_lines))) == ("across", 5 * 5)
    findings = tuple(replace(c, row=other.row) for other in rows for c in three.findings)
    said = summary(replace(three, across=replace(three.across, rows=rows), findings=findings))
    assert [one.text[:3] for one in said[:3]] == ["M0 ", "M1 ", "M2 "]
    assert said[3].text == "These have the highest gains; 2 other rows have lower ones."


def test_every_format_begins_with_the_statements(three, tmp_path):
    written = write_report(three, tmp_path, ("html", "md", "latex", "json"))
    html, markdown, latex = (written.pages[name].read_text(encoding="utf-8") for name in ("html", "md", "latex"))
    start = "IPSREC-S against SASREC: better on beauty"
    assert html.index(start) < html.index("chart-summary") < html.index('<h2 id="results"')
    assert markdown.index(f"- {start}") < markdown.index("chart-01-summary.svg") < markdown.index("## Results")
    assert start in latex
    assert "table-across.tex" in latex
    ids = set(re.findall(r'id="([^"]+)"', html))
    assert set(re.findall(r'href="#([^"?]+)"', html)) <= ids
