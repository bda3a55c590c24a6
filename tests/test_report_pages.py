"""Rendered reports: complete, inert, and usable in a browser without a network."""

import json
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.report import charts, renderer
from ipsrec_bench.report.charts import charts_of
from ipsrec_bench.report.content import MissingCell
from ipsrec_bench.report.drawing import Chart
from ipsrec_bench.report.render import FORMATS, parse_formats, write_report
from ipsrec_bench.words import visible

from .conftest import clean_environment, drawing
from .planted import NASTY, ROWS, SEEDS, built, fill

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PDFLATEX = shutil.which("pdflatex")


@pytest.fixture
def planted(tmp_path):
    return fill(tmp_path / "s.duckdb")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A report in which every name that a user can choose is hostile."""
    folder = tmp_path_factory.mktemp("nasty")
    rows = [("pop", ""), ("sasrec", ""), ("ipsrec-s", ""), ("ipsrec-s", NASTY)]
    path = fill(folder / "s.duckdb", datasets=(NASTY,), title=NASTY, rows=rows, display=lambda name: f"{name} {NASTY}")
    with drawing():
        return write_report(built(path), folder / "out", FORMATS)


class Elements(HTMLParser):
    """Collects what a browser would fetch or run, and the text of the page."""

    def __init__(self):
        super().__init__()
        self.fetched, self.scripts, self.tags = [], 0, set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            links = name == "href" and (value.startswith("#") or tag == "a" or value == "data:,")
            if name in ("src", "href", "data", "srcset") and not links:
                self.fetched.append((tag, name, value))
            if name.startswith("on"):
                self.fetched.append((tag, name, value))


def parsed(path: Path) -> Elements:
    page = Elements()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.mark.usefixtures("pictures")
def test_the_html_fetches_nothing_and_has_a_chart_of_every_kind(planted, tmp_path):
    report = built(planted)
    written = write_report(report, tmp_path)
    page = parsed(written.pages["html"])
    shown = charts_of(report)
    assert page.fetched == []
    assert page.scripts == len(shown) + 2  # a specification each, the library, and the page's own
    assert {chart.section for chart in shown} == {
        *("first", "comparisons", "slices", "curves", "seeds", "cost", "learning")
    }
    assert {path.suffix for path in written.charts} == {".svg", ".pdf"}
    assert len(written.charts) == 2 * len(shown)
    assert all(path.parent == written.main.parent for path in written.charts)
    for path in written.charts:
        content = path.read_bytes()
        assert content.startswith((b"<svg", b"%PDF"))
        assert b"currentColor" not in content


@pytest.mark.parametrize("writable", [True, False])
def test_the_chart_library_is_bundled_once_where_its_script_can_be_kept(tmp_path, monkeypatch, writable):
    cache, asked = tmp_path / "cache", []

    class Bundler:
        def ask(self, kind, _content):
            asked.append(kind)
            return "the script ✓"

    if not writable:
        cache.write_text("a file, no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(renderer, "_renderer", Bundler)
    bundle = renderer.javascript.__wrapped__
    assert {bundle() for _ in range(3)} == {"the script ✓"}
    assert asked == ["bundle"] * (1 if writable else 3)


def test_without_a_chart_the_library_is_left_out(tmp_path):
    nothing = {(f"{model} {variant}".strip(), seed) for model, variant in ROWS for seed in SEEDS}
    written = write_report(built(fill(tmp_path / "s.duckdb", leave_out=nothing)), tmp_path)
    assert parsed(written.pages["html"]).scripts == 1
    assert written.charts == ()


def test_names_are_inert_in_html(nasty):
    text = nasty.pages["html"].read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | &amp; % *x* $y_z^ {a}\\b # ~ 🎲" in text
    assert parsed(nasty.pages["html"]).fetched == []
    for spec in re.findall(r'<script type="application/json">(.*?)</script>', text):
        assert "<" not in spec
        assert NASTY in " ".join(json.loads(spec)["title"]["text"])


def test_names_are_inert_in_markdown(nasty):
    text = nasty.pages["md"].read_text(encoding="utf-8")
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| &lt;script")]
    assert rows
    inert = r"\| &amp; % \*x\* \$y\_z^ {a}\\b \# \~ 🎲"
    assert all(inert in line for line in rows)


@pytest.mark.parametrize(
    ("text", "inert"),
    [
        ("# big", r"\# big"),
        ("## big #", r"\## big \#"),
        ("- a", r"\- a"),
        ("---", r"--\-"),
        ("12. a", r"12\. a"),
        ("3) a", r"3\) a"),
        ("C# -1 1.5 2020-01-01", "C# -1 1.5 2020-01-01"),
    ],
)
def test_text_at_the_beginning_of_a_markdown_line_is_text(planted, tmp_path, text, inert):
    page = write_report(replace(built(planted), description=text), tmp_path, ("md",)).main.read_text(encoding="utf-8")
    assert page.splitlines()[2] == inert


def test_names_are_inert_in_charts_and_json(nasty):
    for path in nasty.charts:
        assert b"<script>" not in path.read_bytes()
        assert re.fullmatch(r"[\w.-]+", path.name)
    content = json.loads(nasty.pages["json"].read_text(encoding="utf-8"))
    assert content["title"] == NASTY
    assert content["results"]["lines"][0]["dataset"] == NASTY
    assert {c["verdict"] for c in content["comparisons"]} <= {"better", "worse", "undecided"}
    assert content["slices"][0]["slices"][0]["comparison"]["verdict"]
    assert content["headline"] == NASTY


@pytest.mark.usefixtures("pictures")
def test_hidden_characters_of_names_are_written_out_on_every_page(tmp_path):
    """Escape sequences act on the terminal that shows a file, and marks of direction turn the text around them."""
    hidden = "\x1b[31mred\x9b \u202egpj\u200b"
    report = built(fill(tmp_path / "s.duckdb", datasets=(hidden,), display=lambda name: f"{name} {hidden}", seeds=(1,)))
    error = MissingCell(hidden, report.results.columns[0], 1, hidden)
    report = replace(
        report, title=hidden, description=hidden, missing=(error,), suite_text=f"a = 1\n\t{hidden}", overrides=(hidden,)
    )
    written = write_report(report, tmp_path / "out", FORMATS)
    texts = {path.name: path.read_text("utf-8") for path in (*written.pages.values(), *written.tables)}
    texts |= {path.name: path.read_text("utf-8") for path in written.charts if path.suffix == ".svg"}
    raw = json.loads(texts.pop("planted.json"))
    assert raw["title"] == hidden
    shown = r"\x1b[31mred\x9b \u202egpj\u200b"
    assert f"a = 1\n\t{shown}" in texts["planted.html"]
    for name, text in texts.items():
        text = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # noqa: PLW2901 (the library's)
        assert [c for c in text if c not in "\n\t" and visible(c) != c] == [], name
    for spec in re.findall(r'<script type="application/json">(.*?)</script>', texts["planted.html"]):
        assert shown in " ".join(json.loads(spec)["title"]["text"])


def test_names_are_inert_in_latex(nasty):
    for path in (*nasty.tables, nasty.pages["latex"]):
        text = path.read_text(encoding="utf-8")
        assert "🎲" not in text
        assert not re.search(r"(?<!\\)[#~]|(?<!\\)&\s*%", text.replace("%\n", "\n"))
    assert r"\textless{}script\textgreater{}alert(1)" in nasty.tables[0].read_text(encoding="utf-8")


@pytest.mark.usefixtures("pictures")
@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("which", ["nasty", "planted"])
def test_latex_compiles(which, request, tmp_path):
    written = (
        request.getfixturevalue("nasty")
        if which == "nasty"
        else write_report(built(request.getfixturevalue("planted")), tmp_path, ("latex",))
    )
    document = written.pages["latex"]
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", document.name],
        cwd=document.parent,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert document.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in written.tables} == {
        f"table-{name}.tex"
        for name in (
            "results",
            "ablation",
            "comparisons",
            "slices",
            "order",
            "sampled",
            "fairness",
            "datasets",
            "cost",
            "protocol",
        )
    }
    assert r"\toprule" in written.tables[0].read_text(encoding="utf-8")


def test_a_study_that_cannot_be_read_is_named_on_every_page(planted, tmp_path):
    report = replace(built(planted), unread_studies=("studies/x: line 3 is torn",))
    for page in write_report(report, tmp_path, FORMATS).pages.values():
        assert "studies/x: line 3 is torn" in page.read_text(encoding="utf-8")


def test_json_has_neither_nan_nor_infinity(tmp_path):
    """A gain over nothing is unbounded."""
    report = built(fill(tmp_path / "s.duckdb", users=2, statistics='baseline = "pop"'))
    text = write_report(report, tmp_path, ("json",)).main.read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)


def test_markdown_tables_are_whole(planted, tmp_path):
    text = write_report(built(planted), tmp_path, ("md",)).main.read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    assert len(blocks) == 13
    assert "**" in text
    assert "<u>" in text
    assert re.search(r"\+\d+\.\d%\\\*", text)


def test_many_models_go_down_the_page_with_the_same_numbers(tmp_path, monkeypatch):
    rows = [*[(f"model-{i}", "") for i in range(9)], ("ipsrec-s", "")]
    report = built(fill(tmp_path / "s.duckdb", rows=rows))
    assert report.results.models_down
    written = write_report(report, tmp_path / "down", FORMATS)
    lines = written.pages["md"].read_text(encoding="utf-8").splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| Model | d HR@5 | Improv. | d HR@10 |"))
    table = [line.strip("|").split(" |") for line in lines[header + 2 : header + 2 + len(rows)]]
    assert [row[0].strip() for row in table] == [row.display for row in report.results.columns]
    assert {len(row) for row in table} == {1 + 2 * len(report.results.lines)}
    monkeypatch.setattr("ipsrec_bench.report.content.MAX_COLUMNS", 99)
    across = write_report(report, tmp_path / "across", ("md",)).main.read_text(encoding="utf-8").splitlines()
    header = next(i for i, line in enumerate(across) if line.startswith("| Dataset | Metric |"))
    for j, line in enumerate(across[header + 2 : header + 2 + len(report.results.lines)]):
        cells = [cell.strip() for cell in line.strip("|").split(" |")][2:]
        assert [row[1 + 2 * j].strip() for row in table] == cells[: len(rows)]
        assert table[-1][2 + 2 * j].strip() == cells[-1] != ""
    html = written.pages["html"].read_text(encoding="utf-8")
    assert html.count('<th class="text" scope="row">MODEL-') >= 9


def test_formats_are_checked():
    assert parse_formats("json, html") == ("html", "json")
    with pytest.raises(BenchError, match="did you mean 'latex'"):
        parse_formats("html,latx")
    with pytest.raises(BenchError, match="no format"):
        parse_formats(" ,")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page opened from disk with the network off, and what it tried and said."""

    def __init__(self, browser, path: Path, width: int, *, live: bool = False, **options):
        """`live` charts replace the drawn ones when they come near; that takes long."""
        self.context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        if not live:
            self.page.add_init_script("window.IntersectionObserver = class { observe() {} }")
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def column(self, table: str, number: int) -> list[str]:
        return self.page.eval_on_selector_all(
            f'table[aria-label="{table}"] tbody tr:not([hidden], .details)',
            "(rows, n) => rows.map((row) => row.cells[n].dataset.value ?? row.cells[n].textContent.trim())",
            number,
        )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A report on two datasets, with models down the page."""
    folder = tmp_path_factory.mktemp("two")
    rows = [*[(f"model-{i}", "") for i in range(9)], ("ipsrec-s", "")]
    return write_report(
        built(fill(folder / "s.duckdb", datasets=("d", "e"), rows=rows, seeds=(1,), users=60)), folder
    ).pages["html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_a_network(nasty, browser, scheme):
    with Visit(browser, nasty.pages["html"], 1440, live=True, color_scheme=scheme) as visit:
        page = visit.page
        figures = page.locator("figure.chart")
        for index in range(figures.count()):
            figures.nth(index).scroll_into_view_if_needed()
            page.wait_for_selector(f"figure.chart >> nth={index} >> .vega-embed svg", timeout=20_000)
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
        assert len([url for url in visit.requests if url.startswith("file:")]) == 1


OVERFLOWING = """
() => [document.documentElement, ...document.querySelectorAll("body *:not(svg *, .scroll, .canvas, nav ul, pre)")]
  .filter((e) => e.clientWidth > 0 && getComputedStyle(e).display !== "inline" && e.scrollWidth > e.clientWidth + 1)
  .map((e) => `${e.tagName} ${e.className} ${e.scrollWidth} > ${e.clientWidth}`)
