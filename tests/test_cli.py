"""The command line as a person uses it: output, exit codes, and a sentence for every mistake."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import duckdb
import pytest

from ipsrec_bench import __version__

from .conftest import ROOT, clean_environment
from .test_data import LOG, REAL, needs_real_data
from .test_store import held_by_another_process


def refused(result, *words):
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


def test_commands_that_train_nothing_do_not_import_torch(finished):
    """This includes a run whose cells are all done."""
    program = """
        import sys
        from ipsrec_bench.cli.main import app
        for arguments in (
            ["--help"],
            ["run", "--help"],
            ["validate", "tiny.toml"],
            ["run", "tiny.toml"],
            ["ls"],
            ["query", "SELECT 1"],
            ["report"],
            ["data", "list"],
            ["data", "stats", "positive-control"],
        ):
            try:
                app(arguments, standalone_mode=True)
            except SystemExit as end:
                assert not end.code, (arguments, end.code)
            heavy = {"torch", "optuna"} & set(sys.modules)
            assert not heavy, (arguments, heavy)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=finished,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Tiny: 8 cells, 8 already done" in done.stdout


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'duckdb', 'pydantic', 'numpy', 'altair', 'optuna'}"
    program = f"import sys, ipsrec_bench.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_version_and_help(bench, bench_process):
    assert bench_process("--version").stdout.strip() == __version__
    assert "Commands:" in bench("data", "--help").stdout


