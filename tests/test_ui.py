"""The browser: what a person reads after which key."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import CellStarted, EpochDone, RunPlanned, RunStarted
from ipsrec_bench.run.journal import Journal
from ipsrec_bench.store.connect import writing

from .planted import ROWS, built, fill
from .test_store import held_by_another_process

pytest.importorskip("textual")

from ipsrec_bench.ui.app import THEMES, Browser
from ipsrec_bench.ui.plots import Series, chart
from ipsrec_bench.ui.widgets import Lines

PICTURES = Path(__file__).parent / "fixtures" / "ui"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two suites, one of them with a failed cell and a missing one; all its times are fixed."""
    path = tmp_path_factory.mktemp("ui") / "results.duckdb"
    fill(path, datasets=("books", "films"), errors=[("sasrec", 2)], leave_out=[("ipsrec-s", 3)], users=60)
    with writing(path) as connection:
        connection.execute("UPDATE runs SET suite = 'first'")
    fill(path, users=60)
    with writing(path) as connection:
        connection.execute("UPDATE runs SET started = TIMESTAMP '2026-01-02 03:04:05' + run * INTERVAL 1 HOUR")
    return path


@pytest.fixture(autouse=True)
def _no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSH_CONNECTION", "there 1 here 22")


def never_written(suite: str) -> Path:
    raise BenchError(f"{suite}: the report cannot be written there: Disk full")


class Seen:
    """A browser after some keys."""

    def __init__(self, app: Browser) -> None:
        strips = app.screen._compositor.render_strips()
        self.lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
        self.text = "\n".join(self.lines)
        self.words = " ".join(self.text.split())
        self.app = app

    def __contains__(self, words: str) -> bool:
        return words in self.words


def seen(
    store: Path,
    *keys: str,
    size: tuple[int, int] = (110, 30),
    suite: str | None = None,
    write_report: Callable[[str], Path] = never_written,
    before: Callable[[Browser], None] = lambda _: None,
) -> Seen:
    """Open the browser, press keys, and look."""

    async def look() -> Seen:
        app = Browser(store, write_report, suite)
        before(app)
        async with app.run_test(size=size) as pilot:

            async def settle() -> None:
                for _ in range(3):  # what one thread has read may begin another one
                    await pilot.pause()
                    await app.workers.wait_for_complete()
                await pilot.pause()

            await settle()
            for key in keys:
                await pilot.press(key)
                await settle()
            return Seen(app)

    return asyncio.run(look())


def test_the_first_screen_lists_the_suites_with_their_progress(store):
    screen = seen(store)
    assert re.search(r"planted +━+ +12/12 +2026-01-02 05:04", screen.text)
    assert re.search(r"first +━+─* +20/24 +2 +2026-01-02 04:04", screen.text)


def test_enter_opens_the_suite_and_escape_goes_back(store):
    assert "planted · run 2 of 2026-01-02 05:04 UTC · 12 of 12 complete" in seen(store, "enter")
    assert "complete failed last run" in seen(store, "enter", "escape")


def test_a_suite_may_be_named_at_the_start(store):
    screen = seen(store, suite="first")
    assert "first · run 1 of 2026-01-02 04:04 UTC · 20 of 24 complete · 2 failed" in screen
    for line in (r"books +pop +1 +✓ done", r"books +sasrec +2 +✗ failed", r"films +ipsrec-s +3 +· missing"):
        assert re.search(line, screen.text), line


def test_a_failed_cell_shows_its_log(store):
    assert "MemoryError: too big" in seen(store, "6", "enter", suite="first")


def test_the_tables_show_the_numbers_of_the_report(store):
    screen = seen(store, "3", suite="planted", size=(200, 50))
    for line in built(store, "planted").results.lines:
        for cell in line.cells:
            assert f"{cell.score.mean:.4f}" in screen


def test_the_next_table_follows_with_n(store):
    assert "parameters" in seen(store, "3", "n", suite="planted")
    assert "interactions" in seen(store, "3", "n", "n", suite="planted")


