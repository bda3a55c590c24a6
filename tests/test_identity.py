"""A suite has one name, one place and one folder of reports, and shares them with no other."""

import itertools
import os
import shutil
from pathlib import Path

import pytest

from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.errors import SuiteError
from ipsrec_bench.report.pages import file_name, report_folder
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.store.connect import reading
from ipsrec_bench.store.queries import suite_summaries
from ipsrec_bench.suite.load import load_suite, parse_suite, suite_name

from .conftest import vocabulary
from .test_cli import refused

SUITE = """
title = "{title}"
seeds = [1]
models = ["pop"]
[datasets.world]
source = "synthetic"
users = 40
items = 20
providers = 3
mean_length = 5
seed = {seed}
"""


def suite(path, seed=1, title="Small", name=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = SUITE.format(title=title, seed=seed)
    path.write_text(f'name = "{name}"\n{text}' if name else text, encoding="utf-8")
    return path


NAMES = [
    *("my suite", "my+suite", "my_suite", "my-suite", "my  suite", "it's", "it_s", "its", "Quick", "quick", "QUICK"),
    *("..", ".", "...", "...toml", "a.", "a", ".a", "-a", "~", "/", "a/b", "a\\b", "../a", "a:b", "a|b", "con", "CON"),
    *("nul.x", "com1", "aux", "studies", "checkpoints", "é", "e\u0301", "数据", "🎲", "x" * 40, "x" * 41, "x" * 250),
    *("数" * 250, "suite", "v1.2", "v1..2", "a\nb", "\udcff", "", " ", "a ", "a b--12345678", "a--12345678"),
]


def test_names_have_files_that_no_other_name_has_on_any_file_system():
    files = {name: file_name(name) for name in [*NAMES, *map(file_name, NAMES)]}
    assert len({file.casefold() for file in files.values()}) == len(files)
    for file in files.values():
        assert len(os.fsencode(file)) < 220
        assert file.strip(". -~") == file
        assert not {*file} & {*'/\\:*?"<>| \n\t\x00'}
        assert file.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "studies"}
    for plain in ("quick", "paper-fast", "my_suite", "v1.2", "2026"):
        assert file_name(plain) == plain


def test_a_report_stays_below_its_folder(tmp_path):
    for name in NAMES:
        folder = report_folder(tmp_path, name)
        assert folder.resolve().parent == tmp_path.resolve(), name


def test_a_suite_is_called_as_it_says_or_like_its_file(tmp_path):
    assert load_suite(suite(tmp_path / "a b.toml")).name == "a b"
    assert load_suite(suite(tmp_path / "a b.toml", name="it's")).name == "it's"
    assert load_suite(tmp_path / "a b.toml", ["name=other"]).name == "other"
    assert load_suite(suite(tmp_path / "x.TOML")).name == "x"
    assert suite_name(str(tmp_path / "x.TOML")) == "x"
    assert suite_name(str(tmp_path / "a b.toml")) == "it's"
    assert suite_name("gone/x.toml") == "x"
    assert suite_name("x") == "x"


@pytest.mark.parametrize("name", ["", " ", " a", "a\\u202eb", "a\\u001b", "x" * 201, "a.toml", "a.TOML", "a@2"])
def test_names_that_commands_could_not_take_are_refused(name):
    with pytest.raises(SuiteError, match=r" name: .*(a|suite's) name (has|may)"):
        parse_suite(Path("x.toml"), f'name = "{name}"\n' + SUITE.format(title="x", seed=1))


@pytest.mark.parametrize("file", ["a@2.toml", "a.toml.toml", "a\u202eb.toml", "a .toml", os.fsdecode(b"a\xff.toml")])
def test_files_that_would_name_a_suite_so_need_the_key(tmp_path, file):
    with pytest.raises(SuiteError, match="give it the key `name`"):
        load_suite(suite(tmp_path / file))
    assert load_suite(suite(tmp_path / file, name="a")).name == "a"


