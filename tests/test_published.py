"""Papers' numbers: their tables as printed, their arithmetic, and a comparison with ours."""

import json
import re

import pytest
from pydantic import ValidationError

from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.published.papers import Paper, PublishedTable, check_gains, papers
from ipsrec_bench.report.against import paper_tables
from ipsrec_bench.report.render import FORMATS, write_report
from ipsrec_bench.stats.effect import next_training
from ipsrec_bench.suite.schema import Training

from .planted import SEEDS, built, fill, planted_ranks
from .test_report import matrix

TABLE_2 = """
Tmall HR@5 0.0638 0.0422 0.0706 0.0620 0.0743 5.2% 0.0760 7.6%
Tmall HR@10 0.0767 0.0544 0.0880 0.0760 0.0964 9.5% 0.0956 8.6%
Tmall MRR@5 0.0484 0.0305 0.0489 0.0450 0.0518 5.9% 0.0530 8.4%
Tmall MRR@10 0.0501 0.0321 0.0512 0.0468 0.0552 7.8% 0.0556 8.6%
Tmall NDCG@5 0.0523 0.0334 0.0543 0.0492 0.0568 4.6% 0.0587 8.1%
Tmall NDCG@10 0.0564 0.0373 0.0599 0.0537 0.0652 8.8% 0.0650 8.5%
Twitch HR@5 0.0907 0.0711 0.0972 0.0823 0.1014 4.3% 0.1028 5.8%
Twitch HR@10 0.1348 0.1074 0.1487 0.1220 0.1549 4.2% 0.1560 4.9%
Twitch MRR@5 0.0485 0.0374 0.0482 0.0440 0.0493 2.3% 0.0505 4.8%
Twitch MRR@10 0.0544 0.0422 0.0550 0.0493 0.0564 2.5% 0.0575 4.5%
Twitch NDCG@5 0.0589 0.0457 0.0603 0.0535 0.0622 3.2% 0.0634 5.1%
Twitch NDCG@10 0.0732 0.0574 0.0769 0.0663 0.0795 3.4% 0.0805 4.7%
WeChat HR@5 0.0452 0.0402 0.0469 0.0426 0.0514 9.6% 0.0510 8.7%
WeChat HR@10 0.0733 0.0635 0.0740 0.0696 0.0824 11.4% 0.0801 8.2%
WeChat MRR@5 0.0225 0.0214 0.0235 0.0221 0.0255 8.5% 0.0263 11.9%
WeChat MRR@10 0.0254 0.0244 0.0271 0.0256 0.0296 9.2% 0.0301 11.1%
WeChat NDCG@5 0.0281 0.0260 0.0293 0.0271 0.0319 8.9% 0.0324 10.6%
WeChat NDCG@10 0.0365 0.0335 0.0380 0.0358 0.0418 10.0% 0.0417 9.7%
"""
TABLE_3 = """
SASRec 0.0706 0.0489 0.0543 0.0972 0.0482 0.0603 0.0469 0.0235 0.0293
IPSRec-S 0.0743 0.0518 0.0568 0.1014 0.0493 0.0622 0.0514 0.0255 0.0319
w/o CL 0.0712 0.0498 0.0546 0.0977 0.0481 0.0603 0.0467 0.0230 0.0296
IPSRec-C 0.0760 0.0530 0.0587 0.1028 0.0505 0.0634 0.0510 0.0263 0.0324
w/o CL 0.0717 0.0495 0.0551 0.0980 0.0487 0.0611 0.0473 0.0247 0.0302
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def settings(model, variant):
    config = {"embedding_size": 64, "n_layers": 2, "n_heads": 4}
    if model == "ipsrec-s":
        config |= {"lambda": 0.0 if variant else 0.1, "tau": 1.0}
    protocol = {"split": "leave-one-out", "mask_history": False, "max_length": 5}
    return json.dumps({"config": config, "training": {"samples": "packed"}, "protocol": protocol})


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A report on a dataset called tmall, with both seeds of SASRec and IPSRec-S and its ablation."""
    folder = tmp_path_factory.mktemp("beside")
    report = built(fill(folder / "s.duckdb", datasets=("tmall",), settings=settings))
    return report, write_report(report, folder, FORMATS)


