"""Shipped suites: found by name, listed, shown, copied."""

import sys

import pytest

from tests.conftest import ROOT, TINY_SUITE

NAMES = sorted(path.stem for path in (ROOT / "suites").glob("*.toml"))
ONE_POP = ("--set", "models=['pop']", "--set", "seeds=[1]", "--set", "statistics.baseline=best")


def test_a_shipped_suite_is_run_by_its_name_and_reports_into_the_working_folder(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # drawing charts takes longer than all else
    done = bench("run", "quick", *ONE_POP)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Report: reports/quick/quick.html")
    assert (tmp_path / "reports/quick/quick.html").is_file()
    assert bench("report", "quick", "--format", "md").stdout == "Report: reports/quick/quick.md\n"


@pytest.mark.parametrize("file", ["quick", "quick.toml"])
def test_a_file_in_the_working_folder_takes_precedence_over_the_shipped_suite_of_its_name(file, bench, tmp_path):
    (tmp_path / file).write_text(TINY_SUITE, encoding="utf-8")
    assert bench("validate", "quick").stdout.startswith("quick: 8 cells: 1 dataset x 5 models and variants x 2 seeds")
    assert "│ world " in bench("run", "quick", "--dry-run").stdout


def test_a_folder_does_not_hide_the_shipped_suite_of_its_name(bench, tmp_path):
    (tmp_path / "quick").mkdir()
    assert bench("validate", "quick").returncode == 0


def test_every_command_that_takes_a_suite_takes_a_shipped_one(bench):
    for command in (
        ["validate", "quick"],
        ["run", "quick", "--dry-run"],
        ["tune", "quick", "--show", "--model", "ipsrec-s"],
        ["data", "list", "--suite", "quick"],
    ):
        done = bench(*command)
        assert done.returncode == 0, done


def test_an_unknown_name_gets_the_shipped_names_and_the_nearest(bench):
    for command in (["run", "qick"], ["suites", "show", "qick"]):
        refused = bench(*command)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert "did you mean 'quick'?" in refused.stderr
        assert all(f"'{name}'" in refused.stderr for name in NAMES)


@pytest.mark.parametrize("command", [["suites"], ["suites", "list"]])
def test_the_list_has_every_shipped_suite_with_its_size_and_data(command, bench):
    lines = bench(*command).stdout.splitlines()
    rows = {cells[1].strip(): cells for line in lines if len(cells := line.split("│")) > 2}
    assert sorted(rows) == NAMES
    assert [cell.strip() for cell in rows["paper"][3:5]] == ["3 x 6 x 5", "missing: tmall, twitch, wechat"]
    assert rows["quick"][4].strip().startswith("embedded: ")


def test_show_prints_the_file(bench):
    assert bench("suites", "show", "quick").stdout == (ROOT / "suites/quick.toml").read_text(encoding="utf-8")


def test_copy_writes_the_file_and_replaces_none_without_force(bench, tmp_path):
    source, copy = ROOT / "suites/quick.toml", tmp_path / "mine/quick.toml"
    assert bench("suites", "copy", "quick", "--to", "mine").stdout == "mine/quick.toml\n"
    assert copy.read_bytes() == source.read_bytes()
    copy.write_text("mine", encoding="utf-8")
    refused = bench("suites", "copy", "quick", "--to", "mine")
    assert (refused.returncode, copy.read_text(encoding="utf-8")) == (2, "mine")
    assert refused.stderr.startswith("error: mine/quick.toml: the file exists already; add --force")
    assert bench("suites", "copy", "quick", "--to", "mine", "--force").returncode == 0
    assert copy.read_bytes() == source.read_bytes()
