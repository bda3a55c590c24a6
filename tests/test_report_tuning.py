"""The report's section on tuning: what it says follows from the studies and from the run."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ipsrec_bench.report.across import across_datasets
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.content import FairnessLine, Row
from ipsrec_bench.report.declared import against_baseline
from ipsrec_bench.report.fairness import fairness_of, judged
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import results_of
from ipsrec_bench.report.sentences import budgets, finding, tuned_finding
from ipsrec_bench.report.tables.data import settings
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.stats.smoothing import smoothed
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.tuning.results import StudyResult, TrialResult, trials_in

from .planted import NASTY, fill, mean_over_seeds

OWN = {"lambda": 0.1, "tau": 1.0}
BEST = {"lambda": 0.02, "tau": 2.0}


def trial(number, settings, *by_seed, pruned=False):
    value = 0.05 if pruned else float(np.mean(by_seed))
    return TrialResult(number, settings, value, pruned, by_seed, epochs=2, seconds=3.0)


def study(model="ipsrec-s", seeds=(11, 12, 13), trials=None, **changes):
    if trials is None:
        trials = [
            trial(0, OWN, 0.1, 0.2, 0.3),
            trial(1, BEST, 0.2, 0.31, 0.4),
            trial(2, {"lambda": 0.9, "tau": 0.1}, pruned=True),
            *(trial(n, {"lambda": 0.01 * n, "tau": 0.2 * n}, 0.1, 0.1, 0.1 + n / 1000) for n in range(3, 10)),
        ]
    said = {
        "name": f"d-{model}-0123abcd",
        "place": "studies/x.journal",
        "dataset": "d",
        "model": model,
        "metric": "mrr@10",
        "fingerprint": "f",
        "seeds": seeds,
        "sampler": "tpe",
        "pruner": "median",
        "default": OWN,
        "trials": tuple(trials),
        "seconds": 30.0,
        "failed": 0,
        "logarithmic": frozenset(OWN),
        "importance": {"lambda": 0.75, "tau": 0.25},
    }
    return StudyResult(**(said | changes))


def test_the_first_trials_of_a_study_are_a_study():
    whole = study(seen={"lambda": 0.5})
    assert (trials_in(whole.words), trials_in(whole.first(1).words), trials_in("untuned")) == (10, 1, None)
    assert whole.first(1).best.settings == OWN
    assert not whole.first(1).seen
    assert whole.first(10) is whole


@pytest.fixture
def planted(tmp_path):
    """A run of the default settings and of the best ones, in which the latter are much better."""
    configs = {"": OWN, "tuned": BEST}

    def settings(model, variant):
        x = configs[variant]
        config = f'{{"lambda": {x["lambda"]}, "tau": {x["tau"]}}}' if model == "ipsrec-s" else "{}"
        return f'{{"config": {config}, "training": {{}}, "protocol": {{"max_length": 5}}}}'

    rows = [("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-s", "tuned")]
    return fill(tmp_path / "s.duckdb", rows=rows, settings=settings)


def built(path, *studies):
    with reading(path) as connection:
        return build_report(read_material(connection, read_run(connection, "planted")), studies)


def test_only_studies_of_the_runs_models_on_its_data_are_shown(planted):
    report = built(planted, study(), study("ipsrec-c"), study(fingerprint="other"), study(trials=[]))
    assert [tuned.study.model for tuned in report.tuned] == ["ipsrec-s"]
    assert built(planted).tuned == ()


def test_a_study_made_under_other_settings_is_named_and_not_shown(planted):
    here = {"config": {}, "training": {}, "protocol": {"max_length": 5}}
    other = {"config": {"size": 8}, "training": {"epochs": 3}, "protocol": {"max_length": 5}}
    report = built(planted, study(fixed=here), study(fixed=other, name="d-ipsrec-s-other"))
    assert [tuned.study.fixed for tuned in report.tuned] == [here]
    (said,) = report.other_studies
    assert said.startswith("study d-ipsrec-s-other of ipsrec-s on d was made under other settings")
    assert "(size: 8 there, not set here; epochs: 3 there, not set here)" in said
    assert "did not record" not in tuned_finding(report.tuned[0], 0.95, 0.05)
    assert "did not record" in tuned_finding(built(planted, study()).tuned[0], 0.95, 0.05)  # of an older version


def test_seeds_that_all_give_the_same_difference_have_no_interval(planted):
    trials = [trial(0, OWN, 0.125, 0.125, 0.125), trial(1, BEST, 0.25, 0.25, 0.25)]
    (tuned,) = built(planted, study(trials=trials)).tuned
    assert tuned.gain is None
    assert "Seeds that all give the same difference cannot show that this is more than luck." in tuned_finding(
        tuned, 0.95, 0.05
    )
    (wide,) = built(planted, study(seeds=(11, 12), trials=[trial(0, OWN, 0.1, 0.2), trial(1, BEST, 0.3, 0.9)])).tuned
    assert (wide.gain.low, wide.gain.high) == (-1, 1)


def test_the_best_is_compared_over_the_seeds_of_its_trial_and_on_fresh_ones(planted):
    (tuned,) = built(planted, study()).tuned
    expected = paired_t_test(np.array([0.1, 0.11, 0.1]), 0.95)
    assert (tuned.gain.mean, tuned.gain.low, tuned.gain.p) == pytest.approx((expected.mean, expected.low, expected.p))
    assert (tuned.fresh.row.label, tuned.fresh.reference.label) == ("ipsrec-s tuned", "ipsrec-s")
    assert tuned.fresh.difference == pytest.approx((mean_over_seeds(2, "mrr@10") - mean_over_seeds(1, "mrr@10")).mean())
    said = tuned_finding(tuned, 0.95, 0.05)
    assert "the best of 10 trials has lambda = 0.02, tau = 2, validation MRR@10 0.3033 against 0.2000" in said
    assert "+0.1033 over 3 seeds" in said
    assert tuned.adjusted_p == pytest.approx(expected.p * 8)  # nine complete trials
    assert "As the best of 9 complete trials it is more than luck" in said
    assert "it is not shown to be more than luck" in tuned_finding(tuned, 0.95, 0.001)
    assert "On test targets, with seeds that no trial had: IPSREC-S" in said


def test_rows_that_differ_in_more_than_what_was_searched_are_not_compared(tmp_path):
    def settings(_model, variant):
        x = BEST if variant else OWN
        config = f'{{"lambda": {x["lambda"]}, "tau": {x["tau"]}, "size": {8 if variant else 4}}}'
        return f'{{"config": {config}, "training": {{}}, "protocol": {{"max_length": 5}}}}'

    rows = [("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-s", "tuned")]
    (tuned,) = built(fill(tmp_path / "s.duckdb", rows=rows, settings=settings), study()).tuned
    assert tuned.fresh is None


def test_seeds_of_the_search_are_not_fresh_seeds(planted):
    (tuned,) = built(planted, study(seeds=(3, 11, 12))).tuned  # 3 is a seed of the run
    assert tuned.fresh is None
    assert "the suite that the command tune writes after a search does" in tuned_finding(tuned, 0.95, 0.05)


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([trial(0, OWN, 0.1), trial(1, BEST, 0.2)], "One training each cannot show that this is more than luck."),
        ([trial(0, OWN, 0.3), trial(1, BEST, 0.2)], "0.3000: these are the settings before."),
        ([trial(1, BEST, 0.2)], "the settings before (lambda = 0.1, tau = 1) were not tried."),
        ([trial(0, OWN, pruned=True), trial(1, BEST, 0.2)], "were given up."),
        ([trial(0, OWN, pruned=True)], "no trial has been trained to its end"),
    ],
)
def test_unknown_settings_and_gains_are_named_as_such(planted, trials, words):
    (tuned,) = built(planted, study(seeds=(11,), trials=trials)).tuned
    assert tuned.gain is None
    assert words in tuned_finding(tuned, 0.95, 0.05)


def test_unequal_budgets_are_named(planted):
    few = study("sasrec", trials=study().trials[:4], seconds=12.0)
    equal = built(planted, study(), study("sasrec")).tuned
    assert budgets(equal) == "d: sasrec 10 trials, 30 s of training; ipsrec-s 10 trials, 30 s of training."
    assert "not equal, which favours" in budgets(built(planted, study(), few).tuned)
    as_long = study("sasrec", trials=study().trials[:4])  # the rest of its time went into trials that failed
    assert "not equal" not in budgets(built(planted, study(), as_long).tuned)
    twice = built(planted, study(), study(name="other"), study("sasrec")).tuned
    assert "ipsrec-s 20 trials, 60 s of training" in budgets(twice)
    assert "not equal" in budgets(twice)


def given(dataset, label, tuning="untuned", trials=None, seconds=None):
    row = Row(label, label, label, "", tuning)
    return FairnessLine(dataset, row, trials, 0, 0, seconds, 3, 0.5, 1.0, 10, (3,), 0)


TUNED = "tuned, 20 trials"


def test_what_favours_a_row_is_said_first():
    found = judged(
        (
            *(given("d", label, TUNED, 20, 100.0) for label in "ab"),
            given("d", "c"),
            given("e", "a", TUNED, 50, 1000.0),
            given("e", "b", TUNED, 20, 100.0),
            given("f", "a"),
        ),
        "equal trials",
    )
    got = "a 50 trials in 1,000 s, b 20 trials in 100 s"
    assert found.sentences == (
        f"On e, budgets were not equal, which favours the rows that got more: {got}",
        "Not tuned, which favours the rows that were: c (untuned) on d",
        "On d, budgets were equal: each of 2 tuned rows got 20 trials (about 100 s of training)",
        "On f, nothing was tuned",
    )
    assert (found.unequal, found.not_tuned) == (("e",), found.sentences[1])


def test_the_first_screen_speaks_of_the_budgets_on_all_datasets():
    def lines(trials_on_e=20, seconds_on_e=300.0):
        on_d = [given("d", label, TUNED, 20, 100.0) for label in "ab"]
        return (*on_d, *(given("e", label, TUNED, trials_on_e, seconds_on_e) for label in "ab"))

    assert judged(lines(), "equal trials").first == ("Budgets of searches favour no row on d and e",)
    alike = judged(lines(seconds_on_e=100.0), "equal trials")
    assert alike.first == alike.sentences
    assert alike.first[0].startswith("On d and e, budgets were equal")
    one = judged((*lines(), given("f", "a"), given("g", "a", TUNED)), "equal trials").first
    assert [said.partition(",")[0] for said in one] == ["On g", "Budgets of searches favour no row on d and e", "On f"]
    assert judged((given("f", "a"),), "equal trials").first[0].startswith("Nothing was tuned here")


@pytest.mark.parametrize("budget", ["equal trials", "equal seconds"])
def test_a_row_whose_whole_space_was_tried_has_not_got_less(budget):
    """It needs no more; a row that got less than it did has got less."""
    a, b = (given("d", label, TUNED, 20, 100.0) for label in "ab")
    small = replace(given("d", "c", "tuned, 3 trials", 3, 0.4), exhausted=True)
    said = judged((a, b, small), budget)
    assert said.unequal == ()
    (sentence,) = said.sentences
    assert sentence.startswith("On d, budgets favour no row: a 20 trials in 100 s, b 20 trials in 100 s, c 3 trials in")
    assert sentence.endswith("0 s (every point of its space)")
    assert judged((a, b, replace(small, exhausted=False)), budget).unequal == ("d",)
    assert judged((a, replace(b, complete=9, search_seconds=50.0), small), budget).unequal == ("d",)
    assert judged((given("d", "a", TUNED, 2, 0.1), small), budget).unequal == ("d",)
    assert judged((replace(a, exhausted=True), small), budget).unequal == ()


def test_the_note_on_budgets_knows_exhausted_spaces(planted):
    few = study("sasrec", trials=study().trials[:4], seconds=3.0)
    assert "not equal" in budgets(built(planted, study(), few).tuned)
    assert "not equal" not in budgets(built(planted, study(), replace(few, exhausted=True)).tuned)


def test_searches_of_further_protocols_are_counted_and_not_listed_as_foreign(planted):
    """They are the run's own, although no row of the main tables has their settings."""
    other = {"config": {}, "training": {}, "protocol": {"max_length": 5, "target": "all"}}
    folds = [study(name=f"d, later-{n}", dataset="d, later", fixed=other) for n in range(2)]
    foreign = study(name="foreign", fixed=other)
    with reading(planted) as connection:
        material = read_material(connection, read_run(connection, "planted"))
    cell = next(one for one in material.run.cells if one.label == "ipsrec-s")
    further = replace(cell, dataset="d, later", base="d", protocol="later", key="of later")
    material = replace(material, run=replace(material.run, further=(further,)))
    report = build_report(material, [study(), *folds, foreign])
    assert len(report.tuned) == 1
    assert [said[:30] for said in report.other_studies] == [
        "study foreign of ipsrec-s on d",
        "2 further searches, which are o"[:30],
    ]
    (said,) = build_report(material, folds[:1]).other_studies
    assert said == "one further search, which is of another protocol of this suite"