def test_tables_2_and_3_are_rendered_as_printed(beside):
    _, written = beside
    markdown = written.pages["md"].read_text(encoding="utf-8")
    rows = [
        re.sub(r"[*<>u/+\\|]|(?<=\|) ", " ", line).split()
        for line in markdown.splitlines()
        if re.match(r"\| (Tmall|Twitch|WeChat) \| (HR|MRR|NDCG)@", line)
    ]
    assert [" ".join(row) for row in rows] == lines(TABLE_2)
    ablation = markdown[markdown.index("| Method | Tmall HR@5 | Tmall MRR@5") :].splitlines()[2:7]
    assert [" ".join(line.replace("— ", "").replace("|", " ").split()) for line in ablation] == lines(TABLE_3)


def test_the_latex_of_the_papers_tables_has_the_same_numbers(beside):
    _, written = beside
    text = next(path for path in written.tables if path.name == "table-papers.tex").read_text(encoding="utf-8")
    rows = [line.rstrip("\\ ") for line in text.splitlines() if re.search(r"& (HR|MRR|NDCG)@\d+ & ", line)]
    numbers = [re.findall(r"\d+\.\d+", line) for line in rows]
    assert numbers == [re.findall(r"\d+\.\d+", line) for line in lines(TABLE_2)]
    ablated = [re.findall(r"0\.\d{4}", line) for line in text.splitlines()]
    assert [n for n in ablated if len(n) == 9] == [re.findall(r"0\.\d{4}", line) for line in lines(TABLE_3)]


def test_best_and_second_of_the_papers_lines():
    table = paper_tables(papers()["ipsrec-sigir22"]).results
    line = table.lines[1]  # Tmall HR@10: IPSRec-S, then IPSRec-C
    assert [cell.best for cell in line.cells] == [False] * 4 + [True, False]
    assert [cell.second for cell in line.cells] == [False] * 5 + [True]


def test_the_papers_percentages_follow_from_its_values_but_for_two():
    checks = list(check_gains(papers()["ipsrec-sigir22"]))
    assert len(checks) == 36
    wrong = [c for c in checks if not c.agrees]
    assert [(c.dataset, c.metric, c.row, c.against, c.explained_by) for c in wrong] == [
        ("twitch", "mrr@5", "ipsrec-s", "gru4rec", "sasrec"),
        ("twitch", "mrr@5", "ipsrec-c", "gru4rec", "sasrec"),
    ]
    assert [round(100 * c.recomputed, 1) for c in wrong] == [1.6, 4.1]


def test_the_report_flags_exactly_these_two(beside):
    report, written = beside
    end = "; the printed one is relative to SASRec"
    line = "but relative to the best baseline of the line, GRU4Rec, it is"
    assert report.published[0].paper.flagged == (
        f"Twitch MRR@5, IPSRec-S: printed 2.3%, {line} 1.6%{end}",
        f"Twitch MRR@5, IPSRec-C: printed 4.8%, {line} 4.1%{end}",
    )
    html = written.pages["html"].read_text(encoding="utf-8")
    assert html.count("but relative to the best baseline of the line") == 2


def test_our_values_are_shown_beside_theirs_with_an_interval(beside):
    report, _ = beside
    (against,) = report.published
    assert [(line.metric, line.row.label, line.theirs) for line in against.lines if line.metric == "hr@5"] == [
        ("hr@5", "sasrec", 0.0706),
        ("hr@5", "ipsrec-s", 0.0743),
        ("hr@5", "ipsrec-s w/o CL", 0.0712),
    ]
    line = next(line for line in against.lines if (line.metric, line.row.label) == ("mrr@5", "ipsrec-s"))
    means = matrix(2, "mrr@5").mean(axis=0)
    assert (line.ours, line.low, line.high) == pytest.approx((means.mean(), *next_training(means)))
    assert line.difference == pytest.approx(means.mean() - 0.0518)
    assert not line.inside
    # Table 3 has no value of the ablation at 10, and none of pop.
    assert {line.row.label for line in against.lines if line.metric == "hr@10"} == {"sasrec", "ipsrec-s"}
    assert len(planted_ranks(2, SEEDS[0])) == 400


