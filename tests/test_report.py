"""Reports: what they say follows from the ranks."""

import re
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest

from ipsrec_bench.errors import StoreError, SuiteError
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run, shown_otherwise
from ipsrec_bench.report.sentences import finding, where
from ipsrec_bench.report.slices import slices_of
from ipsrec_bench.report.tables.comparisons import all_pairs
from ipsrec_bench.report.tables.order import sampled
from ipsrec_bench.report.tables.results import ablation
from ipsrec_bench.stats.all_pairs import max_t
from ipsrec_bench.stats.correction import adjust
from ipsrec_bench.stats.effect import effect_size, relative_gain
from ipsrec_bench.stats.equivalence import equivalence_p
from ipsrec_bench.stats.method import method_test
from ipsrec_bench.stats.paired import paired_t_test, wilcoxon_p, win_tie_loss
from ipsrec_bench.stats.power import detectable_difference
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import record_cell

from .planted import ROWS, SEEDS, USERS, built, difference_of, fill, mean_over_seeds, planted_facts, planted_ranks
from .test_store import HERE, record


@pytest.fixture
def planted(tmp_path):
    return fill(tmp_path / "s.duckdb")


CAUTION = (
    "Stand-in data at a scale of 1: d. Generated in the shape of the published datasets, about which these"
    " figures say nothing."
)