@pytest.mark.parametrize(
    ("budget", "trials", "seconds", "words"),
    [
        ("equal trials", (20, 20), (100.0, 900.0), "each of 2 tuned rows got 20 trials (100 to 900 s of training)"),
        ("equal seconds", (20, 20), (100.0, 900.0), "budgets were not equal"),
        ("equal seconds", (9, 20), (100.0, 101.0), "each of 2 tuned rows got about 100 s of training (9 to 20 trials)"),
        ("equal trials", (9, 20), (100.0, 101.0), "each of 2 tuned rows got about 100 s of training (9 to 20 trials)"),
        ("equal trials", (20,), (100.0,), "On d, only one row was tuned: a 20 trials in 100 s"),
    ],
)
def test_budgets_are_judged_by_their_own_unit(budget, trials, seconds, words):
    lines = [given("d", label, TUNED, *got) for label, *got in zip("ab", trials, seconds, strict=False)]
    said = judged(tuple(lines), budget)
    assert words in said.sentences[0]
    assert said.unequal == (("d",) if "not equal" in words else ())


def test_a_row_that_is_tuned_on_one_dataset_is_unequal_there(tmp_path):
    path = fill(tmp_path / "s.duckdb", datasets=("d", "e"), rows=[("sasrec", ""), ("ipsrec-s", "")])
    with reading(path) as connection:
        run = read_run(connection)
        places = {("ipsrec-s", "d"): TUNED}
        cells = tuple(replace(one, tuning=places.get((one.label, one.dataset), "untuned")) for one in run.cells)
        results = results_of(connection, replace(run, cells=cells))
    assert results.row("ipsrec-s").tuning == "partly tuned"
    found = {c.dataset: c for c in against_baseline(results)}
    assert (found["d"].unequal, found["e"].unequal) == (True, False)
    assert "IPSREC-S is tuned and SASREC is not" in finding(found["d"], 0.95)
    fairness = fairness_of(results, ())
    assert "Nothing was tuned here" not in " ".join(fairness.sentences)
    assert fairness.not_tuned.endswith(": SASREC (untuned)")
    assert across_datasets(results, [*found.values()]).rows[0].row.tuning == "partly tuned"