"""


@pytest.mark.parametrize("which", ["nasty", "two"])
def test_nothing_overflows_at_any_width(which, request, browser):
    """Tables, charts and the contents of a small screen scroll in themselves; on a large screen, plain tables fit."""
    path = request.getfixturevalue("two") if which == "two" else request.getfixturevalue("nasty").pages["html"]
    with Visit(browser, path, 380) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        for width in (380, 1024, 1440):
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert visit.page.evaluate(OVERFLOWING) == [], width
        if which == "two":
            scrolled = "(all) => all.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel)"
            assert visit.page.eval_on_selector_all(".scroll", scrolled) == []


def test_a_choice_filters_the_page_and_stays_in_the_address(two, browser):
    with Visit(browser, two, 1440) as visit:
        page = visit.page
        name = "Comparisons with the baseline"
        assert page.locator("figure.chart:visible[data-dataset=e]").count() > 0
        assert page.locator("summary").get_by_text("72 comparisons").count() == 1
        page.locator("select[name=dataset]").select_option("d")
        page.locator("select[name=metric]").select_option("mrr@10")
        assert page.url.endswith("#?dataset=d&metric=mrr%4010")
        assert page.locator("summary").get_by_text("9 of 72 comparisons").count() == 1
        assert {*visit.column(name, 0)} == {"d"}
        assert {*visit.column(name, 1)} == {"MRR@10"}
        assert page.locator("figure.chart:visible[data-dataset=e]").count() == 0
        assert page.get_by_role("heading", name="Results on e").count() == 0
        shown = page.locator("#table-results thead th:visible").all_inner_texts()
        assert [text.split("\n") for text in shown] == [["Model"], ["d", "MRR@10", "Improv."]]
        page.get_by_role("link", name="Link to the table Results on d").click()
        address = page.url
        assert address.endswith("#table-results?dataset=d&metric=mrr%4010")
        page.locator("select[name=dataset]").select_option("")
        assert {*visit.column(name, 0)} == {"d", "e"}
        assert visit.errors == []
    with Visit(browser, two, 1440) as visit:
        visit.page.goto(address)
        assert visit.page.locator("select[name=metric]").input_value() == "mrr@10"
        assert {*visit.column(name, 0)} == {"d"}


def test_a_link_to_a_closed_table_opens_it_and_every_link_has_its_place(two, browser):
    with Visit(browser, two, 1440) as visit:
        page = visit.page
        assert not page.get_by_role("table", name="Cells").is_visible()
        page.goto(f"{two.as_uri()}#table-cells")
        assert page.get_by_role("table", name="Cells").is_visible()
        assert page.locator("#table-cells").evaluate("element => element.getBoundingClientRect().top") < 900
        ids = page.eval_on_selector_all("[id]", "(all) => all.map((element) => element.id)")
        assert len({*ids}) == len(ids)
        targets = page.eval_on_selector_all('a[href^="#"]', "(all) => all.map((a) => a.getAttribute('href').slice(1))")
        assert {*targets} <= {*ids}
        assert {"results", "table-results", "table-comparisons", "chart-forest-d", "chart-forest-e"} <= {*targets}


def test_without_a_script_every_row_and_every_folded_value_is_there(two, browser):
    with Visit(browser, two, 1440, java_script_enabled=False) as visit:
        page = visit.page
        page.locator("summary").get_by_text("72 comparisons").click()
        assert page.locator("#table-comparisons tr.details:visible").count() == 72
        assert not page.locator(".choice").is_visible()


def test_print_shows_what_is_folded_and_leaves_the_controls_out(two, browser):
    with Visit(browser, two, 1000) as visit:
        page = visit.page
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#table-comparisons tr.details:visible").count() == 72
        assert page.locator("nav:visible, select:visible, input:visible, .more:visible").count() == 0
        assert page.evaluate(OVERFLOWING.replace(", .scroll, .canvas, nav ul, pre", "")) == []


def test_tables_are_sorted_filtered_and_unfolded(planted, browser, tmp_path):
    written = write_report(built(planted), tmp_path)
    name = "Comparisons with the baseline"
    with Visit(browser, written.pages["html"], 1440) as visit:
        page = visit.page
        table = page.get_by_role("table", name=name)
        before = visit.column(name, 4)
        button = table.get_by_role("button", name="Difference")
        button.focus()
        page.keyboard.press("Enter")
        numbers = [float(value) for value in visit.column(name, 4)]
        assert numbers == sorted(map(float, before), reverse=True) != [float(value) for value in before]
        assert table.get_by_role("columnheader", name="Difference").get_attribute("aria-sort") == "descending"
        button.click()
        assert [float(value) for value in visit.column(name, 4)] == sorted(map(float, before))
        table.get_by_role("button", name="Model").click()
        assert visit.column(name, 2) == sorted(visit.column(name, 2), reverse=True)
        page.get_by_role("searchbox", name=f"Filter rows of {name}").fill("pop MRR")
        assert set(visit.column(name, 2)) == {"POP"}
        assert visit.column(name, 1) in (["MRR@5", "MRR@10"], ["MRR@10", "MRR@5"])
        assert page.get_by_role("status").filter(has_text="2 of 12 rows").count() == 1
        page.get_by_role("searchbox", name=f"Filter rows of {name}").fill("")
        assert len(visit.column(name, 2)) == 12
        more = table.get_by_role("button", name="Details of d, MRR@10, POP").first
        assert table.locator("tr.details:visible").count() == 0
        more.focus()
        page.keyboard.press("Enter")
        assert more.get_attribute("aria-expanded") == "true"
        assert table.locator("tr.details:visible").all_inner_texts()[0].startswith("dz")
        page.get_by_role("button", name="Show all details").first.click()
        assert table.locator("tr.details:visible").count() == 12
        assert visit.errors == []


@pytest.mark.usefixtures("pictures")
def test_odd_names_neither_break_nor_share_a_file(tmp_path):
    """Brackets are special after the end of a row, control characters end a renderer, and paths lose letters."""
    path = fill(
        tmp_path / "s.duckdb",
        datasets=("[x]", "a b", "a/b", "数据.x", "*s"),
        display=lambda model: f"[m] \x01 ą «q» {model}",
        seeds=(1,),
        users=60,
    )
    written = write_report(built(path), tmp_path, FORMATS)
    assert len(set(written.charts)) == len(written.charts) > 40
    assert all(chart.exists() for chart in written.charts)
    if PDFLATEX:
        done = subprocess.run(
            [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", written.pages["latex"].name],
            cwd=written.main.parent,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert (done.returncode, b"Float too large" in done.stdout) == (0, False)


def test_code_in_a_suites_name_or_override_is_inert_in_markdown(tmp_path):
    report = replace(built(fill(tmp_path / "s.duckdb")), suite="a`<b onclick=x>", overrides=("t=`<img src=x>`",))
    text = write_report(report, tmp_path, ("md",)).main.read_text(encoding="utf-8")
    assert "<b onclick" not in text
    assert "<img" not in text


def page_without_charts(finished: Path) -> tuple[str, str]:
    folder = finished / "reports" / "tiny"
    return (folder / "tiny.html").read_text("utf-8"), (folder / "tiny.md").read_text("utf-8")


def test_without_address_space_for_the_renderer_charts_are_left_out_in_a_sentence(finished):
    """As under `ulimit -v`, which ends V8 and the process around it."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2); sys.argv[1:] = ['report'];"
        " from ipsrec_bench.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=finished,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "Report: reports/tiny/tiny.html\n")
    assert re.fullmatch(r"Charts are left out: .* unlimited address space, and ulimit -v sets a limit\.\n", done.stderr)
    for text in page_without_charts(finished):
        assert "Charts are left out: the chart renderer ended by signal" in text
        assert "<svg" not in text
        assert ".svg" not in text
        assert "SASRec" in text
    assert not (finished / "reports" / "tiny" / ".basis").exists()  # the next run tries again
    assert not [path for path in finished.rglob("core*") if path.is_file()]