def test_a_stand_in_is_named_in_the_title_and_beside_every_table(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", stand_in=True))
    assert report.headline == "Planted [stand-in data]"
    written = write_report(report, tmp_path)
    html, markdown = written.pages["html"].read_text(), written.pages["md"].read_text()
    assert "<title>Planted [stand-in data]</title>" in html
    tables = len(re.findall(r'^<h2 id="(?!protocol|provenance)', html, flags=re.MULTILINE))
    assert html.count(f'<p class="caution">{CAUTION}</p>') == tables >= 7
    assert markdown.count(f"*{CAUTION}*") == tables
    latex = write_report(report, tmp_path, ("latex",))
    assert all(CAUTION in path.read_text() for path in latex.tables)


def test_a_sample_of_users_is_named(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", scale=0.01))
    assert report.headline == "Planted"
    assert report.caution == "Samples of the users, chosen by a hash of their ids: d (1%)."
    assert built(fill(tmp_path / "whole.duckdb")).caution == ""


def test_datasets_that_were_left_out_are_named(tmp_path):
    report = built(fill(tmp_path / "s.duckdb"))
    assert report.left_out == ("positive-control",)  # the planted cells are of another dataset
    written = write_report(report, tmp_path, ("html", "md", "latex"))
    said = "Left out because raw files are missing"
    assert f"{said}:</strong> positive-control." in written.pages["html"].read_text()
    assert f"**{said}:** positive-control." in written.pages["md"].read_text()
    assert rf"\textbf{{{said}:}} positive-control." in written.pages["latex"].read_text()


def test_the_result_table_holds_means_over_users_and_seeds(planted):
    table = built(planted).results
    assert [row.label for row in table.columns] == ["pop", "sasrec", "ipsrec-s"]
    assert [(line.dataset, line.metric) for line in table.lines] == [
        ("d", name) for name in ("hr@5", "hr@10", "mrr@5", "mrr@10")
    ]
    for line in table.lines:
        for column, cell in enumerate(line.cells):
            by_seed = [metric(line.metric, planted_ranks(column, seed)).mean() for seed in SEEDS]
            assert cell.score.mean == pytest.approx(np.mean(by_seed))
            assert cell.score.deviation == pytest.approx(np.std(by_seed, ddof=1))
        assert [cell.best for cell in line.cells] == [False, False, True]
        assert [cell.second for cell in line.cells] == [False, True, False]
        assert [cell.gain is not None for cell in line.cells] == [False, False, True]
        assert line.cells[2].mark


def matrix(row: int, name: str) -> np.ndarray:
    return np.stack([metric(name, planted_ranks(row, seed)) for seed in SEEDS], axis=1)


def test_comparisons_carry_every_statistic_and_are_corrected_by_family(planted):
    report = built(planted)
    for name in ("hr@5", "mrr@10"):
        found = [c for c in report.comparisons if c.metric == name]
        assert [(c.row.label, c.reference.label) for c in found] == [
            (label, "sasrec") for label in ("pop", "ipsrec-s", "ipsrec-s w/o CL")
        ]
        for c, row in zip(found, (0, 2, 3), strict=True):
            ours, theirs = mean_over_seeds(row, name), mean_over_seeds(1, name)
            test = paired_t_test(ours - theirs)
            method = method_test(matrix(row, name), matrix(1, name)).test
            assert (c.by_users.p, c.p, c.difference) == pytest.approx((test.p, method.p, test.mean))
            assert (c.low, c.high) == pytest.approx((method.low, method.high))
            assert (c.test, c.method.test.p, c.fell_back) == ("method", method.p, False)
            assert c.effect.low == pytest.approx(effect_size(ours - theirs).low)
            assert c.gain.high == pytest.approx(relative_gain(ours, theirs).high)
            assert c.counts == win_tie_loss(ours - theirs)
            level = 0.01 / (1 if c.row.label == "pop" else 2)  # the proposed rows are a family
            assert c.detectable == pytest.approx(detectable_difference(method.standard_error, method.degrees, level))
            assert (c.users, c.seeds, c.reference_seeds, c.mean) == (USERS, 3, 3, pytest.approx(ours.mean()))
        other, *proposed = found
        assert (other.family, other.adjusted_p) == (1, other.p)
        for alone, together in (
            ("p", "adjusted_p"), ("by_users.p", "adjusted_users_p"), ("method.test.p", "adjusted_method_p")
        ):  # fmt: skip
            assert [getattr(c, together) for c in proposed] == adjust([attrgetter(alone)(c) for c in proposed], "holm")
        assert [c.of_models for c in found] == ["worse", "better", "better"]


def test_the_declared_test_gives_the_marks(tmp_path):
    method, flips, ranks = (
        built(fill(tmp_path / f"{test}.duckdb", statistics=f'test = "{test}"\nresamples = 500'))
        for test in ("method", "randomisation", "wilcoxon")
    )
    d = difference_of(2, 1, "mrr@10")  # the report's metric stands first
    one, other, third = (next(c for c in r.comparisons if c.row.label == "ipsrec-s") for r in (method, flips, ranks))
    assert one.p == one.method.test.p
    assert (one.low, one.high) == (one.method.test.low, one.method.test.high)
    assert third.p == pytest.approx(wilcoxon_p(d))
    alone = sign_flip_p(
        np.stack([difference_of(row, 1, name) for name in ("mrr@10", "hr@5", "hr@10", "mrr@5") for row in (0, 2, 3)]),
        500,
    )
    assert [c.p for c in flips.comparisons] == alone.tolist()
    assert other.by_users.p == one.by_users.p
    assert "the seeds of each row" in method.test_rule
    assert dict(ranks.protocol)["Test"].startswith("two-sided Wilcoxon")


def test_the_test_of_methods_takes_three_seeds(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", seeds=(1, 2), statistics='test = "method"\nmargin = 0.9'))
    c = report.comparisons[0]
    assert (c.p, c.adjusted_p, c.verdict, c.of_method) == (None, None, "undecided", "too few seeds")
    assert c.equivalence_p is None
    assert "needs three seeds" in finding(c, 0.95)
    assert "With 2 trainings of each, no claim about the methods is possible" in finding(c, 0.95)
    write_report(report, tmp_path, ("html", "md", "latex", "json"))


def test_bootstrap_intervals_and_equivalence_can_be_declared(tmp_path):
    report = built(
        fill(
            tmp_path / "s.duckdb",
            statistics='test = "paired-t"\ninterval = "bootstrap"\nresamples = 400\nmargin = 0.2\nalpha = 0.05',
        )
    )
    c = next(c for c in report.comparisons if (c.metric, c.row.label) == ("hr@5", "ipsrec-s"))
    d = np.stack([difference_of(row, 1, name) for name in ("hr@5", "hr@10", "mrr@5", "mrr@10") for row in (0, 2, 3)])
    assert [c.low, c.high] == bootstrap_intervals(d, 0.95, 400)[1].tolist()
    members = [c for c in report.comparisons if c.metric == "hr@5"]
    alone = [
        equivalence_p(mean_over_seeds(row, "hr@5"), mean_over_seeds(1, "hr@5"), 0.2, paired_t_test) for row in (0, 2, 3)
    ]
    assert [c.equivalence_p for c in members] == pytest.approx([alone[0], *adjust(alone[1:], "holm")])
    assert "bootstrap over users, 400 samples" in report.interval_rule
    assert "p, equivalent" in write_report(report, tmp_path).pages["html"].read_text()


def test_equal_rows_are_found_equivalent(tmp_path):
    path = fill(
        tmp_path / "s.duckdb",
        statistics='test = "paired-t"\nmargin = 0.5\nalpha = 0.05',
        rows=[("pop", ""), ("sasrec", "")],
    )
    with writing(path) as connection:  # the same ranks but for one user
        connection.execute(
            "UPDATE ranks SET higher = a.higher FROM ranks a JOIN cells c USING (cell), cells b"
            " WHERE b.cell = ranks.cell AND b.type = 'pop' AND c.type = 'sasrec' AND b.seed = c.seed"
            ' AND a."user" = ranks."user" AND a.split = ranks.split AND a."user" > 0'
        )
    c = built(path).comparisons[0]
    assert c.verdict == "equivalent"
    assert "are equivalent on d, within ±50%" in finding(c, 0.95)


def test_a_wider_family_corrects_more_and_a_baseline_can_be_declared(tmp_path):
    one = built(fill(tmp_path / "a.duckdb", statistics='baseline = "pop"\nfamily = "metric"'))
    all_metrics = built(fill(tmp_path / "b.duckdb", statistics='baseline = "pop"\nfamily = "dataset"'))
    assert {c.reference.label for c in one.comparisons} == {"pop"}
    assert all_metrics.results.lines[0].cells[1].gain is None  # sasrec is no proposal
    for proposed in (False, True):
        members = [[c for c in r.comparisons if (c.row.model == "ipsrec-s") == proposed] for r in (one, all_metrics)]
        assert [c.adjusted_p for c in members[1]] == adjust([c.p for c in members[0]], "holm")


def test_families_and_corrections_are_as_declared(tmp_path):
    datasets = ("d", "e")
    whole = built(fill(tmp_path / "a.duckdb", datasets=datasets, statistics='family = "suite"'))
    for proposed in (False, True):
        members = [c for c in whole.comparisons if (c.row.model == "ipsrec-s") == proposed]
        assert [c.adjusted_p for c in members] == adjust([c.p for c in members], "holm")
        assert {c.family for c in members} == {len(members)}
    none = built(fill(tmp_path / "b.duckdb", datasets=datasets, statistics='correction = "none"'))
    assert [c.adjusted_p for c in none.comparisons] == [c.p for c in none.comparisons]
    bh = built(fill(tmp_path / "c.duckdb", datasets=datasets, statistics='correction = "benjamini-hochberg"'))
    members = [c for c in bh.comparisons if (c.dataset, c.metric, c.row.model) == ("e", "mrr@5", "ipsrec-s")]
    assert [c.adjusted_p for c in members] == adjust([c.p for c in members], "benjamini-hochberg")


def test_the_ablation_compares_variants_with_their_model(planted):
    table = built(planted).ablation
    assert [line.row.label for line in table.lines] == ["sasrec", "ipsrec-s", "ipsrec-s w/o CL"]
    assert table.columns == (("d", "hr@5"), ("d", "mrr@5"))
    variant = table.lines[2].cells[0].comparison
    assert variant.reference.label == "ipsrec-s"
    assert variant.by_users == paired_t_test(difference_of(3, 2, "hr@5"))


@pytest.mark.parametrize(
    ("variants", "title", "lines"),
    [
        (["w/o CL"], "Ablation", ["sasrec", "ipsrec-s", "ipsrec-s w/o CL"]),
        (["tuned"], "Tuned and untuned models", ["sasrec", "ipsrec-s", "ipsrec-s tuned"]),
        (["w/o CL", "tuned"], "Ablation and tuned models", ["sasrec", "ipsrec-s", "ipsrec-s w/o CL", "ipsrec-s tuned"]),
    ],
)
def test_a_table_of_tuned_models_is_no_ablation(tmp_path, variants, title, lines):
    rows = [("sasrec", ""), ("ipsrec-s", ""), *(("ipsrec-s", variant) for variant in variants)]
    report = built(fill(tmp_path / "s.duckdb", rows=rows, seeds=(1,), statistics='baseline = "sasrec"'))
    assert [line.row.label for line in report.ablation.lines] == lines
    (table,) = ablation(report)
    assert table.caption == title
    assert table.note.endswith(" SASREC is shown above them for reference.")
    assert ("(of a tuned model, to the untuned one)" in table.note) == ("tuned" in variants)
    page = write_report(report, tmp_path, ("md",)).pages["md"].read_text(encoding="utf-8")
    assert f"\n## {title}\n" in page


def test_a_baseline_with_variants_of_its_own_is_no_reference(tmp_path):
    rows = [("sasrec", ""), ("sasrec", "tuned"), ("ipsrec-s", ""), ("ipsrec-s", "tuned")]
    (table,) = ablation(built(fill(tmp_path / "s.duckdb", rows=rows, seeds=(1,), statistics='baseline = "sasrec"')))
    assert "for reference" not in table.note


def test_the_critical_t_of_all_pairs_is_shown(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", seeds=(1,), statistics='family = "all-pairs"\nresamples = 500'))
    values = np.stack([mean_over_seeds(row, "mrr@10", (1,)) for row in range(3)])
    (one,) = (one for one in report.all_pairs if one.metric == "mrr@10")
    assert one.critical == max_t(values, 500).critical(0.01)
    least, *_, most = sorted(one.critical for one in report.all_pairs)
    said = f"from which a pair is shown to differ is {least:.2f} to {most:.2f}, by dataset and metric."
    assert all_pairs(report).note.endswith(f" The |t| over users {said}")


def test_what_is_not_ranked_among_sampled_negatives_is_named(tmp_path):
    few = built(fill(tmp_path / "few.duckdb", items=101, seeds=(1,)))
    assert few.sampled.sentences == (
        "Models are not ranked among 100 sampled negatives on d: a target has only 100 other candidates.",
    )
    assert not [*sampled(few)]
    path = fill(tmp_path / "s.duckdb", seeds=(1,))
    with writing(path) as connection:
        connection.execute("UPDATE cells SET depth = 20 WHERE key LIKE 'dpop%'")
    lists = built(path)
    assert {line.row.label for line in lists.sampled.lines} == {"sasrec", "ipsrec-s", "ipsrec-s w/o CL"}
    (table,) = sampled(lists)
    said = "POP is not ranked among 100 sampled negatives on d: its ranks beyond the ends of its lists are not known."
    assert said in lists.sampled.sentences
    assert table.note.endswith(f" {said}")


def test_slices_part_the_users(planted):
    report = built(planted)
    (table,) = report.slices
    assert (table.row.label, table.reference.label, table.metric) == ("ipsrec-s", "sasrec", "mrr@10")
    facts = planted_facts(USERS)
    chosen = {(dimension, name): members for dimension, name, members in slices_of(facts)}
    by_dimension: dict[str, int] = {}
    for s in table.slices:
        by_dimension[s.dimension] = by_dimension.get(s.dimension, 0) + s.comparison.users
        members = chosen[s.dimension, s.name]
        assert s.comparison.by_users == paired_t_test(difference_of(2, 1, "mrr@10")[members])
        assert s.share == members.mean()
    small = {
        f"{dimension}: {name}": members.sum() for (dimension, name), members in chosen.items() if members.sum() < 30
    }
    assert set(table.too_small) == set(small)
    for name, users in small.items():
        for place in name.split("; "):  # what is the same slice of another dimension, too
            by_dimension[place.partition(": ")[0] if ": " in place else name.partition(": ")[0]] += users
    assert set(by_dimension.values()) == {USERS}
    assert set(by_dimension) == {
        "history length",
        "item in training",
        "provider in training",
        "target's provider",
        "target",
    }
    assert [s.comparison.adjusted_p for s in table.slices] == adjust([s.comparison.p for s in table.slices], "holm")
    said = where(table)
    assert all(
        table.named(verdict) == [] or word in said
        for verdict, word in (("better", "Better"), ("undecided", "Not shown to differ"))
    )


def test_slices_are_named_by_their_members():
    facts = planted_facts(USERS)
    named = {(dimension, name): members for dimension, name, members in slices_of(facts)}
    assert (facts.item_count[named["item in training", "never"]] == 0).all()
    for (dimension, name), members in named.items():
        bounds = re.fullmatch(r"(\d+)(?: to (\d+))?( times)?", name)
        if bounds:
            values = {"history length": facts.history, "item in training": facts.item_count}.get(
                dimension, facts.provider_count
            )[members]
            assert int(bounds[1]) <= values.min()
            assert values.max() == int(bounds[2] or bounds[1])
    known = named["target", "new item of a provider in the history"]
    assert (known == (~facts.item_seen & facts.provider_seen)).all()


def test_without_facts_there_are_no_slices(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", facts=False))
    assert report.slices == ()
    write_report(report, tmp_path, ("html", "md", "latex", "json"))


def test_charts_show_what_was_measured(planted):
    report = built(planted)
    curve = next(c for c in report.hits if c.row.label == "sasrec")
    for cutoff, value in curve.points:
        assert value == pytest.approx(np.mean([metric(f"hr@{cutoff}", planted_ranks(1, seed)) for seed in SEEDS]))
    assert curve.points[0][0] == 1
    assert curve.points[-1] == (900, 1.0)
    scores = {(s.row.label, s.seed): s.value for s in report.seed_scores}
    assert scores["ipsrec-s w/o CL", 2] == pytest.approx(metric("mrr@10", planted_ranks(3, 2)).mean())
    assert len(scores) == len(ROWS) * len(SEEDS)
    assert {line.row.label: line.value for line in report.costs}["pop"] == pytest.approx(
        mean_over_seeds(0, "mrr@10").mean()
    )


def test_a_grid_of_lambda_and_tau_is_a_surface(tmp_path):
    grid = {f"{x}-{y}": (x, y) for x in (0.0, 0.1) for y in (0.5, 1.0)}

    def settings(model, variant):
        x, y = grid.get(variant, (0.3, 2.0))
        config = f'{{"lambda": {x}, "tau": {y}, "size": 8}}' if model == "ipsrec-s" else "{}"
        return f'{{"config": {config}, "training": {{}}, "protocol": {{"max_length": 5}}}}'

    rows = [("sasrec", ""), ("ipsrec-s", ""), *(("ipsrec-s", name) for name in grid)]
    report = built(fill(tmp_path / "s.duckdb", rows=rows, settings=settings))
    (surface,) = report.surfaces
    assert (surface.dataset, surface.model, surface.metric, surface.split) == ("d", "ipsrec-s", "mrr@10", "test")
    points = {(point.lambda_, point.tau): point for point in surface.points}
    assert set(points) == {*grid.values(), (0.3, 2.0)}
    assert points[0.0, 1.0].value == pytest.approx(mean_over_seeds(3, "mrr@10").mean())
    assert points[0.3, 2.0].comparison is None
    against = points[0.0, 1.0].comparison
    assert against.reference.label == "ipsrec-s"
    assert against.low < points[0.0, 1.0].value - points[0.3, 2.0].value < against.high
    assert built(fill(tmp_path / "t.duckdb")).surfaces == ()


def test_an_unfinished_run_shows_what_is_there_and_names_what_is_not(tmp_path):
    gone = {("sasrec", 2), ("pop", 1), ("pop", 2)}
    path = fill(tmp_path / "s.duckdb", seeds=(1, 2), leave_out=gone, errors={("ipsrec-s", 2)})
    report = built(path)
    assert [(cell.row.label, cell.seed, cell.error) for cell in report.missing] == [
        ("pop", 1, None),
        ("pop", 2, None),
        ("sasrec", 2, None),
        ("ipsrec-s", 2, "MemoryError: too big"),
    ]
    first = report.results.lines[0].cells
    assert first[0].score is None
    assert (first[1].score.seeds, first[1].score.deviation) == (1, None)
    assert {(c.seeds, c.reference_seeds) for c in report.comparisons} == {(1, 1), (2, 1)}
    assert all(c.method is None for c in report.comparisons)
    written = write_report(report, tmp_path, ("html", "md", "latex", "json"))
    text = written.pages["md"].read_text()
    assert "failed after 1.0 s: MemoryError: too big" in text
    assert "seed 2: not run yet" in text
    assert "(1/2 seeds)" in text
    assert "With one training of each, no claim about the methods is possible" in text


def test_a_run_without_any_result_still_has_a_report(tmp_path):
    nothing = {(f"{model} {variant}".strip(), seed) for model, variant in ROWS for seed in SEEDS}
    report = built(fill(tmp_path / "s.duckdb", leave_out=nothing))
    assert report.comparisons == ()
    text = write_report(report, tmp_path, ("html", "md", "latex", "json")).pages["html"].read_text()
    assert "This run is unfinished" in text
    assert "Nothing is compared" in text


def test_without_a_proposed_model_all_are_compared_with_the_best(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=[("pop", ""), ("sasrec", ""), ("sasrec", "big")])
    report = built(path)
    assert report.results.proposed == frozenset()
    # The variant has the best ranks of all, but the table has no column for it: it is no baseline.
    assert {(c.row.label, c.reference.label) for c in report.comparisons} == {
        ("pop", "sasrec"),
        ("sasrec big", "sasrec"),
    }
    assert [c.row.label for c in report.findings] == ["pop"]


def test_gain_and_shown_means_agree_on_complete_runs(planted):
    for line in built(planted).results.lines:
        shown = line.cells[2].score.mean / line.cells[1].score.mean - 1
        assert line.cells[2].gain == pytest.approx(shown)


def test_one_user_is_too_few_to_compare(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", users=1))
    assert report.results.lines[0].cells[0].score is not None
    assert report.comparisons == ()
    write_report(report, tmp_path, ("html", "md", "latex", "json"))


def test_a_report_needs_a_run(planted):
    with pytest.raises(StoreError, match="no run of a suite 'quick'"):
        built(planted, "quick")


def test_cells_of_one_table_that_differ_in_origin_are_warned_of(planted):
    with writing(planted) as connection:
        row = connection.execute(
            "SELECT key, fingerprint, type, seed, settings FROM cells WHERE type = 'pop'"
        ).fetchone()
        key, fingerprint, kind, seed, settings = row
        record_cell(
            connection,
            record(
                key,
                fingerprint=fingerprint,
                type=kind,
                seed=seed,
                settings=settings,
                environment=replace(HERE, torch="1.0"),
                ranks={"test": record().ranks["test"]},
            ),
        )
        connection.execute("DELETE FROM ranks WHERE cell = (SELECT cell FROM cells WHERE key = ?)", [key])
        connection.execute(
            "INSERT INTO ranks SELECT (SELECT cell FROM cells WHERE key = ?), 'test', \"user\", 0, 0 FROM ranks"
            " WHERE cell = (SELECT min(cell) FROM cells WHERE type = 'sasrec')",
            [key],
        )
    (warning,) = built(planted).warnings
    assert warning.startswith("torch differs between cells: 2 (")
    assert "1.0 (POP on d, seed 1)" in warning


def test_a_cell_that_ranks_other_users_is_left_out_and_named(planted):
    with writing(planted) as connection:
        connection.execute('DELETE FROM ranks WHERE "user" = 7 AND cell = (SELECT max(cell) FROM cells)')
    report = built(planted)
    (warning,) = (warning for warning in report.warnings if "left out" in warning)
    assert "seed 3, ranks different users than the cells beside it and is left out; run the suite again with" in warning
    scores = [cell.score.seeds for line in report.results.lines for cell in line.cells]
    assert set(scores) == {3}
    assert {cell.score.seeds for line in report.ablation.lines for cell in line.cells} == {2, 3}


def test_a_report_can_show_other_metrics_and_tests_without_a_run(planted):
    with reading(planted) as connection:
        run = read_run(connection)
        changed = shown_otherwise(
            run,
            [
                "protocol.cutoffs=[1,20]",
                "protocol.metrics=['ndcg']",
                "statistics.test=method",
                "statistics.baseline=pop",
            ],
        )
        report = build_report(read_material(connection, changed))
        assert [line.metric for line in report.results.lines] == ["ndcg@1", "ndcg@20"]
        assert {c.reference.label for c in report.comparisons} == {"pop"}
        assert report.comparisons[0].p == report.comparisons[0].method.test.p
        with pytest.raises(StoreError, match="anything else needs another run"):
            shown_otherwise(run, ["training.epochs=3"])
        with pytest.raises(StoreError, match="did you mean 'pop'"):
            shown_otherwise(run, ["statistics.baseline=popp"])
        with pytest.raises(SuiteError, match="cutofs"):
            shown_otherwise(run, ["protocol.cutofs=[1]"])


def test_in_an_unfinished_suite_the_baseline_has_as_many_seeds_as_any(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=[("pop", ""), ("sasrec", ""), ("ipsrec-s", "")],
                leave_out={("sasrec", 2), ("sasrec", 3)})  # fmt: skip
    against = {c.row.label: c for c in built(path).comparisons}
    assert against["ipsrec-s"].reference.label == "pop"  # sasrec is better, but has one seed
    assert against["ipsrec-s"].seeds == 3


def test_too_few_sign_flips_are_warned_of(tmp_path):
    few = fill(tmp_path / "few.duckdb", statistics='test = "randomisation"\nresamples = 100')
    assert any("100 sign flips cannot give an adjusted p below 0.0198" in w for w in built(few).warnings)
    enough = fill(tmp_path / "enough.duckdb", statistics='test = "randomisation"\nresamples = 1000')
    assert built(enough).warnings == ()


def test_a_slice_of_few_users_is_named_not_compared(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", users=100))
    assert report.slices[0].too_small
    assert "Too few users to compare: " in where(report.slices[0])
    assert all(s.comparison.users >= 30 for s in report.slices[0].slices)


def test_the_reports_metric_must_be_one_of_the_tables(tmp_path):
    with pytest.raises(SuiteError, match=r"statistics\.metric is 'ndcg@20', which the tables do not have"):
        fill(tmp_path / "s.duckdb", statistics='metric = "ndcg@20"')


def test_an_unbounded_interval_is_shown_as_unbounded(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", users=3, statistics='baseline = "pop"'))
    written = write_report(report, tmp_path, ("html", "md", "latex", "json"))
    for path in (*written.pages.values(), *written.tables):
        assert not re.search(r"\binf\b|\bnan\b", re.sub(r"<script>.*?</script>", "", path.read_text(), flags=re.DOTALL))
