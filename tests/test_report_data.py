"""A report describes its data as this run read them, under the suite's split, whatever else the store has."""

import hashlib
import json
import lzma
import re
from pathlib import Path

import duckdb
import pytest

from ipsrec_bench.data.split_statistics import SplitStatistics
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.content import Report
from ipsrec_bench.report.failures import log_of
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.render import write_report
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.tables.data import datasets
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import record_split
from ipsrec_bench.store.records import OUTPUT_FOLLOWS, reason_of
from ipsrec_bench.suite.schema import Protocol

from .planted import built, fill

CASES = Path(__file__).parent / "cases"
STORE = "reports/ipsrec-bench.duckdb"


def run(tmp_path, bench, name: str, dataset: str, rest: str = "", *options: str) -> Report:
    text = f'title = "T"\nseeds = [1, 2]\n[datasets.shop]\n{dataset}\n{rest}\n[models.pop]\n[models.repeat]\n'
    (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    done = bench("run", f"{name}.toml", "--quiet", *options)
    assert (done.returncode, done.stderr) == (0, "")
    with reading(tmp_path / STORE) as connection:
        return build_report(read_material(connection, read_run(connection, name)))


SHOP = f'path = "{CASES}/shop.csv"'


def test_a_report_has_the_statistics_of_its_own_split(tmp_path, bench):
    one_out = run(tmp_path, bench, "one-out", SHOP)
    temporal = run(tmp_path, bench, "temporal", SHOP, '[protocol]\nsplit = "temporal"\ntest_share = 0.5')
    holdout = run(tmp_path, bench, "holdout", SHOP, '[protocol]\nsplit = "user-holdout"')
    assert [report.split for report in (one_out, temporal, holdout)] == [
        "leave-one-out",
        "temporal 0.1 0.5",
        "user-holdout 0.1 0.1",
    ]
    assert [report.datasets[0].split.test_users for report in (one_out, temporal, holdout)] == [40, 40, 4]
    assert one_out.datasets[0].split.repeated_targets != temporal.datasets[0].split.repeated_targets
    assert dict(holdout.protocol)["shop: users of the split"] == "4 for the test and 4 for validation"
    assert bench("report", "holdout", "--format", "html,md,latex,json").returncode == 0
    pages = tmp_path / "reports" / "holdout"
    split = json.loads((pages / "holdout.json").read_text())["datasets"][0]["split"]
    assert (split["test_users"], split["valid_users"]) == (4, 4)
    assert "under the split user-holdout 0.1 0.1" in (pages / "holdout.md").read_text()
    assert "under the split user-holdout 0.1 0.1" in (pages / "holdout.html").read_text()
    assert "under the split user-holdout 0.1 0.1" in (pages / "table-datasets.tex").read_text()


def test_the_protocol_names_the_sources_of_every_dataset(tmp_path, bench):
    (tmp_path / "items.csv").write_text("id,maker\n" + "".join(f"i{n},m{n % 3}\n" for n in range(30)), encoding="utf-8")
    dataset = (
        f"{SHOP}\nwhere = \"item <> 'i1'\"\nduplicates = {{ columns = ['user', 'item'] }}\n"
        f'items = {{ path = "{tmp_path}/items.csv", item = "id", provider = "maker" }}\nfilter = "2-core"'
    )
    report = run(tmp_path, bench, "made", dataset)
    said = dict(report.protocol)
    digest = hashlib.sha256((CASES / "shop.csv").read_bytes()).hexdigest()
    assert said["shop: file"] == f"{CASES}/shop.csv, sha256 {digest}"
    assert said["shop: columns"].startswith("user = user; item = item")
    assert said["shop: rows where"] == "item <> 'i1'"
    assert "columns = user, item" in said["shop: duplicates"]
    items = hashlib.sha256((tmp_path / "items.csv").read_bytes()).hexdigest()
    assert said["shop: item table"].startswith(f"{tmp_path}/items.csv, sha256 {items}; item = id; provider = maker")
    assert said["shop: filter"] == "users with 2 or more interactions and items with 2 or more interactions"
    assert bench("report", "made", "--format", "html,md,latex").returncode == 0
    pages = tmp_path / "reports" / "made"
    for page in ("made.html", "made.md", "table-protocol.tex"):
        assert digest in (pages / page).read_text(encoding="utf-8")


def test_a_report_says_that_data_have_no_providers(tmp_path, bench):
    """Not only the run's log: a model that uses providers sees the same unknown one everywhere."""
    lines = (CASES / "shop.csv").read_text(encoding="utf-8").replace("provider", "no one", 1)
    (tmp_path / "without.csv").write_text(lines, encoding="utf-8")
    without = f'path = "{tmp_path}/without.csv"'
    report = run(tmp_path, bench, "without", without, "[models.provider-pop]")
    said = dict(report.protocol)
    assert (said["shop: columns"], said["shop: providers"]) == (
        "user = user; item = item; time = time",
        "none is known",
    )
    note = "shop has no known provider, so ProviderPop sees one unknown provider for all of its interactions"
    assert note in report.notes
    of_table = "shop: no provider is known, so models that use providers see one unknown provider for all interactions."
    assert of_table in datasets(report).note
    page = (tmp_path / "reports/without/without.md").read_text(encoding="utf-8")
    assert note in page.partition("## Results")[0]
    without_user = run(tmp_path, bench, "unused", without)
    assert not any("provider" in said for said in without_user.notes)
    report = run(tmp_path, bench, "with", SHOP, "[models.provider-pop]")
    said = dict(report.protocol)
    assert "provider = provider" in said["shop: columns"]
    assert "shop: providers" not in said
    assert "no provider is known" not in datasets(report).note
    assert not any("provider" in note for note in report.notes)


def test_a_report_shows_the_filter_of_its_own_suite(tmp_path, bench):
    """Everybody has eight interactions, so that the same sequences come of both filters."""
    everybody = run(tmp_path, bench, "all", SHOP)
    filtered = run(tmp_path, bench, "filtered", SHOP + "\nfilter = { users = { min = 8 } }\nscale = 0.999999")
    again = run(tmp_path, bench, "all", SHOP)
    assert len({report.provenance[0].fingerprint for report in (everybody, filtered, again)}) == 1
    assert [dict(report.protocol)["Filter"] for report in (everybody, filtered, again)] == [
        "none on shop",
        "users with 8 or more interactions on shop",
        "none on shop",
    ]
    assert [bool(report.caution) for report in (everybody, filtered, again)] == [False, True, False]


def test_files_of_one_name_in_two_folders_stay_distinct(tmp_path, bench):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "x.csv").write_bytes((CASES / "shop.csv").read_bytes())
    (tmp_path / "b" / "x.csv").write_text("id,maker\ni1,m\n", encoding="utf-8")
    items = f'items = {{ path = "{tmp_path}/b/x.csv", item = "id", provider = "maker" }}'
    said = dict(run(tmp_path, bench, "x", f'path = "{tmp_path}/a/x.csv"\n{items}').protocol)
    for fact, folder in (("file", "a"), ("item table", "b")):
        digest = hashlib.sha256((tmp_path / folder / "x.csv").read_bytes()).hexdigest()
        assert digest in said[f"shop: {fact}"]


