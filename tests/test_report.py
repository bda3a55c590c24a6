"""Reports: what they say follows from the ranks, and nothing in a name acts."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ipsrec_bench.errors import StoreError
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import Ranks
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.render import write_report
from ipsrec_bench.stats.correction import holm
from ipsrec_bench.stats.paired import paired_t_test
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run, record_cell
from ipsrec_bench.store.queries import find_run
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.load import parse_suite

from .test_store import record

USERS = 400
SEEDS = (1, 2)
ROWS = [("pop", ""), ("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-s", "w/o CL")]
SUITE = """
title = "Planted"
seeds = [1, 2]
datasets = ["positive-control"]
models = ["pop", "sasrec", "ipsrec-s"]
[protocol]
metrics = ["hr", "mrr"]
[statistics]
baseline = "{baseline}"
family = "{family}"
"""
NASTY = "<script>alert(1)</script> | & % *x* 🎲"


def planted_ranks(row: int, seed: int) -> np.ndarray:
    """Ranks that get better from row to row."""
    return np.random.default_rng([seed, row]).geometric(0.02 * (1 + row) ** 1.5, USERS)


def fill(
    path: Path,
    *,
    baseline="best",
    family="metric",
    dataset="d",
    leave_out=(),
    errors=(),
    title=None,
    rows=ROWS,
    stand_in=False,
    scale=1.0,
) -> Path:
    text = SUITE.format(baseline=baseline, family=family)
    suite = parse_suite(Path("planted.toml"), text.replace("Planted", title or "Planted"))
    cells = [
        PlannedCell(f"{model}{variant}{seed}", dataset, model, model.upper(), model, variant, seed)
        for seed in SEEDS
        for model, variant in rows
    ]
    with writing(path) as connection:
        begin_run(connection, suite, [], cells)
        for cell in cells:
            place = (cell.label, cell.seed)
            ranks = planted_ranks(rows.index((cell.model, cell.variant)), cell.seed) - 1
            test = Ranks(np.arange(USERS), ranks.astype(np.int32), np.zeros(USERS, dtype=np.int32))
            if place in errors:
                record_cell(
                    connection, record(cell.key, error="Traceback\nMemoryError: too big", ranks=None, epochs=())
                )
            elif place not in leave_out:
                record_cell(connection, record(cell.key, ranks={"test": test}))
    with reading(path) as connection:
        # The fixture's dataset has no statistics of its own.
        assert connection.execute("SELECT count(*) FROM datasets").fetchone() == (0,)
    with writing(path) as connection:
        connection.execute(
            "INSERT INTO datasets VALUES"
            f" ('f', 'd', 5, 4, 3, 20, 19, 4.0, 0.1, 0, 0.5, NULL, 5, 4, 0.2, 0.3, {stand_in}, {scale}, 'none')"
        )
    return path


@pytest.fixture
def planted(tmp_path) -> Path:
    return fill(tmp_path / "s.duckdb")


def built(path: Path, suite: str | None = None):
    with reading(path) as connection:
        return build_report(connection, find_run(connection, suite))


CAUTION = (
    "Stand-in data at a scale of 1: d. Made up in the shape of the published datasets, of which these figures say"
    " nothing."
)


def test_a_stand_in_is_named_in_the_title_and_beside_every_table(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", stand_in=True))
    assert report.headline == "Planted [stand-in data]"
    written = write_report(report, tmp_path)
    html, markdown = written.html.read_text(), written.markdown.read_text()
    assert "<title>Planted [stand-in data]</title>" in html
    tables = html.count("<h2") - len(re.findall(r'<h2 id="(protocol|environment)">', html))
    assert html.count(f'<p class="caution">{CAUTION}</p>') == tables == 6
    assert markdown.count(f"*{CAUTION}*") == 6


def test_a_sample_of_users_is_named(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", scale=0.01))
    assert report.headline == "Planted"
    assert report.caution == "Samples of the users, chosen by a hash of their ids: d (1%)."
    assert built(fill(tmp_path / "whole.duckdb")).caution == ""


def test_datasets_that_were_left_out_are_named(tmp_path):
    report = built(fill(tmp_path / "s.duckdb"))
    assert report.left_out == ("positive-control",)  # the fixture's cells are of another dataset
    written = write_report(report, tmp_path)
    assert "Left out, because the raw files are not there:</strong> positive-control." in written.html.read_text()
    assert "**Left out**, because the raw files are not there: positive-control." in written.markdown.read_text()


def mean_over_seeds(row: int, name: str) -> np.ndarray:
    return np.mean([metric(name, planted_ranks(row, seed)) for seed in SEEDS], axis=0)


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
        assert [cell.comparison is not None for cell in line.cells] == [False, False, True]


def test_comparisons_are_paired_over_users_and_corrected_by_family(planted):
    report = built(planted)
    for name in ("hr@5", "mrr@10"):
        found = [c for c in report.comparisons if c.metric == name]
        assert [(c.row.label, c.reference.label) for c in found] == [
            (label, "sasrec") for label in ("pop", "ipsrec-s", "ipsrec-s w/o CL")
        ]
        expected = [paired_t_test(mean_over_seeds(row, name), mean_over_seeds(1, name)) for row in (0, 2, 3)]
        assert [c.test for c in found] == expected
        assert [c.adjusted_p for c in found] == holm([test.p for test in expected])
        assert [c.verdict for c in found] == ["worse", "better", "better"]
        assert found[1].gain == pytest.approx(mean_over_seeds(2, name).mean() / mean_over_seeds(1, name).mean() - 1)


def test_a_wider_family_corrects_more_and_a_baseline_can_be_declared(tmp_path):
    one = built(fill(tmp_path / "a.duckdb", baseline="pop", family="metric"))
    all_metrics = built(fill(tmp_path / "b.duckdb", baseline="pop", family="dataset"))
    assert {c.reference.label for c in one.comparisons} == {"pop"}
    assert all_metrics.results.lines[0].cells[1].comparison is None  # sasrec is no proposal
    assert [c.adjusted_p for c in all_metrics.comparisons] == holm([c.test.p for c in one.comparisons])


def test_the_ablation_compares_variants_with_their_model(planted):
    table = built(planted).ablation
    assert [line.row.label for line in table.lines] == ["sasrec", "ipsrec-s", "ipsrec-s w/o CL"]
    assert table.columns == (("d", "hr@5"), ("d", "mrr@5"))
    variant = table.lines[2].cells[0].comparison
    assert variant.reference.label == "ipsrec-s"
    assert variant.test == paired_t_test(mean_over_seeds(3, "hr@5"), mean_over_seeds(2, "hr@5"))


def test_an_unfinished_run_shows_what_is_there_and_names_what_is_not(tmp_path):
    path = fill(tmp_path / "s.duckdb", leave_out={("sasrec", 2), ("pop", 1), ("pop", 2)}, errors={("ipsrec-s", 2)})
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
    assert {c.seeds for c in report.comparisons} == {1}
    text = write_report(report, tmp_path).markdown.read_text()
    assert "failed: MemoryError: too big" in text
    assert "seed 2: not run yet" in text
    assert "(1/2 seeds)" in text


def test_a_run_without_any_result_still_has_a_report(tmp_path):
    nothing = {(f"{model} {variant}".strip(), seed) for model, variant in ROWS for seed in SEEDS}
    report = built(fill(tmp_path / "s.duckdb", leave_out=nothing))
    assert report.comparisons == ()
    text = write_report(report, tmp_path).html.read_text()
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


def test_gain_and_shown_means_agree_on_complete_runs(planted):
    for line in built(planted).results.lines:
        shown = line.cells[2].score.mean / line.cells[1].score.mean - 1
        assert line.cells[2].comparison.gain == pytest.approx(shown)


def test_one_user_is_too_few_to_compare(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_report.USERS", 1)
    report = built(fill(tmp_path / "s.duckdb"))
    assert report.results.lines[0].cells[0].score is not None
    assert report.comparisons == ()


def test_no_run_no_report(planted):
    with pytest.raises(StoreError, match="no run of a suite 'quick'"):
        built(planted, "quick")


class Links(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "data", "srcset") or name.startswith("on"):
                self.fetched.append((tag, name, value))
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.fetched.append((tag, "", ""))


def test_the_html_fetches_and_runs_nothing(planted, tmp_path):
    written = write_report(built(planted), tmp_path)
    text = written.html.read_text()
    links = Links()
    links.feed(text)
    assert links.fetched == []
    assert not re.search(r"url\(|@import", text)
    assert text.count("<svg") == len(written.charts) == 1
    assert all(path.parent == written.html.parent for path in (written.markdown, *written.charts))


def test_names_are_inert_in_every_format(tmp_path):
    path = fill(tmp_path / "s.duckdb", dataset=NASTY, title=NASTY)
    written = write_report(built(path), tmp_path)
    html, markdown = written.html.read_text(), written.markdown.read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | &amp; % *x* 🎲" in html
    assert "<script>" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
    assert rows
    assert all(re.search(r"\\\| &amp; % \\\*x\\\* 🎲 \|", line) for line in rows)
    assert "<script>" not in written.charts[0].read_text()


def test_markdown_tables_are_whole(planted, tmp_path):
    text = write_report(built(planted), tmp_path).markdown.read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert "**" in text
    assert "<u>" in text
    assert re.search(r"\+\d+\.\d%\\\*", text)


def test_many_models_go_down_the_page_with_the_same_numbers(tmp_path, monkeypatch):
    rows = [*[(f"model-{i}", "") for i in range(9)], ("ipsrec-s", "")]
    report = built(fill(tmp_path / "s.duckdb", rows=rows))
    assert report.results.models_down
    written = write_report(report, tmp_path / "down")
    lines = written.markdown.read_text(encoding="utf-8").splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| Model | d HR@5 | Improv. | d HR@10 |"))
    table = [line.strip("|").split(" |") for line in lines[header + 2 : header + 2 + len(rows)]]
    assert [row[0].strip() for row in table] == [row.display for row in report.results.columns]
    assert {len(row) for row in table} == {1 + 2 * len(report.results.lines)}
    monkeypatch.setattr("ipsrec_bench.report.content.MAX_COLUMNS", 99)
    across = write_report(report, tmp_path / "across").markdown.read_text(encoding="utf-8").splitlines()
    header = next(i for i, line in enumerate(across) if line.startswith("| Dataset | Metric |"))
    for j, line in enumerate(across[header + 2 : header + 2 + len(report.results.lines)]):
        cells = [cell.strip() for cell in line.strip("|").split(" |")][2:]
        assert [row[1 + 2 * j].strip() for row in table] == cells[: len(rows)]
        assert table[-1][2 + 2 * j].strip() == cells[-1] != ""
    html = written.html.read_text(encoding="utf-8")
    assert html.count('<th class="text" scope="row">MODEL-') >= 9