def test_a_comparison_opens_with_every_statistic_of_its_pair(store):
    report = built(store, "planted")
    first = report.comparisons[0]
    screen = seen(store, "4", "enter", suite="planted", size=(200, 50))
    same = [c for c in report.comparisons if (c.row, c.reference) == (first.row, first.reference)]
    for comparison in same:
        assert f"{comparison.mean:.4f}" in screen
        assert f"{comparison.detectable:.4f}" in screen


def test_two_marked_rows_are_compared_as_the_command_does(store, bench):
    printed = bench("compare", "pop", "sasrec", "--suite", "planted", "--store", store).stdout
    screen = seen(store, "c", "down", "c", suite="planted", size=(200, 60))
    assert "pop against sasrec" in screen
    numbers = re.findall(r"[-+<]?\d[\d.,]*%?", printed.split("common")[1])
    assert len(numbers) > 60
    assert not [number for number in numbers if number not in screen]


def test_what_cannot_be_compared_says_why(store):
    screen = seen(store, "c", "6", "7", "c", suite="first", size=(200, 50))
    assert "'pop' and 'first@1' are not of a kind" in screen


def test_escape_forgets_the_mark(store):
    marked = seen(store, "c", suite="planted")
    assert "A is 'pop'" in marked
    forgotten = seen(store, "c", "escape", "down", "c", suite="planted")
    assert "A is 'sasrec'" in forgotten


def test_the_filter_keeps_lines_with_all_words(store):
    screen = seen(store, "slash", *"sasrec 2", suite="first")
    shown = [line for line in screen.lines if re.search(r"^ (books|films) ", line)]
    assert [line.split()[1:3] for line in shown] == [["sasrec", "2"]] * 2
    assert "2 lines have 'sasrec 2'" in screen
    assert "films pop" in seen(store, "slash", *"sasrec", "escape", suite="first")


def test_curves_are_drawn_of_the_row_under_the_cursor(store):
    drawn = seen(store, "5", "down", suite="planted")
    assert "sasrec on d, validation MRR@10: seed 1 seed 2 seed 3" in drawn
    assert "training loss" in seen(store, "5", "l", suite="planted")


def test_an_older_run_is_opened_from_the_list_of_runs(tmp_path):
    path = fill(tmp_path / "two.duckdb", users=30)
    with writing(path) as connection:
        connection.execute(
            "INSERT INTO runs SELECT 2, suite, settings, text, ['seeds=[1]'], started FROM runs;"
            "INSERT INTO run_cells SELECT 2, position, key, dataset, model, title, type, variant, seed"
            " FROM run_cells WHERE seed = 1"
        )
    newest = seen(path, "7", suite="planted")
    assert re.search(r"2 +\d{4}-.* 4/4 +seeds=\[1\]", newest.text)
    older = seen(path, "7", "down", "enter", suite="planted")
    assert "12 of 12 complete · there is a newer run" in older
    assert "Reports are on the newest run" in seen(path, "7", "down", "enter", "o", suite="planted")


def test_a_store_that_is_not_there_is_a_sentence_until_it_is(tmp_path):
    path = tmp_path / "later.duckdb"
    assert "there is no result store yet" in seen(path)

    def fill_it(_: Browser) -> None:
        fill(path, users=30)

    assert "12/12" in seen(path, "r", before=fill_it)