def test_another_file_with_the_same_sequences_makes_another_page(tmp_path, bench):
    header, *rows = (CASES / "shop.csv").read_text().splitlines()
    log = tmp_path / "log.csv"
    for lines in (rows, sorted(rows)):
        log.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        run(tmp_path, bench, "moved", f'path = "{log}"')
        assert hashlib.sha256(log.read_bytes()).hexdigest() in (tmp_path / "reports/moved/moved.md").read_text()


@pytest.mark.parametrize("statistics", ["", 'test = "method"'])
def test_a_store_that_recorded_no_split_says_so(tmp_path, statistics):
    path = fill(tmp_path / "s.duckdb", statistics=statistics)
    report = built(path)
    assert report.datasets[0].split is None
    assert dict(report.protocol)["Filter"] == "not recorded on d"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO splits (fingerprint, split, test_users, valid_users) VALUES ('f', 'leave-one-out', 9, 8)"
        )
    assert (built(path).datasets[0].split.test_users, built(path).datasets[0].split.tied_targets) == (9, None)


@pytest.mark.parametrize("name", ["1-43194ce", "2-8645958", "4-8c30f40"])
def test_statistics_of_targets_in_an_older_store_are_of_leave_one_out(tmp_path, name):
    path = tmp_path / "s.duckdb"
    path.write_bytes(lzma.decompress((Path(__file__).parent / "stores" / f"{name}.duckdb.xz").read_bytes()))
    with writing(path):
        pass  # brings it to this version's schema
    (line,) = built(path).datasets
    assert (line.split.test_users, line.split.valid_users, line.split.repeated_targets) == (54, 50, None)
    assert line.tested == "54"
    found = SplitStatistics(54, 50, 0.1, 0.2, 0.3, 0.4, 5)
    with writing(path) as connection:  # as the next run does
        record_split(connection, line.statistics.fingerprint, Protocol(), found)
    assert built(path).datasets[0].split == found