@pytest.mark.usefixtures("pictures")
def test_all_formats_show_the_studies(planted, tmp_path):
    nasty = {NASTY: "a", "tau": 1.0, "it's\"": 1}
    odd = study(
        "sasrec", name=f"d-{NASTY}", default=nasty, importance={}, sampler=NASTY, pruner=NASTY, metric=NASTY,
        trials=[trial(0, nasty, 0.1), trial(1, {NASTY: 3, "tau": 1.0, "it's\"": 2}, 0.2)],
    )  # fmt: skip
    report = built(planted, study(), odd)
    written = write_report(report, tmp_path, ("html", "md", "latex", "json"))
    html = written.pages["html"].read_text()
    assert '<h2 id="tuning">Tuning</h2>' in html
    assert "<script>alert(1)" not in html
    assert "<script>alert(1)" not in written.pages["md"].read_text()
    assert NASTY not in next(path for path in written.tables if path.name == "table-tuning.tex").read_text()
    names = [path.name for path in written.charts if path.suffix == ".svg" and "tuning" in path.name]
    for kind in ("history", "surface", "settings", "parallel", "importance"):
        assert any(f"tuning-{kind}-d-ipsrec-s" in name for name in names), kind
    assert not any("importance-d-_script" in name for name in names)
    assert "table-tuning.tex" in {path.name for path in written.tables}
    assert "+0.1033" in written.pages["md"].read_text()
    text = next(
        path for path in written.charts if "history-d-ipsrec-s" in path.name and path.suffix == ".svg"
    ).read_text()
    assert len(re.findall(r'aria-roledescription="point"', text)) == 10


