"""The format `site`: an index of suites, a page with a history for each, and files of others left alone."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.report.history import history_of
from ipsrec_bench.report.pages import file_name
from ipsrec_bench.report.runs import read_run
from ipsrec_bench.report.site import MARKER, write_site
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run
from ipsrec_bench.suite.load import parse_suite

from .conftest import run_bench
from .planted import built, fill
from .test_report_pages import OVERFLOWING, Visit, browser  # noqa: F401 (a fixture)

SECOND = """
title = "Second"
seeds = [1]
datasets = ["positive-control"]
models = ["pop", "sasrec"]
[protocol]
metrics = ["hr", "mrr"]
[training]
epochs = 7
"""


def again(path: Path, text: str, name: str, keep: int | None = None) -> None:
    """Record a run of the suite `text` that plans the first `keep` cells of the run of `planted`."""
    with writing(path) as connection:
        cells = list(read_run(connection, "planted").cells)[:keep]
        begin_run(connection, parse_suite(Path(f"{name}.toml"), text), [], cells)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of two suites: `planted`, run once with a failure, and `second`, run three times."""
    path = fill(tmp_path_factory.mktemp("site") / "s.duckdb", seeds=(1, 2), users=60, errors=[("sasrec", 2)])
    again(path, SECOND, "second", keep=2)
    again(path, SECOND, "second", keep=2)
    again(path, SECOND.replace("epochs = 7", "epochs = 9").replace("seeds = [1]", "seeds = [1, 2]"), "second")
    return path