def test_a_locked_store_is_a_sentence(store, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.ui.reading.PATIENCE_SECONDS", 0.1)
    with held_by_another_process(store):
        screen = seen(store)
    assert "locked by another process" in screen


def test_a_running_suite_is_followed_through_its_journal(store):
    key = "bookspop1"
    with Journal(store, "first") as journal:
        journal.write(RunStarted("first", "The first suite", 24, 20, metric="hr@10"))
        journal.write(RunPlanned(((key, "books", "pop", 1, "queued"),)))
        journal.write(CellStarted(key, "books", "pop", 1, epochs=9, stop_metric="mrr@10"))
        journal.write(EpochDone(key, "books", "pop", 1, 3, 0.5, 0.25, 0.0, 0.3, 1.0, 100.0))
        suites, progress, cells, log = (
            seen(store),
            seen(store, suite="first"),
            seen(store, "2", suite="first"),
            seen(store, "6", "down", "down", "enter", suite="first"),
        )
    assert re.search(r"first +running", suites.text)
    assert "The first suite" in progress
    assert "4/9" in progress
    assert "complete · 2 failed · running" in cells
    assert "epoch 4/9" in cells
    assert "books, pop, seed 1: started" in log
    assert "running" not in seen(store).text


def test_the_report_is_written_and_its_place_is_shown_where_there_is_no_display(store, tmp_path):
    page = tmp_path / "planted.html"
    screen = seen(store, "o", suite="planted", write_report=lambda suite: page if suite == "planted" else Path(suite))
    assert page.name in "".join(screen.text.split())
    assert "no display here" in screen
    assert "cannot be written there: Disk full" in seen(store, "o", suite="planted")


def test_the_report_is_opened_where_there_is_a_display(store, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.setenv("DISPLAY", ":0")
    opened: list[str] = []
    page = tmp_path / "planted.html"
    seen(
        store,
        "o",
        suite="planted",
        write_report=lambda _: page,
        before=lambda app: setattr(app, "open_url", opened.append),
    )
    assert opened == [page.resolve().as_uri()]


def test_the_help_names_every_key_of_the_footer(store):
    screen = seen(store, "question_mark")
    for key in ("Enter", "Tab", "Escape", "c ", "o ", "/", "r ", "q "):
        assert key in screen.text
    assert "quits; a run that is followed goes on" in screen


def test_the_theme_is_switched(store):
    assert seen(store).app.theme == THEMES[0]
    assert seen(store, "t").app.theme == THEMES[1]
    assert seen(store, "t", "t").app.theme == THEMES[0]


def test_names_that_would_act_on_a_terminal_are_written_out(tmp_path):
    path = fill(tmp_path / "nasty.duckdb", datasets=("\x1b[31mred",), users=30)
    assert "\\x1b[31mred" in seen(path, suite="planted")


@pytest.mark.parametrize("size", [(80, 24), (110, 30), (200, 50)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "keys"), [("suites", ()), ("cells", ("enter",)), ("curves", ("enter", "5"))])
def test_the_screens_look_as_they_did(store, monkeypatch, name, keys, size):
    """To accept new pictures, run this test with IPSREC_BENCH_NEW_PICTURES=1 and look at what has changed."""
    wanted = PICTURES / f"{name}-{size[0]}x{size[1]}.txt"
    monkeypatch.chdir(store.parent)
    screen = seen(Path(store.name), *keys, size=size)
    if os.environ.get("IPSREC_BENCH_NEW_PICTURES"):
        wanted.parent.mkdir(exist_ok=True)
        wanted.write_text(screen.text + "\n", encoding="utf-8")
    assert screen.text + "\n" == wanted.read_text(encoding="utf-8")


def test_nothing_stands_beyond_the_edge_of_a_narrow_terminal(store):
    screen = seen(store, suite="planted", size=(80, 24))
    assert "q Quit" in screen.lines[-1]
    assert len(screen.lines) == 24


def test_a_chart_goes_from_its_least_to_its_greatest_value():
    text = chart([Series(((1, 0.0), (2, 1.0), (3, 4.0)), "")], 40, 8, "epoch").plain.splitlines()
    assert text[0].split()[0] == "4"
    assert text[5].split()[0] == "0"
    assert text[-1].split() == ["1", "epoch", "3"]
    assert "⠁" <= text[0].rstrip()[-1] <= "⣿"
    assert not chart([], 40, 8, "epoch")
    assert not chart([Series(((1, 1.0),), "")], 10, 8, "epoch")


def test_a_table_stays_on_its_line_when_others_appear(store):
    screen = seen(store, "down", "down", "r", suite="planted")
    assert screen.app.screen.query_one("#cells-lines", Lines).current.name == ROWS[2][0]


def test_the_command_needs_a_terminal(bench):
    asked = bench("ui")
    assert asked.returncode == 2
    assert "needs a terminal" in asked.stderr
    assert len(asked.stderr.strip().splitlines()) == 1


def test_the_command_names_the_package_that_is_missing(bench, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.cli.ui.find_spec", lambda _: None)
    asked = bench("ui")
    assert asked.returncode == 2
    assert "pip install 'ipsrec-bench[ui]'" in asked.stderr


