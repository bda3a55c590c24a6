"""Numbers that need care: deterministic rows, differences without spread, training cut off, unequal tuning."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.charts import charts_of
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.provenance import cut_off_rows
from ipsrec_bench.report.render import FORMATS, write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.sentences import cut_off, finding, where
from ipsrec_bench.report.slices import slices_of
from ipsrec_bench.report.tables.comparisons import comparisons
from ipsrec_bench.store import queries
from ipsrec_bench.store.connect import reading, writing

from .planted import built, fill, mean_over_seeds

CASES = Path(__file__).parent / "cases"
STORE = "reports/ipsrec-bench.duckdb"
COUNTED = '{"config": {}, "protocol": {"max_length": 5}}'
TRAINED = '{"config": {}, "training": {"epochs": %d}, "protocol": {"max_length": 5}}'


def set_higher(path: Path, higher: str, where: str = "true") -> None:
    """Change the ranks of a planted store."""
    with writing(path) as connection:
        connection.execute(f"UPDATE ranks SET higher = {higher} WHERE cell IN (SELECT cell FROM cells WHERE {where})")


def pages(report: Report, folder: Path) -> str:
    """Return all that a reader sees, without scripts."""
    written = write_report(report, folder, FORMATS)
    texts = [path.read_text(encoding="utf-8") for path in (*written.pages.values(), *written.tables)]
    return re.sub(r"<script.*?</script>", "", "\n".join(texts), flags=re.DOTALL)


# Rows that no seed changes


def counted(tmp_path, **options) -> Path:
    """Pop and the proposal count, SASRec is trained; a counting row has the ranks of its first seed for all."""
    path = fill(
        tmp_path / "s.duckdb",
        settings=lambda model, _: TRAINED % 50 if model == "sasrec" else COUNTED,
        rows=[("pop", ""), ("sasrec", ""), ("ipsrec-s", "")],
        **options,
    )
    with writing(path) as connection:
        connection.execute(
            "UPDATE ranks SET higher = first.higher FROM ranks first, cells a, cells b WHERE ranks.cell = a.cell"
            " AND first.cell = b.cell AND a.type = b.type AND a.type <> 'sasrec' AND b.seed = 1"
            ' AND first."user" = ranks."user" AND first.split = ranks.split'
        )
        connection.execute("UPDATE cells SET deterministic = NULL")  # as older versions left it
    return path


def test_deterministic_rows_have_no_deviation_and_no_advice_about_seeds(tmp_path):
    report = built(counted(tmp_path, statistics='baseline = "pop"'))
    pop, sasrec, ours = report.results.lines[0].cells
    assert (pop.score.deviation, ours.score.deviation) == (None, None)
    assert sasrec.score.deviation > 0
    by_row = {c.row.label: c for c in report.comparisons if c.metric == "mrr@10"}
    alone = finding(by_row["ipsrec-s"], 0.95)
    assert "Both models are deterministic, so this is also the comparison of the methods." in alone
    assert "seeds" not in alone
    assert by_row["ipsrec-s"].seeds_needed is None
    (column,) = (place for place, one in enumerate(comparisons(report).columns) if one.heading == "Seeds needed")
    cells = {line.cells[2].text: line.cells[column] for line in comparisons(report).rows}
    assert (cells["IPSREC-S"].text, cells["IPSREC-S"].value) == ("–", "")
    assert by_row["ipsrec-s"].of_method == "better"
    assert by_row["ipsrec-s"].method.test.p == pytest.approx(by_row["ipsrec-s"].by_users.p)
    beside = by_row["sasrec"]
    assert (beside.seeds, beside.reference_seeds, beside.method.a_random, beside.method.b_random) == (3, 1, True, False)
    assert beside.reference_mean == pytest.approx(report.results.lines[3].cells[0].score.mean)
    assert beside.mean == pytest.approx(mean_over_seeds(1, "mrr@10").mean())
    assert len([s for s in report.seed_scores if s.row.label == "pop"]) == 1
    assert "0.0000" not in re.sub(r"p < 0\.0001", "", write_report(report, tmp_path, ("md",)).main.read_text())


def test_the_test_of_methods_needs_no_seeds_for_deterministic_rows(tmp_path):
    report = built(counted(tmp_path, statistics='baseline = "pop"\ntest = "method"\nmargin = 0.1', seeds=(1, 2)))
    by_row = {c.row.label: c for c in report.findings}
    assert by_row["ipsrec-s"].p == by_row["ipsrec-s"].by_users.p
    trained = next(c for c in report.comparisons if c.row.label == "sasrec")
    assert (trained.p, trained.adjusted_p) == (None, None)
    assert "With 2 trainings, no claim about the methods is possible" in finding(trained, 0.95)


def test_models_that_count_are_fitted_once_for_all_seeds(tmp_path, bench):
    suite = (CASES / "small.toml").read_text()
    (tmp_path / "small.toml").write_text(suite.replace("[1, 2]", "[1, 2, 3]"), encoding="utf-8")
    done = bench("run", "small.toml", IPSREC_BENCH_CASES=str(CASES))
    assert (done.returncode, "small: 2 cells" in done.stdout.lower()) == (0, True)
    again = bench("run", "small.toml", "--set", "seeds=[7, 8]", IPSREC_BENCH_CASES=str(CASES))
    assert "2 cells, 2 already done" in again.stdout
    shown = json.loads(bench("run", "small.toml", "--dry-run", "--json", IPSREC_BENCH_CASES=str(CASES)).stdout)
    assert [(cell["label"], cell["seed"], cell["state"]) for cell in shown] == [
        ("pop", None, "done"),
        ("repeat", None, "done"),
    ]
    text = (tmp_path / "reports/small/small.md").read_text(encoding="utf-8")
    assert "2 of 2 cells complete" in text
    assert "± 0.0000" not in text
    assert "trainings of each" not in text
    with reading(tmp_path / STORE) as connection:
        report = build_report(read_material(connection, read_run(connection)))
    assert [(line.row.label, line.seed) for line in report.provenance] == [("pop", None), ("repeat", None)]
    assert [line.best_epochs for line in report.costs] == [(), ()]
    compared = bench("compare", "pop", "repeat").stdout
    assert "both deterministic" in compared


RANDOM = """
from typing import ClassVar
import torch
from ipsrec_bench.models.api import CountingModel, PickedScores
from ipsrec_bench.models.configs import ModelConfig

