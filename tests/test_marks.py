"""Marks and verdicts: of the method and of the trained models, within a margin, in a family, of all pairs."""

import numpy as np
import pytest

from ipsrec_bench.errors import SuiteError
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.compared import compared_pairs, verdict_rule
from ipsrec_bench.report.planning import seeds_for
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.selections import compare_named, read_named
from ipsrec_bench.report.sentences import finding
from ipsrec_bench.report.tables.comparisons import comparisons
from ipsrec_bench.report.tables.controls import controls
from ipsrec_bench.report.tables.results import results
from ipsrec_bench.stats.correction import adjust
from ipsrec_bench.stats.method import method_test
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.suite.load import stored_suite

from .planted import SEEDS, built, fill, planted_ranks

FORMATS = ("html", "md", "latex", "json")


def of_row(report, label, name):
    return next(c for c in report.comparisons if (c.row.label, c.metric) == (label, name))


def test_all_seeds_are_compared_and_the_means_are_those_of_the_table(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", seeds=(1, 2, 3, 4), leave_out={("ipsrec-s", 2)}))
    for name in ("hr@5", "mrr@10"):
        c = of_row(report, "ipsrec-s", name)
        line = next(line for line in report.results.lines if line.metric == name)
        assert (c.seeds, c.reference_seeds) == (3, 4)
        assert [c.reference_mean, c.mean] == pytest.approx([cell.score.mean for cell in line.cells[1:]])
        assert line.cells[2].gain == pytest.approx(line.cells[2].score.mean / line.cells[1].score.mean - 1)
        ours = np.stack([metric(name, planted_ranks(2, seed)) for seed in (1, 3, 4)], axis=1)
        theirs = np.stack([metric(name, planted_ranks(1, seed)) for seed in (1, 2, 3, 4)], axis=1)
        assert c.p == pytest.approx(method_test(ours, theirs).test.p)
        assert c.superiority == pytest.approx(_served())
    assert "over 3 and 4 seeds and 400 users" in finding(c, 0.95)


def _served() -> float:
    pairs = [(planted_ranks(2, a), planted_ranks(1, b)) for a in (1, 3, 4) for b in (1, 2, 3, 4)]
    return float(np.mean([(a < b) + (a == b) / 2 for a, b in pairs]))


def lucky(path, *, shift=0):
    """The proposal is better by its seeds' luck: one training in three gains much, for all users."""
    with writing(path) as connection:
        for model in ("sasrec", "ipsrec-s"):
            connection.execute(
                'UPDATE ranks SET higher = hash("user") % 60 FROM cells WHERE cells.cell = ranks.cell AND type = ?',
                [model],
            )
        connection.execute(
            "UPDATE ranks SET higher = greatest(higher::INTEGER - 20, 0) FROM cells"
            f" WHERE cells.cell = ranks.cell AND type = 'ipsrec-s' AND seed = {1 + shift}"
        )


ROWS_OF_TWO = [("pop", ""), ("sasrec", ""), ("ipsrec-s", "")]


def test_a_lucky_training_gets_the_light_mark_alone(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=ROWS_OF_TWO, statistics='baseline = "sasrec"')
    lucky(path)
    report = built(path)
    c = of_row(report, "ipsrec-s", "hr@10")
    assert (c.test, c.verdict, c.of_method, c.of_models, c.mark) == ("method", "undecided", "undecided", "better", "°")
    said = finding(c, 0.95)
    assert "No difference between IPSREC-S and SASREC is shown" in said
    assert "Only these trained models are shown to differ, better: p < 0.0001" in said
    assert f"{c.seeds_needed.seeds} seeds each would show" in said
    written = write_report(report, tmp_path, FORMATS)
    html, markdown, tex, _ = (path.read_text(encoding="utf-8") for path in written.pages.values())
    assert "%°" in html
    assert "%°" in markdown
    assert "°: only these trained models are shown to differ" in html
    assert r"\%$^\circ$" in next(p for p in written.tables if p.name == "table-results.tex").read_text()
    assert tex


def test_one_training_each_gets_the_light_mark(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", seeds=(1,), rows=ROWS_OF_TWO))
    c = of_row(report, "ipsrec-s", "hr@10")
    assert (c.test, c.fell_back, c.verdict, c.mark) == ("paired-t", True, "better", "°")
    declared = built(fill(tmp_path / "t.duckdb", seeds=(1,), rows=ROWS_OF_TWO, statistics='test = "paired-t"'))
    assert of_row(declared, "ipsrec-s", "hr@10").mark == "*"
    assert "°" not in write_report(declared, tmp_path, ("md",)).main.read_text(encoding="utf-8")


def test_within_the_margin_nothing_is_marked(tmp_path):
    outside = built(fill(tmp_path / "a.duckdb", statistics="margin = 0.05\nalpha = 0.05"))
    c = of_row(outside, "ipsrec-s", "hr@10")
    assert (c.verdict, c.mark, c.direction) == ("better", "*", "better")
    inside = of_row(built(fill(tmp_path / "b.duckdb", statistics="margin = 0.9\nalpha = 0.05")), "ipsrec-s", "hr@10")
    assert inside.adjusted_p == c.adjusted_p
    assert (inside.verdict, inside.mark, inside.direction) == ("better, within the margin", "", "equivalent")
    assert "is better than SASREC on d, but within the margin of ±90%" in finding(inside, 0.95)
    p = inside.practical
    assert p.worse + p.same + p.better == pytest.approx(1)
    assert p.same > 0.99 > c.practical.same
    assert f"{p.worse:.2f} / {p.same:.2f} / {p.better:.2f}" in finding(inside, 0.95)
    text = write_report(outside, tmp_path, ("md",)).main.read_text(encoding="utf-8")
    assert "Worse / same / better" in text


def with_validation(path, higher):
    """Give the rows validation ranks: `higher` by label."""
    with writing(path) as connection:
        for label, rank in higher.items():
            connection.execute(
                "INSERT INTO ranks SELECT cell, 'valid', u, ?, 0 FROM cells, range(50) t(u) WHERE type = ?",
                [rank, label],
            )
    return path


def test_the_best_baseline_is_chosen_on_validation(tmp_path):
    path = with_validation(fill(tmp_path / "s.duckdb"), {"pop": 1, "sasrec": 3})
    report = built(path)
    assert {c.reference.label for c in report.comparisons} == {"pop"}  # on the test targets sasrec is better
    assert (report.chosen_on_test, report.notes) == ((), ())
    for name, text in zip(
        FORMATS, (p.read_text() for p in write_report(report, tmp_path, FORMATS).pages.values()), strict=True
    ):
        if name != "latex":  # its tables are files of their own
            assert "best on validation" in text, name
    assert "best on validation" in write_report(report, tmp_path, ("latex",)).tables[0].read_text()


def test_without_validation_ranks_the_baseline_is_chosen_on_test_and_named(tmp_path):
    report = built(with_validation(fill(tmp_path / "s.duckdb"), {"pop": 1}))
    assert {c.reference.label for c in report.comparisons} == {"sasrec"}
    assert report.chosen_on_test == ("d",)
    text = write_report(report, tmp_path, ("html",)).main.read_text()
    assert "the best baseline is chosen on the test targets, which favours it, because SASREC has no" in text


def compared(path, a, b):
    with reading(path) as connection:
        named = read_named(connection, read_run(connection), a, b)
    return compare_named(named)


def test_compare_corrects_as_the_report_does_or_says_that_it_does_not(tmp_path):
    path = fill(tmp_path / "s.duckdb")
    report = built(path)
    for c in compared(path, "ipsrec-s", "sasrec"):
        reported = of_row(report, "ipsrec-s", c.metric)
        names = ("adjusted_p", "adjusted_users_p", "adjusted_method_p", "family", "detectable")
        assert [getattr(c, name) for name in names] == [getattr(reported, name) for name in names]
        assert c.family == 2
    turned = compared(path, "sasrec", "ipsrec-s")[0]
    assert (turned.adjusted_p, turned.family) == (pytest.approx(of_row(report, "ipsrec-s", "hr@5").adjusted_p), 2)
    alone = compared(path, "ipsrec-s", "pop")
    assert all((c.family, c.adjusted_p) == (1, c.p) for c in alone)
    assert ", not corrected" in finding(alone[0], 0.95)
    shown = next(iter(compared_pairs(alone, read_statistics(path))))
    assert "p, one pair, not corrected" in [line[0] for line in shown.lines]
    assert "if the report of the suite makes this comparison" in verdict_rule(read_statistics(path))


def read_statistics(path):
    with reading(path) as connection:
        return read_run(connection).suite.statistics


def test_an_earlier_run_says_how_many_seeds_are_needed(tmp_path):
    path = fill(tmp_path / "s.duckdb", rows=ROWS_OF_TWO, statistics='baseline = "sasrec"')
    lucky(path)
    c = of_row(built(path), "ipsrec-s", "mrr@10")
    with reading(path) as connection:
        (sentence,) = seeds_for(connection, "planted")
        assert list(seeds_for(connection, "nobody")) == []
    assert "IPSREC-S against SASREC on d (MRR@10, 3 seeds each so far): " in sentence
    assert f"about {c.seeds_needed.seeds} seeds each show the difference found" in sentence
    with reading(fill(tmp_path / "t.duckdb", seeds=(1, 2))) as connection:
        assert list(seeds_for(connection, "planted")) == []


def test_bootstrap_intervals_of_methods_are_refused(tmp_path):
    with pytest.raises(SuiteError, match="resamples users alone"):
        fill(tmp_path / "s.duckdb", statistics='interval = "bootstrap"')


def test_the_old_name_of_the_methods_test_is_read_from_stores_and_refused_in_suites(tmp_path):
    with pytest.raises(SuiteError, match="write test = 'method'"):
        fill(tmp_path / "s.duckdb", statistics='test = "crossed"')
    text = '{"title": "t", "datasets": {"beauty": {}}, "statistics": {"test": "crossed"}}'
    suite, dropped = stored_suite(text)
    assert (suite.statistics.test, dropped) == ("method", ())


def test_all_pairs_are_tested_at_once_and_lettered(tmp_path):
    path = fill(tmp_path / "s.duckdb", statistics='family = "all-pairs"\nresamples = 300\ntest = "paired-t"')
    report = built(path)
    table = next(one for one in report.all_pairs if one.metric == "mrr@10")
    assert [row.label for row in table.rows] == ["pop", "sasrec", "ipsrec-s"]  # whole models
    assert table.letters == ("c", "b", "a")
    c = of_row(report, "ipsrec-s", "mrr@10")
    assert c.adjusted_p == table.p[2][1] == table.p[1][2]
    assert c.family == 3
    text = write_report(report, tmp_path, ("md",)).main.read_text()
    assert "**All pairs of models**" in text
    assert f"| MRR@10 | SASREC | b | {table.p[1][0]:.4f} |  | {table.p[1][2]:.4f} |" in text
    method = built(fill(tmp_path / "t.duckdb", statistics='family = "all-pairs"\nresamples = 300'))
    one = of_row(method, "ipsrec-s", "mrr@10")
    pairs = [(0, 1), (2, 1), (0, 2)]

    def values(row):
        return np.stack([metric("mrr@10", planted_ranks(row, seed)) for seed in SEEDS], axis=1)

    adjusted = adjust([method_test(values(a), values(b)).test.p for a, b in pairs], "holm")
    assert one.adjusted_method_p == pytest.approx(adjusted[1])
    assert write_report(method, tmp_path, FORMATS)
    rule = "Holm over all pairs of whole models of one metric on one dataset (variants apart; p of the paired t-test"
    assert f"{rule} over users: maxT over the same pairs)" in comparisons(method).note
    assert f"{rule} over users: maxT over the same pairs)" in next(iter(results(method))).note
    assert (
        "Holm over the comparisons of one metric on one dataset (variants apart) of this table" in controls(method).note
    )