def test_settings_without_a_logarithm_are_drawn_on_a_linear_axis(planted, tmp_path):
    trials = [trial(n, {"lambda": 0.1 * n, "tau": 1.0}, 0.1 + n / 100) for n in range(10)]
    report = built(planted, study(trials=trials, logarithmic=frozenset()))
    assert any("tuning-surface" in path.name for path in write_report(report, tmp_path).charts)


def test_a_smoothed_surface_keeps_within_the_values_and_near_the_points():
    rng = np.random.default_rng(1)
    points = rng.random((40, 2))
    values = points[:, 0]
    at = np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]])
    found = smoothed(points, values, at)
    assert np.all(np.diff(found) > 0.15)
    assert values.min() <= found.min() <= found.max() <= values.max()
    assert smoothed(points, np.full(40, 0.3), at) == pytest.approx([0.3] * 3)


def test_settings_that_differ_between_datasets_have_a_line_for_each(tmp_path):
    """Tuned rows have other settings on each dataset; the protocol claims no value that holds for some cells alone."""
    path = fill(tmp_path / "s.duckdb", datasets=("d", "e"), rows=[("sasrec", ""), ("ipsrec-s", "")])
    with writing(path) as connection:
        for fingerprint, rate, size in (("f", 0.002, 128), ("f1", 0.01, 256)):
            training = {"learning_rate": rate, "batch_size": size, "patience": 3 if rate > 0.005 else 10}
            connection.execute(
                "UPDATE cells SET settings = ? WHERE type = 'ipsrec-s' AND fingerprint = ?",
                [
                    json.dumps({"config": {"tau": rate}, "training": training, "protocol": {"max_length": 5}}),
                    fingerprint,
                ],
            )
    report = built(path)
    found = [(line.row.label, line.dataset, line.settings) for line in report.settings]
    assert found == [
        ("sasrec", "", ""),
        ("ipsrec-s", "d", "tau = 0.002, learning_rate = 0.002, batch_size = 128, patience = 10"),
        ("ipsrec-s", "e", "tau = 0.01, learning_rate = 0.01, batch_size = 256, patience = 3"),
    ]
    said = dict(report.protocol)
    assert said["Learning rate"] == "0.002 to 0.01 (Adam), as the settings of each model say"
    assert said["Batch size"] == "128 to 256 targets, as the settings of each model say"
    assert said["Stopping"].endswith("; the settings of some models say otherwise")
    assert "otherwise" not in said["Samples"] + said["Objective"] + said["Products in training"]
    shown = settings(report)
    assert [column.title for column in shown.columns] == ["Model", "Dataset", "Settings"]
    assert [row.cells[1].text for row in shown.rows] == ["all", "d", "e"]