@pytest.mark.usefixtures("pictures")
def test_a_chart_that_the_renderer_refuses_is_named_and_the_others_are_drawn(planted, tmp_path, monkeypatch):
    drawn = charts.draw

    def spoilt(name: str, *rest: object) -> Chart:
        chart = drawn(name, *rest)
        return replace(chart, spec={"mark": 7}) if name.startswith("seeds") else chart

    monkeypatch.setattr(charts, "draw", spoilt)
    written = write_report(built(planted), tmp_path, FORMATS)
    assert "These charts are left out: 'Test MRR@10 on d: a point per seed" in written.left_out
    assert "refused it" in written.left_out
    assert written.charts
    assert not [path for path in written.charts if "seeds" in path.name]
    page = parsed(written.pages["html"])
    assert page.scripts == len(written.charts) / 2 + 2


@pytest.mark.usefixtures("pictures")
def test_a_renderer_that_was_killed_while_it_waited_is_started_again(planted, tmp_path):
    report = built(planted)
    first = write_report(report, tmp_path)
    process = renderer._renderer()._process
    process.kill()
    second = write_report(report, tmp_path)
    assert (second.left_out, len(second.charts)) == ("", len(first.charts))


@pytest.mark.usefixtures("pictures")
def test_a_chart_that_ends_the_renderer_is_left_out_alone(planted, tmp_path, monkeypatch):
    mortal = """
import json, sys
for number, line in enumerate(sys.stdin):
    if number == 2:
        sys.exit(3)
    print(json.dumps(["<svg/>" if json.loads(line)[0] == "svg" else "JVBERg==", None]), flush=True)
"""

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", mortal], stdin=pipe, stdout=pipe, encoding="utf-8")

    report = built(planted)
    monkeypatch.setattr(renderer, "_start", start)
    renderer._renderer().stop()
    written = write_report(report, tmp_path, ("md",))
    renderer._renderer().stop()
    drawn = len(written.charts) // 2
    assert drawn == (len(charts_of(report)) + 1) // 2  # every second one
    assert written.left_out.startswith("These charts are left out: 'MRR@10 on d: difference to SASREC")
    assert "the chart renderer ended with code 3; there may be too little memory" in written.left_out


def test_a_full_disk_is_a_sentence_and_leaves_the_page_that_was_there(finished, bench):
    """The limit of a file's size stands in for it: the system refuses the rest of a write."""
    before = {path.name: path.read_bytes() for path in (finished / "reports" / "tiny").iterdir() if path.name[0] != "."}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        done = bench("report", "tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.returncode == 2
    assert "reports/tiny: the report cannot be written there: File too large; files of an earlier one" in done.stderr
    assert {path.name: path.read_bytes() for path in (finished / "reports" / "tiny").iterdir()} == before