def test_a_pipe_gets_timestamped_lines_and_json_gets_json(tiny_suite, bench, bench_process, tmp_path):
    plain = bench_process("run", tiny_suite)
    assert plain.returncode == 0
    lines = plain.stdout.splitlines()
    assert all(line[:4].isdigit() for line in lines[:-1])
    assert lines[-1] == "Report: reports/tiny/tiny.html"
    for line in plain.stderr.splitlines():
        assert re.fullmatch(r"Training was cut off: .* on world: [12] of 2 trainings .* at the limit \(2\) .*", line)
    assert (tmp_path / "reports/tiny/tiny.html").exists()
    again = bench("run", tiny_suite, "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [event["event"] for event in events] == ["dataset-ready", "run-started", "run-planned", "run-finished"]
    assert events[1]["skipped"] == 8


def test_a_run_with_nothing_to_do_leaves_the_report_unless_it_would_be_another(finished, bench):
    page, beside = finished / "reports/tiny/tiny.html", finished / "reports/tiny/tiny.md"

    def rewritten(*arguments) -> bool:
        page.write_text(page.read_text(encoding="utf-8").replace("Tiny", "Marked"), encoding="utf-8")
        done = bench("run", "tiny.toml", *arguments)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Report: reports/tiny/tiny.html")
        return "Marked" not in page.read_text(encoding="utf-8")

    assert not rewritten()
    assert rewritten("--set", "protocol.cutoffs=[3]")  # nothing to train, but other numbers to show
    assert not rewritten("--set", "protocol.cutoffs=[3]")
    assert rewritten()
    for formats in ("md", "latex", "html"):  # other pages, or other charts
        bench("report", "--format", formats, "--set", "protocol.cutoffs=[3]")
        assert rewritten()
        assert not rewritten()
    beside.unlink()
    assert rewritten()
    assert beside.exists()
    (finished / "reports/tiny/.basis").unlink()  # as it is if the report could not be written to its end
    assert rewritten()
    assert rewritten("--force")  # the same ranks, but made at another time
    (finished / "reports/studies").mkdir()
    (finished / "reports/studies/new.journal").touch()
    assert rewritten()
    os.utime(ROOT / "ipsrec_bench" / "__init__.py")  # as after a change to the toolkit
    assert rewritten()


def test_a_mistake_in_a_separate_process_ends_it_with_code_2(bench_process):
    refused(bench_process("run", "none.toml"), "none.toml: there is no such suite file")


@pytest.mark.usefixtures("finished")
def test_reading_commands(tiny_suite, bench):
    listed = json.loads(bench("ls", "--json").stdout)
    assert [(row["suite"], row["cells"], row["complete"]) for row in listed] == [("tiny", 8, 8)]
    assert "tiny" in bench("ls").stdout
    rows = json.loads(bench("query", "SELECT model, users FROM metrics WHERE split = 'test'", "--json").stdout)
    assert len(rows) == 10
    assert "ndcg@10" in bench("query", "SELECT * FROM metrics").stdout
    assert "8 cells: 1 dataset x 5 models and variants x 2 seeds" in bench("validate", tiny_suite).stdout
    assert "8 cells, 0 to run" in bench("run", tiny_suite, "--dry-run").stdout
    assert bench("report", "tiny", "--output", "elsewhere").stdout == "Report: elsewhere/tiny/tiny.html\n"
    assert "negative-control" in bench("data", "list").stdout


def test_places_come_from_options_and_the_environment(tiny_suite, bench, tmp_path):
    done = bench("run", tiny_suite, "--quiet", IPSREC_BENCH_STORE="here/s.duckdb", IPSREC_BENCH_DATA_DIR="there")
    assert done.returncode == 0
    assert (tmp_path / "here/tiny/tiny.html").exists()
    assert list((tmp_path / "there/prepared").iterdir())
    assert not (tmp_path / "reports").exists()
    assert "tiny" in bench("ls", "--store", "here/s.duckdb").stdout


def test_statistics_of_a_file_and_of_a_name(tmp_path, bench):
    (tmp_path / "log.tsv").write_text(LOG.replace(",", "\t").replace("user", "who"), encoding="utf-8")
    stats = bench("data", "stats", "log.tsv", "--user", "who", "--json")
    assert json.loads(stats.stdout)["actions"] == 5
    assert not (tmp_path / "data").exists()
    text = bench("data", "stats", "positive-control").stdout
    assert "#I-Actions" in text
    assert "1,500" in text
    path = bench("data", "prepare", "positive-control").stdout.strip()
    assert (tmp_path / path / "meta.json").exists()


def test_datasets_are_listed_with_their_files_and_states(bench, tmp_path):
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/100k.csv").touch()
    rows = {row["name"]: row for row in json.loads(bench("data", "list", "--json").stdout)}
    assert rows["twitch"]["raw"] == "100k.csv is present"
    assert rows["positive-control"] == {
        "name": "positive-control",
        "title": "Planted world in which the provider decides what comes next",
        "raw": "embedded",
        "prepared": "not prepared",
    }
    assert rows["amazon-{category}"]["raw"] == "one for each category, e.g. amazon-All_Beauty"
    assert "ask its organisers" in rows["wechat"]["raw"]
    shown = bench("data", "list", "tmall").stdout
    for words in ("885,759 users", "Tianchi", "ijcai2016_taobao.csv", "act_ID = '1'"):
        assert words in shown
    refused(bench("data", "list", "tmal"), "did you mean 'tmall'?")
    suite = tmp_path / "s.toml"
    suite.write_text('title = "x"\nmodels = ["pop"]\ndatasets = ["amazon-All_Beauty", "negative-control"]\n')
    listed = json.loads(bench("data", "list", "--suite", suite, "--json").stdout)
    assert [row["title"] for row in listed if row["name"] == "amazon-All_Beauty"] == [
        "Amazon reviews 2018, 5-core (product, brand)"
    ]
    dry = bench("run", suite, "--dry-run", "--available").stdout
    assert "negative-control" in dry
    assert "amazon" not in dry


def test_downloads_go_below_raw_or_say_where_else(bench, tmp_path):
    refused(
        bench("data", "download", "tmall"), "'tmall' cannot be downloaded from a plain URL: get it from the homepage"
    )
    refused(bench("data", "download", "positive-control"), "'positive-control' is embedded; there is nothing")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "log.csv").write_text(LOG, encoding="utf-8")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        own = f"""
            [mine]
            title = "Mine"
            homepage = "https://example.org"
            obtain = "ipsrec-bench data download mine"
            forms = [{{ path = "mine/log.csv" }}]
            downloads = [{{ url = "http://127.0.0.1:{http.server_port}/log.csv", file = "mine/log.csv" }}]
            published = {{ users = 2, items = 3, providers = 2, actions = [5], source = "the test" }}
        """
        (tmp_path / "data").mkdir()
        (tmp_path / "data/datasets.toml").write_text(own, encoding="utf-8")
        refused(bench("data", "stats", "mine"), "log.csv: there is no such file; ipsrec-bench data download mine")
        done = bench("data", "download", "mine")
        http.shutdown()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/raw/mine/log.csv").read_text(encoding="utf-8") == LOG
    assert "As published: 2 users, 3 items, 2 providers, 5 actions (the test)" in bench("data", "stats", "mine").stdout
    (tmp_path / "data/datasets.toml").write_text(own.replace("items = 3", "items = 4"), encoding="utf-8")
    assert "NOT as published: 2 users, 4 items" in bench("data", "stats", "mine").stdout