def test_equal_settings_are_one_line(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", datasets=("d", "e")))
    assert [line.dataset for line in report.settings] == [""] * 4
    assert [column.title for column in settings(report).columns] == ["Model", "Settings"]
    assert (dict(report.protocol)["Learning rate"], dict(report.protocol)["Batch size"]) == (
        "0.001 (Adam)",
        "256 targets",
    )


def test_a_tuned_run_is_not_said_to_lack_fresh_seeds(tmp_path):
    """`run --tuned` trains the best settings on fresh seeds and writes no suite; it has no row with those before."""

    def settings(model, _variant):
        config = json.dumps(BEST) if model == "ipsrec-s" else "{}"
        return f'{{"config": {config}, "training": {{}}, "protocol": {{"max_length": 5}}}}'

    path = fill(tmp_path / "s.duckdb", rows=[("sasrec", ""), ("ipsrec-s", "")], settings=settings)
    (own,) = built(path, study()).tuned
    assert (own.fresh, own.trained) == (None, True)
    said = tuned_finding(own, 0.95, 0.05)
    assert "This run has the best settings on test targets and fresh seeds, but not those before" in said
    assert "suite" not in said
    (seen,) = built(path, study(seeds=(1, 2, 3))).tuned  # its trials had the seeds of the run
    assert "This run does not compare them on test targets and fresh seeds; the suite that the command tune" in (
        tuned_finding(seen, 0.95, 0.05)
    )