def test_users_that_the_mask_leaves_out_are_counted_in_the_dataset_table(tmp_path, bench):
    report = run(tmp_path, bench, "masked", SHOP, "[protocol]\nmask_history = true")
    assert (report.datasets[0].tested, report.datasets[0].validated) == ("30 (10 left out)", "35 (5 left out)")
    assert report.datasets[0].split.repeated_targets == 0.25
    page = (tmp_path / "reports/masked/masked.md").read_text(encoding="utf-8")
    assert "| 30 (10 left out) |" in page
    assert "under the split leave-one-out, also of the users left out;" in page


def test_shares_that_differ_little_are_two_splits():
    names = {Protocol(split="temporal", test_share=share).split_name for share in (0.1, 0.1 + 1e-9)}
    assert names == {"temporal 0.1 0.1", "temporal 0.1 0.100000001"}


def traceback_of(folder: str, calls: int) -> str:
    frames = "".join(f'  File "{folder}/call{n}.py", line {n}, in f{n}\n    f{n + 1}()\n' for n in range(calls))
    return f"Traceback (most recent call last):\n{frames}"


def failed_cell(path: Path, error: str) -> Report:
    fill(path, seeds=(1,), errors={("sasrec", 1)})
    with writing(path) as connection:
        connection.execute("UPDATE cells SET error = ?, seconds = 61.25 WHERE status = 'failed'", [error])
    return built(path)


CUDA = "RuntimeError: CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported.\n"


def test_a_failed_cell_is_shown_with_its_reason_and_the_last_lines_of_its_log(tmp_path):
    log = [f"line {n} of ``` & <b> \x1b[31m" for n in range(20)]
    error = traceback_of("/venv/lib/python3.11/site-packages/torch", 9) + CUDA + "\n".join([OUTPUT_FOLLOWS, *log])
    report = failed_cell(tmp_path / "s.duckdb", error)
    (cell,) = report.missing
    assert (cell.dataset, cell.row.label, cell.seed, cell.seconds) == ("d", "sasrec", 1, 61.25)
    assert cell.error == "RuntimeError: CUDA error: device-side assert triggered"
    pages = write_report(report, tmp_path, ("html", "md", "latex", "json")).pages
    html, markdown, latex = (pages[kind].read_text("utf-8") for kind in ("html", "md", "latex"))
    said = "SASREC, seed 1: failed after 61.2 s: RuntimeError: CUDA error: device-side assert triggered"
    for page in (html, markdown, latex):
        assert said in page
        assert "\x1b" not in page
    shown = re.search("<pre>(.*?)</pre>", html, re.DOTALL)[1].splitlines()
    assert shown[:2] == ["[...]", "  File &#34;torch/call4.py&#34;, line 4, in f4"]
    assert shown[-12:] == [rf"line {n} of ``` &amp; &lt;b&gt; \x1b[31m" for n in range(8, 20)]
    fenced = re.search("^  (````)text\n(.*?)^  ````$", markdown, re.DOTALL | re.MULTILINE)[2].splitlines()
    assert fenced[1].strip() == 'File "torch/call4.py", line 4, in f4'
    assert fenced[-1] == r"  line 19 of ``` & <b> \x1b[31m"
    assert "call8.py" not in latex
    assert json.loads(pages["json"].read_text("utf-8"))["missing"][0]["log"] == [
        line.replace("/venv/lib/python3.11/site-packages/", "") for line in error.splitlines()
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("the cell ended its process 2 times (SIGKILL)", "the cell ended its process 2 times (SIGKILL)"),
        (f"the worker died (SIGKILL)\n{OUTPUT_FOLLOWS}\nepoch 1", "the worker died (SIGKILL)"),
        (traceback_of("x", 1) + "ValueError: two\n  lines", "ValueError: two"),
        (traceback_of("x", 1) + "KeyError", "KeyError"),
        (traceback_of("x", 1) + "ipsrec_bench.errors.ModelError: task 'a': it fails", "task 'a': it fails"),
        ('  File "x.py", line 1\n    a b\n      ^\nSyntaxError: invalid syntax', "SyntaxError: invalid syntax"),
        (f"{OUTPUT_FOLLOWS}\n", OUTPUT_FOLLOWS),
    ],
)
def test_the_reason_of_a_failure_is_the_line_that_says_why(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('File "/home/ann/x/ipsrec_bench/run/cell.py", line 1', 'File "ipsrec_bench/run/cell.py", line 1'),
        ('File "/usr/lib/python3.11/json/decoder.py", line 1', 'File "json/decoder.py", line 1'),
        ('File "/Users/ann/models/mine.py", line 1', 'File "~/models/mine.py", line 1'),
        ("OSError: no space: /home/ann/reports/x", "OSError: no space: ~/reports/x"),
        ("see https://example.org/home/ann/x and /homeless/x", "see https://example.org/home/ann/x and /homeless/x"),
    ],
)
def test_logs_in_a_report_name_no_folder_of_the_user(written, shown):
    assert log_of(written) == (shown,)