@pytest.mark.usefixtures("pictures")
def test_stand_ins_pass_the_whole_pipeline_and_are_never_mistaken_for_the_data(bench, tmp_path):
    assert bench("data", "synth", "--like", "twitch", "--scale", "0.002").stdout == "data/stand-ins/twitch-0.002\n"
    refused(bench("data", "synth", "--like", "twich"), "there is no stand-in for 'twich'; did you mean 'twitch'?")
    refused(bench("data", "synth", "--like", "twitch", "--scale", "0"), "scale")
    (tmp_path / "there").mkdir()
    refused(bench("data", "synth", "--like", "twitch", "-o", "there"), "there: exists already; name a new folder")
    models = ["--set", 'models=["pop", "markov"]', "--set", "seeds=[1]"]
    paper = ROOT / "suites" / "paper.toml"
    refused(
        bench("run", paper, *models), "100k_a.csv: there is no such file", "user_action.csv", "ijcai2016_taobao.csv"
    )
    done = bench("run", paper, *models, "--stand-in", "--scale", "0.002", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = (tmp_path / "reports/paper/paper.md").read_text(encoding="utf-8")
    assert text.startswith("# IPSRec, Table 2: overall results \\[stand-in data\\]")
    # Results, comparisons, over datasets, slices, order, published numbers, fairness, charts, datasets, cost.
    assert text.count("Stand-in data at a scale of 0.002: tmall, twitch, wechat.") == 10
    assert "| tmall | 1,772 | 2,288 | 15,184 | 20 |" in text
    stats = bench("data", "stats", "wechat", "--stand-in", "--scale", "0.002").stdout
    assert "wechat (stand-in, generated)" in stats
    assert "s published" not in stats
    tuned = bench(
        "tune", "--dataset", "wechat", "--model", "ipsrec-c", "--stand-in", "--scale", "0.002", "--trials", "1",
        "--json",
        *[word for setting in (
            "training.epochs=1", "models.ipsrec-c.embedding_size=4", "models.ipsrec-c.inner_size=4",
            "datasets.wechat.max_length=5",
        ) for word in ("--set", setting)],
    )  # fmt: skip
    assert len(json.loads(tuned.stdout)[0]["trials"]) == 1, tuned.stderr


def test_mistakes_get_a_sentence_and_exit_code_2(tiny_suite, bench, tmp_path):
    refused(bench("run", "none.toml"), "none.toml: there is no such suite file")
    refused(
        bench("validate", tiny_suite, "--set", "models.sasrec.layers=2"),
        "unknown key 'layers'; did you mean 'n_layers'?",
    )
    refused(
        bench("validate", tiny_suite, "--set", "models.sasrac.n_layers=2"), "no model 'sasrac'; did you mean 'sasrec'?"
    )
    refused(bench("ls"), "there is no result store yet")
    refused(bench("report"), "there is no result store yet")
    refused(bench("query", "SELECT 1"), "there is no result store yet")
    refused(bench("run", tiny_suite, "--devices", "cuda:9"), "--devices cuda:9: there is no GPU 'cuda:9' here")
    refused(bench("data", "stats", "wechatt"), "'wechatt' is not a known dataset", "did you mean 'wechat'?")
    for command in (["data", "stats", "wechat"], ["tune", "--dataset", "wechat"]):
        refused(
            bench(*command),
            "data/raw/user_action.csv and data/raw/feed_info.csv: there is no such file; ask its organisers",
            "add --stand-in --scale 0.01 for made-up data of its shape",
        )
    refused(bench("tune"), "name a dataset with --dataset")
    refused(bench("tune", "--dataset", "positive-control", "--model", "pop"), "nothing to tune")
    refused(
        bench("tune", tiny_suite, "--model", "ipsrec-c"), "the suite has no model 'ipsrec-c'; did you mean 'ipsrec-s'?"
    )
    (tmp_path / "log.csv").write_text(LOG, encoding="utf-8")
    refused(bench("data", "stats", "log.csv", "--user", "usr"), "there is no column 'usr'", "did you mean 'user'?")
    own = tmp_path / "own.toml"
    own.write_text('title = "x"\nmodels = ["pop"]\n[datasets.mine]\npath = "mine.csv"\n', encoding="utf-8")
    refused(bench("run", own), "mine.csv: there is no such file")
    (tmp_path / "data/raw").mkdir(parents=True)
    for text, words in (
        ("user,item,provider,time\n", "the dataset is empty"),
        ("user,item,provider,time\na,b,c,soon\n", "mine.csv:2: the time is 'soon'"),
        ("user,item,provider,time\na,b,c,1\nd,b,c,1\n", "no user has 4 interactions"),
    ):
        (tmp_path / "data/raw/mine.csv").write_text(text, encoding="utf-8")
        refused(bench("run", own), words)


def test_bad_stores_get_a_sentence_and_lose_nothing(finished, tiny_suite, bench, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.store.connect.PATIENCE_SECONDS", 0.2)
    store = finished / "reports/ipsrec-bench.duckdb"
    refused(bench("query", "SELEC 1"), "the query failed")
    refused(bench("query", "DELETE FROM ranks"), "read-only")
    refused(bench("query", "COPY (SELECT 1) TO 'leak.csv'"), "the query failed")
    assert not (finished / "leak.csv").exists()
    refused(bench("report", "quick"), "no run of a suite 'quick'; it has 'tiny'")
    with held_by_another_process(store):
        for arguments in (["run", tiny_suite], ["report"]):
            refused(bench(*arguments), "locked by another process", "PID")
    (finished / "junk.duckdb").write_text("junk" * 2000)
    for arguments in (["run", tiny_suite], ["ls"], ["report"]):
        refused(bench(*arguments, "--store", "junk.duckdb"), "cannot be opened as a result store")
    with duckdb.connect(str(store), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM cells").fetchone() == (8,)


@needs_real_data
def test_the_real_suite_goes_from_file_to_report(bench, tmp_path):
    arguments = ["run", ROOT / "suites" / "real.toml", "--set", 'models=["pop"]', "--set", "seeds=[1]", "--quiet"]
    refused(bench(*arguments), "the environment variable IPSREC_BENCH_REAL_DATA is not set")
    done = bench(*arguments, IPSREC_BENCH_REAL_DATA=REAL)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "reports/real/real.md").read_text()
    assert "| amazon-beauty | 22,363 | 12,101 | 198,502 | 435 | 134,068 | 22,363 |" in text


def test_failed_cells_end_in_exit_code_1(tiny_suite, bench):
    arguments = ("run", tiny_suite, "--set", "models.sasrec.training.learning_rate=1e30", "--quiet")
    done = bench(*arguments)
    assert done.returncode == 1
    assert "2 cells failed; the report has the last lines of their logs: " in done.stderr
    assert done.stderr.count("FAILED") == 2
    assert "\n1 cell failed; " in bench(*arguments, "--set", "seeds=[1]").stderr


@pytest.mark.usefixtures("pictures")
def test_tuning_resumes_where_it_stopped(tiny_suite, bench, tmp_path, finished_once):
    assert bench("tune", tiny_suite, "--model", "ipsrec-s", "--trials", "2", "--quiet").stdout == ""
    arguments = ["tune", tiny_suite, "--model", "ipsrec-s", "--dataset", "world", "--trials", "4"]
    done = bench(*arguments)
    assert done.returncode == 0
    assert sum("complete, " in line for line in done.stdout.splitlines()) == 2
    assert "4 trials, 0 of them pruned" in done.stdout
    table = bench(*arguments, "--json").stdout
    (study,) = json.loads(table)
    assert [trial["number"] for trial in study["trials"]] == [0, 1, 2, 3]
    own = study["trials"][0]
    assert own["settings"] == study["default"]
    assert own["settings"].items() >= {"lambda": 0.1, "tau": 1.0, "training.learning_rate": 0.001}.items()
    assert all(1e-3 <= t["settings"]["lambda"] <= 1 and 0.05 <= t["settings"]["tau"] <= 5 for t in study["trials"])
    assert (tmp_path / study["place"]).exists()
    assert not (tmp_path / "reports/ipsrec-bench.duckdb").exists()
    shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True)
    assert bench("report", "--format", "json,md").returncode == 0
    content = json.loads((tmp_path / "reports/tiny/tiny.json").read_text())
    (tuned,) = content["tuned"]
    assert tuned["study"]["trials"] == study["trials"]
    text = (tmp_path / "reports/tiny/tiny.md").read_text()
    assert "ipsrec-s on world: the best of 4 trials has hidden\\_dropout = " in text
    assert "validation MRR@10 over lambda and tau" in text


def test_a_study_starts_from_settings_out_of_range_and_survives_failing_trials(tiny_suite, bench):
    arguments = ["tune", tiny_suite, "--model", "ipsrec-s", "--trials", "1", "--json"]
    (study,) = json.loads(bench(*arguments, "--set", "models.ipsrec-s.lambda=0").stdout)
    assert study["trials"][0]["settings"]["lambda"] == study["default"]["lambda"] == 0
    (study,) = json.loads(bench(*arguments, "--set", "models.ipsrec-s.lambda=0", "--trials", "2").stdout)
    assert study["trials"][1]["settings"]["lambda"] > 0
    alone = "tune.space.ipsrec-s={lambda = {low = 0.001, high = 1, log = true}}"
    done = bench(*arguments, "--set", alone, "--set", "training.learning_rate=1e30")
    *failures, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(failures)) == (2, "", 5)
    assert all("failed after 0 epochs" in line for line in failures)
    assert error.startswith("error: 5 trials in a row failed; the last error: the training loss is not finite")


@pytest.mark.usefixtures("finished")
def test_a_run_that_only_collects_says_how_far_the_suite_is(bench):
    for store, done in ("new/s.duckdb", 0), ("reports/ipsrec-bench.duckdb", 8):
        collected = bench("run", "tiny.toml", "--collect", "--store", store, "--set", "seeds=[1, 2, 3]")
        assert collected.returncode == 0
        assert f": 11 cells, {done} already done\n" in collected.stdout
        assert "finished after" in collected.stdout
        assert ": 0 complete, 0 failed\n" in collected.stdout