class Dice(CountingModel):
    config_type = ModelConfig
    {declared}
    def __init__(self, config, sizes):
        super().__init__(sizes)
    def fit(self, log):
        self.background = torch.rand(self.background.shape, dtype=torch.float64)
    def pick(self, histories):
        none = torch.zeros(0, dtype=torch.int64)
        return PickedScores(none, none, none.double())
"""


@pytest.mark.parametrize("declared", [False, True])
def test_a_counting_model_that_draws_is_fitted_for_each_seed_or_refused(tmp_path, bench, declared):
    name = f"dice_{declared}".lower()
    line = "deterministic: ClassVar[bool] = False" if declared else ""
    (tmp_path / f"{name}.py").write_text(RANDOM.format(declared=line), encoding="utf-8")
    suite = (CASES / "small.toml").read_text().replace("[models.repeat]", f'[models.dice]\ntype = "{name}:Dice"')
    (tmp_path / "dice.toml").write_text(suite, encoding="utf-8")
    done = bench("run", "dice.toml", IPSREC_BENCH_CASES=str(CASES))
    if declared:
        assert done.returncode == 0, done.stderr
        assert "3 cells" in done.stdout
        assert re.search(
            r"dice[^|]*\|\n.*\n\| shop \| HR@5 \| [^±]* \| [^|]*± 0\.0", (tmp_path / "reports/dice/dice.md").read_text()
        )
    else:
        assert done.returncode == 1
        assert "Dice draws random numbers, so one fit cannot be shared by all seeds" in done.stdout


# Slices


def test_slices_that_hold_the_same_users_are_one_slice(tmp_path):
    n = 90
    known = np.arange(n) % 3 > 0
    facts = TargetFacts(
        users=np.arange(n, dtype=np.int32),
        history=np.full(n, 7, dtype=np.int32),
        item_count=np.full(n, 3, dtype=np.int32),
        provider_count=np.where(known, 5, -1).astype(np.int32),
        item_seen=np.zeros(n, dtype=bool),
        provider_seen=known,
    )
    slices = {(dimension, name): int(members.sum()) for dimension, name, members in slices_of(facts)}
    assert slices == {
        ("history length", "7; item in training: 3 times"): 90,
        ("provider in training", "unknown; target's provider: unknown; target: new item of an unknown provider"): 30,
        (
            "provider in training",
            "5 times; target's provider: in the history; target: new item of a provider in the history",
        ): 60,
    }
    path = fill(tmp_path / "s.duckdb", users=n, facts=False)
    with writing(path) as connection:
        from ipsrec_bench.store.ingest import record_targets
        from ipsrec_bench.suite.schema import Protocol

        record_targets(connection, "f", Protocol(), facts)
    (table,) = built(path).slices
    assert len(table.slices) == 2
    assert table.everybody == ("history length: 7; item in training: 3 times",)
    assert "All test users are in: history length: 7; item in training: 3 times." in where(table)


# Training that was cut off


def test_a_training_cut_off_is_reported_first_and_beside_its_number(tmp_path):
    path = fill(tmp_path / "s.duckdb", settings=lambda _model, variant: TRAINED % (5 if variant else 1))
    with writing(path) as connection:  # one of SASRec's trainings was stopped by patience
        connection.execute("UPDATE cells SET settings = ? WHERE type = 'sasrec' AND seed = 3", [TRAINED % 5])
    report = built(path)
    assert [(line.row.label, line.cells, line.of, line.epochs) for line in report.cut_off] == [
        ("pop", 3, 3, 1),
        ("sasrec", 2, 3, 1),
        ("ipsrec-s", 3, 3, 1),
    ]
    (found,) = report.findings
    assert "Training of IPSREC-S and SASREC was cut off by the epoch limit" in finding(found, 0.95)
    variant = next(c for c in report.comparisons if c.row.variant)
    assert [row.label for row in variant.cut_off] == ["sasrec"]
    written = write_report(report, tmp_path, FORMATS)
    for name in ("html", "md", "latex"):
        text = written.pages[name].read_text(encoding="utf-8")
        assert "Training of IPSREC-S on d and SASREC on d was cut off" in text
        at = text.index("SASREC on d: 2 of 3 trainings had their best epoch at the limit (1)")
        assert text.index("Training was cut off") < at < text.index("IPSREC-S is better")
    content = json.loads(written.pages["json"].read_text(encoding="utf-8"))
    assert content["cut_off"][1]["cells"] == 2
    assert content["findings"][0]["cut_off"]


def test_trainings_under_further_conditions_are_named_and_shared_ones_once(tmp_path):
    path = fill(
        tmp_path / "s.duckdb",
        datasets=("d", "later", "masked"),
        settings=lambda model, _: TRAINED % (1 if model == "sasrec" else 5),
    )
    masked = (TRAINED % 1).replace('"max_length"', '"mask_history": "miss", "max_length"')
    with writing(path) as connection:
        connection.execute(
            "UPDATE run_cells SET base = 'd', protocol = dataset, dataset = 'd, ' || dataset WHERE dataset <> 'd'"
        )
        connection.execute(
            "UPDATE cells SET settings = ?, fingerprint = 'f' WHERE starts_with(key, 'masked')", [masked]
        )
    with reading(path) as connection:
        run = read_run(connection)
        summaries = queries.cell_summaries(connection, [cell.key for cell in (*run.cells, *run.further)])
    lines = [line for line in cut_off_rows(run, summaries) if line.row.label == "sasrec"]
    assert [(line.dataset, line.cells, line.of) for line in lines] == [("d", 3, 3), ("d, later", 3, 3)]
    (said,) = cut_off(lines)
    assert said == (
        "SASREC: 6 of 6 trainings had their best epoch at the limit (1) and might have improved further; raise"
        " training.epochs. They are on d (3 of 3); d, later (3 of 3)"
    )
    (one,) = cut_off([replace(lines[0], cells=1, of=1)])
    assert one.startswith("SASREC on d: 1 of 1 training had its best epoch at the limit (1)")


def test_training_that_patience_ended_is_not_cut_off(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", settings=lambda *_: TRAINED % 2))
    assert report.cut_off == ()
    assert "cut off" not in pages(report, tmp_path)


# Numbers that cannot be


@pytest.mark.parametrize("statistics", ["", 'test = "method"', 'test = "wilcoxon"', 'test = "randomisation"',
                                        'test = "paired-t"\ninterval = "bootstrap"\nresamples = 200',
                                        "margin = 0.1"])  # fmt: skip
@pytest.mark.parametrize("users", [2, 40])
@pytest.mark.parametrize("better", [0, 2000])
def test_where_nothing_varies_there_is_no_interval(tmp_path, statistics, users, better):
    """Every user has the same ranks, or every user gains the same."""
    path = fill(tmp_path / "s.duckdb", statistics=statistics, users=users, items=5000)
    set_higher(path, "0")
    set_higher(path, str(better), "type = 'pop'")
    set_higher(path, str(better), "type = 'sasrec'")
    report = built(path)
    c = report.findings[0]
    assert (c.difference, c.detectable) == (1.0 if better else 0.0, None)
    said = finding(c, 0.95)
    assert "the same for every user" in said
    assert "would have found" not in said
    if users == 2 or statistics not in {"", 'test = "method"'}:
        return  # pages take long
    text = pages(report, tmp_path)
    for word in (r"-1\.0000 to -1\.0000", r"\+1\.0000 to \+1\.0000", r"0\.0000 to \+0\.0000", r"\bnan\b", r"\binf\b"):
        assert not re.search(word, text), word


@pytest.mark.parametrize("users", [2, 3])
def test_intervals_stay_within_the_possible_differences(tmp_path, users):
    """An interval of two users reaches from -5.7 to 6.7 of an HR."""
    path = fill(tmp_path / "s.duckdb", statistics='baseline = "pop"', users=users, seeds=(1, 2), items=5000)
    set_higher(path, '2000 * ("user" % 2)', "type = 'pop'")
    set_higher(path, "0", "type <> 'pop'")
    report = built(path)
    c = next(c for c in report.findings if c.metric == report.metric)
    assert (c.low, c.high, c.by_users.low, c.by_users.high) == (-1, 1, -1, 1)
    assert c.detectable is None
    assert f"over {users} users a t-test finds no difference with a power of 80%, however large" in finding(c, 0.95)
    assert not re.search(
        r"[+-][1-9]\d*\.\d{4}(?!\d)", pages(report, tmp_path).replace("+1.0000", "").replace("-1.0000", "")
    )


def test_a_gain_is_not_below_nothing(tmp_path):
    path = fill(tmp_path / "s.duckdb", users=40, seeds=(1,), statistics='baseline = "sasrec"')
    set_higher(path, "500", "type = 'pop'")
    set_higher(path, 'CASE WHEN "user" < 1 THEN 0 ELSE 500 END', "type = 'pop'")
    c = next(c for c in built(path).comparisons if c.row.label == "pop")
    assert c.gain.low >= -1


@pytest.mark.parametrize("name", ["oneuser", "small", "nonascii"])
def test_the_reported_suites_give_reports_without_impossible_numbers(tmp_path, bench, name):
    done = bench("run", CASES / f"{name}.toml", "--quiet", IPSREC_BENCH_CASES=str(CASES))
    assert (done.returncode, done.stderr) == (0, "")
    assert bench("report", name, "--format", "html,md,latex,json").returncode == 0
    folder = tmp_path / "reports" / name
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert not re.search(r"\binf\b|\bnan\b|± 0\.0000|0\.0000 to", text)
    if name == "oneuser":
        said = "shop has one test user; a comparison needs two, so nothing is compared there"
        assert all(
            said in (folder / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("md", "html", "tex", "json")
        )
    if name == "nonascii":
        assert "Training was cut off" in text


def test_a_cutoff_that_includes_all_items_is_named(tmp_path):
    declared = 'baseline = "sasrec"'
    report = built(fill(tmp_path / "s.duckdb", items=10, seeds=(1,), statistics=declared))
    assert report.notes == ("d has 10 items, so a cutoff of 10 includes all of them: HR@10 is 1 for every model",)
    assert built(fill(tmp_path / "t.duckdb", items=11, seeds=(1,), statistics=declared)).notes == ()


@pytest.mark.parametrize(
    ("items", "said"), [(10, "HR@10 is 1 for every model, except for misses"), (9, "misses included")]
)
def test_if_targets_can_be_misses_the_note_on_a_cutoff_of_all_items_mentions_them(tmp_path, items, said):
    with reading(fill(tmp_path / "s.duckdb", items=items, seeds=(1,), statistics='baseline = "sasrec"')) as connection:
        run = read_run(connection)
        protocol = run.suite.protocol.model_copy(update={"mask_history": "miss"})
        suite = run.suite.model_copy(update={"protocol": protocol})
        (note,) = build_report(read_material(connection, replace(run, suite=suite))).notes
    assert note.endswith(said)


# Tuned rows


TUNED_ROWS = [
    ("pop", ""),
    ("sasrec", ""),
    ("sasrec", "tuned"),
    ("ipsrec-s", ""),
    ("ipsrec-s", "tuned"),
    ("ipsrec-s", "w/o CL"),
]


def test_tuned_rows_are_compared_with_tuned_baselines_first(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", rows=TUNED_ROWS))
    (found,) = report.findings
    assert (found.row.label, found.reference.label) == ("ipsrec-s tuned", "sasrec tuned")
    assert not found.unequal
    assert [row.label for row in report.results.columns] == [
        "pop", "sasrec", "sasrec tuned", "ipsrec-s", "ipsrec-s tuned",
    ]  # fmt: skip
    first = report.comparisons[0]
    assert (first.metric, first.row.label, first.reference.label) == ("mrr@10", "ipsrec-s tuned", "sasrec tuned")
    untuned = {c.row.label: c.reference.label for c in report.comparisons if not c.row.tuned}
    assert untuned == {"pop": "sasrec", "ipsrec-s": "sasrec", "ipsrec-s w/o CL": "sasrec"}
    assert [(table.row.label, table.reference.label) for table in report.slices] == [("ipsrec-s tuned", "sasrec tuned")]
    assert {curve.row.label for curve in report.hits} == {row.label for row in report.results.columns}
    assert "tuned rows: the best tuned one" in report.baseline_rule
    assert [line.row.label for line in report.ablation.lines if line.is_variant] == [
        "sasrec tuned", "ipsrec-s tuned", "ipsrec-s w/o CL",
    ]  # fmt: skip
    text = pages(report, tmp_path)
    assert "†" not in text
    titles = [path.name for path in (tmp_path / "planted").iterdir() if "forest" in path.name and path.suffix == ".svg"]
    assert len(titles) == 2  # one for each baseline


def test_a_declared_baseline_is_taken_as_it_is_tuned(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", rows=TUNED_ROWS, statistics='baseline = "sasrec"'))
    references = {c.row.label: c.reference.label for c in report.comparisons}
    assert references["ipsrec-s tuned"] == "sasrec tuned"
    assert references["sasrec tuned"] == references["ipsrec-s"] == "sasrec"
    titles = [chart.title for chart in charts_of(report) if chart.section == "comparisons"]
    assert len(titles) == len({*titles}) == 2  # one for each baseline


def test_a_comparison_of_a_tuned_and_an_untuned_model_is_marked_beside_the_number(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", rows=[row for row in TUNED_ROWS if row != ("sasrec", "tuned")]))
    (found,) = report.findings
    assert (found.row.label, found.reference.label) == ("ipsrec-s tuned", "sasrec")
    assert "IPSREC-S tuned is tuned and SASREC is not, which favours the former." in finding(found, 0.95)
    written = write_report(report, tmp_path, FORMATS)
    assert re.search(r"%\\?\*?†", written.pages["md"].read_text(encoding="utf-8"))
    assert "†: only one of the model and its baseline is tuned." in written.pages["html"].read_text(encoding="utf-8")
    assert "\\dagger" in next(path for path in written.tables if "results" in path.name).read_text(encoding="utf-8")


def test_the_comparisons_begin_with_the_reports_metric(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", statistics='metric = "hr@10"'))
    assert list(dict.fromkeys(c.metric for c in report.comparisons)) == ["hr@10", "hr@5", "mrr@5", "mrr@10"]