@pytest.fixture(scope="module")
def site(store):
    """The site of all suites of that store."""
    done = run_bench("report", "--format", "site", "--store", store, cwd=store.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["Report:", str(store.parent / "site" / "index.html")]
    return store.parent / "site"


@pytest.fixture(scope="module")
def reports(store):
    """Reports and histories of `planted` and `second`."""
    names = ("planted", "second")
    with reading(store) as connection:
        histories = [history_of(connection, read_run(connection, name)) for name in names]
    return [(built(store, name), history) for name, history in zip(names, histories, strict=True)]


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("ipsrec_bench.report.charts.charts_of", lambda _report: [])


def rows(page: Path, table: str) -> list[list[str]]:
    """Return the texts of a table's rows, without the lines of details."""
    found = re.search(rf'<table[^>]*aria-label="{table}">.*?</table>', page.read_text(encoding="utf-8"), re.DOTALL)[0]
    lines = re.findall(r'<tr(?! class="details").*?</tr>', found.split("<tbody>")[1], re.DOTALL)
    cells = [re.findall(r"<(?:td|th).*?</(?:td|th)>", line, re.DOTALL) for line in lines]
    return [[" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in line] for line in cells]


def links(page: Path) -> list[str]:
    return re.findall(r'(?:href|src)="([^"#:]+)"', page.read_text(encoding="utf-8"))


def test_the_index_says_of_every_suite_how_far_it_is_and_what_is_best(site):
    suites = rows(site / "index.html", "Suites")
    assert [line[0] for line in suites] == ["second", "planted"]
    assert suites[1][1] == "Planted"
    assert suites[1][3:] == ["7 of 8", "1", "2", "d", "POP, SASREC, IPSREC-S"]
    best = rows(site / "index.html", "Best models")
    assert [line[:4] for line in best if line[0] == "planted"] == [
        ["planted", "d", "MRR@10", "IPSREC-S"],
    ]
    assert re.fullmatch(r"0\.\d{4} ± 0\.\d{4}", best[-1][4])


def test_every_link_of_the_site_has_its_place(site):
    pages = [site / "index.html", *site.glob("suites/*/index.html")]
    assert len(pages) == 3
    for page in pages:
        assert links(page)
        assert [link for link in links(page) if not (page.parent / link).exists()] == []


def test_a_suites_page_shows_its_runs_and_the_values_of_each(site):
    page = site / "suites" / "second" / "index.html"
    runs = rows(page, "Runs of this suite")
    assert [line[0] for line in runs] == ["4", "3", "2"]
    assert [line[3:5] for line in runs] == [["7 of 8", "1"], ["2 of 2", "0"], ["2 of 2", "0"]]
    assert runs[0][5] == "seeds: [1, 2], before [1]; training.epochs: 9, before 7"
    assert [line[5] for line in runs[1:]] == ["nothing", "first run"]
    values = {tuple(line[:2]): line[2:] for line in rows(page, "MRR@10 in each run")}
    assert values["d", "POP"][1] == values["d", "POP"][2] != "–"
    assert values["d", "IPSREC-S"][1:] == ["–", "–"]
    results = {line[0] + line[1]: line for line in rows(page, "Results")}
    assert values["d", "IPSREC-S"][0] == results["dMRR@10"][4].split()[0]


def test_values_of_a_run_are_means_over_its_seeds(reports):
    report, history = reports[1]
    newest = history.runs[0]
    line = next(line for line in report.results.lines if (line.dataset, line.metric) == ("d", "mrr@10"))
    for row, cell in zip(report.results.columns, line.cells, strict=True):
        assert newest.values["d", row] == pytest.approx(cell.score.mean, abs=1e-12)
    assert newest.versions == ("0",)


def test_a_run_repeats_no_values_if_it_is_the_only_one(site):
    page = (site / "suites" / "planted" / "index.html").read_text(encoding="utf-8")
    assert "Runs of this suite" in page
    assert "in each run" not in page


@pytest.mark.usefixtures("undrawn")
def test_named_suites_make_a_site_of_these_only_and_what_it_no_longer_has_is_removed(store, reports, tmp_path):
    write_site(reports, tmp_path)
    mine = tmp_path / "site" / "suites" / "planted" / "notes.txt"
    mine.write_text("mine")
    (tmp_path / "site" / "CNAME").write_text("mine")
    report = ("report", "second", "--format", "site", "--store", store, "--output", tmp_path)
    assert run_bench(*report, cwd=tmp_path).returncode == 0
    left = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert left == {MARKER, "index.html", "suites/second/index.html", "suites/planted/notes.txt", "CNAME"}
    assert [line[0] for line in rows(tmp_path / "site" / "index.html", "Suites")] == ["second"]


@pytest.mark.usefixtures("undrawn")
def test_a_file_of_somebody_else_is_not_overwritten(reports, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    with pytest.raises(BenchError, match=r"'index\.html' there is not part of a site of ipsrec-bench and is not over"):
        write_site(reports, tmp_path)
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_a_list_that_names_files_outside_of_the_site_removes_none_of_them(reports, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / MARKER).write_text(json.dumps(["../outside.txt"]))
    write_site(reports[1:], tmp_path)
    assert outside.read_text() == "mine"


def test_a_list_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / MARKER).write_text("[")
    with pytest.raises(BenchError, match=r"cannot be read; move the folder away"):
        write_site([], tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_fails_leaves_an_earlier_site_complete(reports, tmp_path):
    write_site(reports, tmp_path)
    before = (tmp_path / "site" / "index.html").read_bytes()

    def broken():
        yield reports[1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_site(broken(), tmp_path)
    assert (tmp_path / "site" / "index.html").read_bytes() == before
    assert (tmp_path / "site" / "suites" / "planted" / "index.html").exists()
    write_site(reports[1:], tmp_path)  # the list was complete
    assert not (tmp_path / "site" / "suites" / "planted").exists()


def test_a_suite_that_cannot_be_read_is_named_on_the_index(store, tmp_path):
    path = Path(shutil.copy(store, tmp_path))
    with writing(path) as connection:
        connection.execute("""UPDATE runs SET settings = '{"seeds": "none"}' WHERE suite = 'second'""")
    done = run_bench("report", "--format", "site", "--store", path, cwd=tmp_path)
    assert done.returncode == 0
    assert "the suite of run 4 of 'second' cannot be read" in done.stderr
    index = tmp_path / "site" / "index.html"
    assert "Suites that this site lacks:" in index.read_text()
    assert [line[0] for line in rows(index, "Suites")] == ["planted"]
    named = run_bench("report", "second", "--format", "site", "--store", path, cwd=tmp_path)
    assert named.returncode == 2


def test_a_store_without_runs_makes_no_site(store, tmp_path):
    path = Path(shutil.copy(store, tmp_path))
    with writing(path) as connection:
        connection.execute("DELETE FROM runs")
    done = run_bench("report", "--format", "site", "--store", path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no run yet" in done.stderr
    assert not (tmp_path / "site").exists()


def test_a_suite_named_site_does_not_take_the_folder_of_the_site():
    assert file_name("site") != "site"


def test_a_browser_reads_the_site_from_disk_with_one_chart_library_for_all_pages(reports, browser, tmp_path):  # noqa: F811
    index, undrawn = write_site(reports[1:], tmp_path)
    library = index.parent / "assets" / "vega-embed.js"
    assert undrawn == ()
    assert all(path.stat().st_size < library.stat().st_size for path in index.parent.rglob("*.html"))
    with Visit(browser, index, 1440, live=True, color_scheme="dark") as visit:
        page = visit.page
        page.get_by_role("table", name="Suites").get_by_role("link", name="second").click()
        page.locator("figure.chart").first.scroll_into_view_if_needed()
        page.wait_for_selector("figure.chart .vega-embed svg", timeout=20_000)
        page.get_by_role("link", name="All suites").click()
        assert page.url == index.as_uri()
        assert visit.errors == []
        assert {*visit.requests} - {"data:,"} == {
            index.as_uri(), (index.parent / "suites" / "second" / "index.html").as_uri(), library.as_uri()
        }  # fmt: skip


@pytest.mark.parametrize("place", ["index.html", "suites/second/index.html"])
def test_a_page_of_the_site_fits_every_width_and_shows_its_tables_without_a_script(site, browser, place):  # noqa: F811
    with Visit(browser, site / place, 380) as visit:
        for width in (380, 1024, 1440):
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert visit.page.evaluate(OVERFLOWING) == [], width
        assert visit.errors == []
    with Visit(browser, site / place, 1440, java_script_enabled=False) as visit:
        table = "Best models" if place == "index.html" else "MRR@10 in each run"
        assert visit.page.get_by_role("table", name=table).get_by_role("row").count() > 2