def test_published_improvements_are_compared_with_ours(beside):
    report, written = beside
    (against,) = report.published
    line = next(line for line in against.effects if line.metric == "mrr@5")
    assert (line.row.label, line.reference.label) == ("ipsrec-s", "sasrec")
    c = next(c for c in report.comparisons if (c.row.label, c.metric) == ("ipsrec-s", "mrr@5"))
    published = 0.0518 - 0.0489
    assert (line.published, line.ours.low, line.ours.high) == pytest.approx((published, c.low, c.high))
    assert line.ratio.value == pytest.approx(c.difference / published)
    assert line.ratio.low == pytest.approx(c.low / (published + 1e-4))
    assert line.ratio.high == pytest.approx(c.high / (published - 1e-4))
    assert line.gap.value == pytest.approx(0.0518 / 0.0489 - 1 - c.gain.value)
    assert line.gap.low < line.gap.value < line.gap.high
    beside_paper = next(line for line in against.lines if (line.metric, line.row.label) == ("mrr@5", "ipsrec-s"))
    assert beside_paper.width == pytest.approx((beside_paper.high - beside_paper.low) / beside_paper.gain)
    assert "Effect ratio" in written.pages["html"].read_text(encoding="utf-8")


def test_our_difference_has_the_declared_interval(tmp_path):
    statistics = 'test = "paired-t"\ninterval = "bootstrap"\nresamples = 200'
    report = built(fill(tmp_path / "s.duckdb", datasets=("tmall",), settings=settings, statistics=statistics))
    line = next(line for line in report.published[0].effects if line.metric == "mrr@5")
    c = next(c for c in report.comparisons if (c.row.label, c.metric) == ("ipsrec-s", "mrr@5"))
    assert (line.ours.low, line.ours.high) == pytest.approx((c.low, c.high), rel=0.05)  # of other draws
    below, above = line.ours.value - line.ours.low, line.ours.high - line.ours.value
    assert abs(below - above) > 1e-6  # that of the t-test is symmetric
    assert line.ratio.low == pytest.approx(line.ours.low / (line.published + 1e-4))


def test_a_search_that_ends_without_the_contrastive_loss_is_not_the_papers_variant(tmp_path):
    rows = [("pop", ""), ("ipsrec-s", ""), ("ipsrec-s", "tuned")]
    (against,) = built(fill(tmp_path / "s.duckdb", datasets=("tmall",), settings=settings, rows=rows)).published
    assert {line.row.label for line in against.lines} == {"ipsrec-s"}


def test_every_difference_of_protocol_is_listed(beside):
    report, _ = beside
    said = report.published[0].differences
    for expected in (
        "tmall: users: 400 here, 885,759 in the paper",
        "tmall: items: 900 here, 1,144,124 in the paper",
        "tmall: max_length: 5 here, 20 in the paper (SASREC, IPSREC-S, IPSREC-S w/o CL)",
        "tmall: n_heads: 4 here, 2 in the paper (SASREC, IPSREC-S, IPSREC-S w/o CL)",
        "tmall: samples: packed here, prefix in the paper (SASREC, IPSREC-S, IPSREC-S w/o CL)",
        "tmall: seeds: 3 here; one training per model, as far as the paper says",
    ):
        assert expected in said
    assert any(line.startswith("tmall: ties: here the middle") for line in said)
    assert any(line.startswith("tmall: data: fingerprint f here") for line in said)
    assert not any("split" in line or "embedding_size" in line for line in said)  # these are the same


def test_a_stand_in_is_never_compared_with_the_paper(tmp_path):
    report = built(fill(tmp_path / "s.duckdb", datasets=("tmall", "d"), stand_in=True))
    (against,) = report.published
    assert against.lines == against.differences == ()
    assert against.not_compared == ("tmall: the data here are a stand-in, so published numbers do not apply to them",)
    text = write_report(report, tmp_path).pages["html"].read_text(encoding="utf-8")
    assert "Not compared" in text
    assert "inside our interval" not in text


def test_other_datasets_are_not_compared(tmp_path):
    assert built(fill(tmp_path / "s.duckdb")).published == ()


def test_a_table_with_a_hole_is_refused():
    values = {"tmall": {"hr@5": {"values": [0.1]}}}
    with pytest.raises(ValidationError, match="tmall hr@5 has 1 values for 2 rows"):
        PublishedTable.model_validate({"rows": ["a", "b"], "values": values})
    assert isinstance(papers()["ipsrec-sigir22"], Paper)


def test_what_papers_say_of_settings_has_the_names_of_settings():
    for name, paper in papers().items():
        assert {*paper.protocol} == {"split", "filter", "mask_history", "candidates", "ties", "seeds"}, name
        for row, published in paper.rows.items():
            config = REGISTRY[paper.type_of(row)].config.model_fields
            known = {field.alias or key for key, field in config.items()}
            assert {*published.common, *published.settings} <= known, (name, row)
            assert {*paper.training, *published.training} <= {*Training.model_fields}, (name, row)