def test_two_suites_of_one_name_are_not_one_suite(tmp_path, bench):
    first, second = suite(tmp_path / "a" / "tiny.toml", 1, "First"), suite(tmp_path / "b" / "tiny.toml", 2, "Second")
    assert bench("run", first).returncode == 0
    page = tmp_path / "reports" / "tiny" / "tiny.html"
    before = page.read_text("utf-8")
    refused(bench("run", second), str(second), "another suite of the name 'tiny'", str(first), "name =", "--store")
    refused(bench("report", second), "another suite of the name 'tiny'")
    assert page.read_text("utf-8") == before
    assert bench("report", first).returncode == bench("report", "tiny").returncode == 0
    suite(second, 2, "Second", name="tiny-b")
    done = bench("run", second)
    assert done.returncode == 0
    assert "reports/tiny-b/tiny-b.html" in done.stdout
    assert bench("report", second).stdout == "Report: reports/tiny-b/tiny-b.html\n"
    assert "<h1>First</h1>" in page.read_text("utf-8")
    with reading(tmp_path / "reports" / "ipsrec-bench.duckdb") as connection:
        assert {summary.suite for summary in suite_summaries(connection)} == {"tiny", "tiny-b"}
        assert read_run(connection, "tiny-b").suite.title == "Second"


def test_ranks_are_not_imported_into_another_suite_of_the_name(tmp_path, bench):
    first, second = suite(tmp_path / "a" / "tiny.toml", 1), suite(tmp_path / "b" / "tiny.toml", 2)
    assert bench("run", first, "--quiet").returncode == 0
    data = prepare("world", cells_of(load_suite(second))[0].source, tmp_path / "data")
    users = vocabulary(data, "users")
    text = "user,rank\n" + "".join(f"{users[user]},1\n" for user in leave_one_out(data).test.users)
    (tmp_path / "theirs.csv").write_text(text, encoding="utf-8")
    arguments = ("import-ranks", "theirs.csv", "--model", "theirs", "--suite")
    refused(bench(*arguments, second), "another suite of the name 'tiny'", str(first))
    assert bench(*arguments, suite(second, 2, name="tiny-b")).returncode == 0


def test_a_suite_may_be_changed_moved_copied_and_named_by_another_path(tmp_path, bench):
    first = suite(tmp_path / "a" / "tiny.toml")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert bench("run", first).returncode == 0
    suite(first, title="Changed")
    for path in (first, "a/tiny.toml", "a/../a/tiny.toml", "link/tiny.toml"):
        assert bench("run", path).returncode == 0
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert bench("run", "copy/tiny.toml").returncode == 0  # it says the same
    shutil.rmtree(tmp_path / "a")
    suite(tmp_path / "copy" / "tiny.toml", title="Copy")
    (tmp_path / "b").mkdir()
    (tmp_path / "copy" / "tiny.toml").rename(tmp_path / "b" / "tiny.toml")
    assert bench("run", "b/tiny.toml").returncode == 0  # it was moved


def test_a_project_may_be_moved_with_its_store(tmp_path, bench):
    suite(tmp_path / "old" / "suites" / "tiny.toml")
    assert bench("run", "old/suites/tiny.toml", "--store", "old/reports/s.duckdb").returncode == 0
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    suite(tmp_path / "new" / "suites" / "tiny.toml", title="Went on")
    assert bench("run", "new/suites/tiny.toml", "--store", "new/reports/s.duckdb").returncode == 0


def test_suites_with_odd_names_have_reports_of_their_own(tmp_path, bench):
    names = ["my suite", "my+suite", "my_suite", ".."]
    for number, name in enumerate(names):
        assert bench("run", suite(tmp_path / f"{name}.toml", title=f"Suite {number}")).returncode == 0
    pages = [path.read_text("utf-8") for path in (tmp_path / "reports").glob("*/*.html")]
    assert sorted(page.split("<h1>")[1][:7] for page in pages) == [f"Suite {number}" for number in range(len(names))]
    assert not list(tmp_path.glob("*.html"))
    for name, other in itertools.pairwise(names):
        by_name, by_file = bench("report", name), bench("report", f"{name}.toml")
        assert by_name.stdout == by_file.stdout != bench("report", other).stdout


def test_a_suite_in_capitals_is_found_by_its_file(tmp_path, bench):
    assert bench("run", suite(tmp_path / "x.TOML")).returncode == 0
    assert bench("report", "x.TOML").stdout == bench("report", "x").stdout == "Report: reports/x/x.html\n"
    (tmp_path / "x.TOML").unlink()
    assert bench("report", "x.TOML").returncode == 0
