"""The browser: keys in, screens out."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import CellStarted, EpochDone, RunPlanned, RunStarted
from ipsrec_bench.report import build, selections
from ipsrec_bench.report.content import Report
from ipsrec_bench.run.journal import Journal
from ipsrec_bench.store.connect import writing
from ipsrec_bench.store.queries import CurvePoint

from .planted import built, fill
from .test_store import held_by_another_process

pytest.importorskip("textual")

from ipsrec_bench.ui.app import THEMES, Browser
from ipsrec_bench.ui.plots import LOSS, VALIDATION, Series, chart, curve, kinds_of
from ipsrec_bench.ui.reading import read_comparison, read_content

PICTURES = Path(__file__).parent / "fixtures" / "ui"
SIZES = ((80, 24), (110, 30), (200, 50))
FAST = "resamples = 100"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two suites, one of them with a failed cell and a missing one; all its times are fixed."""
    path = tmp_path_factory.mktemp("ui") / "results.duckdb"
    fill(
        path,
        datasets=("books", "films"),
        errors=[("sasrec", 2)],
        leave_out=[("ipsrec-s", 3)],
        users=60,
        statistics=FAST,
    )
    with writing(path) as connection:
        connection.execute("UPDATE runs SET suite = 'first'")
    fill(path, users=60, statistics=FAST)
    with writing(path) as connection:
        connection.execute("UPDATE runs SET started = TIMESTAMP '2026-01-02 03:04:05' + run * INTERVAL 1 HOUR")
    return path


@pytest.fixture(scope="module")
def report(store: Path) -> Report:
    """The report on the suite `planted`."""
    return built(store, "planted")


@pytest.fixture(scope="module", autouse=True)
def _no_display():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NO_COLOR", raising=False)
        patch.setenv("SSH_CONNECTION", "there 1 here 22")
        yield


def never_written(suite: str) -> Path:
    raise BenchError(f"{suite}: the report cannot be written there: Disk full")


class Seen:
    """A browser at some time."""

    def __init__(self, app: Browser) -> None:
        strips = app.screen._compositor.render_strips()
        self.lines = ["".join(segment.text for segment in strip).rstrip() for strip in strips]
        self.text = "\n".join(self.lines)
        self.words = " ".join(self.text.split())
        self.theme = app.theme

    def __contains__(self, words: str) -> bool:
        return words in self.words


FOLLOWED = 1.5
"""Seconds after which a browser has read what is in a journal: its timers run a few times a second."""


def tour(
    store: Path,
    *steps: str | tuple[int, int],
    size: tuple[int, int] = (110, 30),
    suite: str | None = None,
    write_report: Callable[[str], Path] = never_written,
    before: Callable[[Browser], None] = lambda _: None,
    wait: float = 0.0,
) -> list[Seen]:
    """Open the browser, and look at it now and after each step: keys with blanks between them, or a new size.

    A journal is followed by threads and timers, which need `wait` seconds before each look.
    """

    async def walk() -> list[Seen]:
        app = Browser(store, write_report, suite)
        before(app)
        async with app.run_test(size=size) as pilot:

            async def look() -> Seen:
                for _ in range(2):  # what one thread has read may begin another one
                    await pilot.pause()
                    await app.workers.wait_for_complete()
                await pilot.pause(wait or None)
                return Seen(app)

            found = [await look()]
            for step in steps:
                if isinstance(step, str):
                    await pilot.press(*step.split())
                else:
                    await pilot.resize_terminal(*step)
                found.append(await look())
            return found

    return asyncio.run(walk())


PLANTED = {
    "suites": "", "cells": "enter", "A": "c", "other A": "escape down c", "compared": "down c", "back": "escape",
    "tables": "3", "costs": "n", "datasets": "n", "comparisons": "4", "comparison": "enter",
    "curves": "escape 5 down", "loss": "l", "help": "question_mark", "no report": "escape o", "light": "t",
    "dark": "t", "suites again": "escape",
}  # fmt: skip
"""Where the keys lead from the first screen, one step after the other."""


@pytest.fixture(scope="module")
def planted(store: Path) -> dict[str, Seen]:
    """The screens of the suite `planted`."""
    return dict(zip(PLANTED, tour(store, *list(PLANTED.values())[1:], size=(200, 60)), strict=True))


FIRST = {
    "cells": "", "filtered": "slash f i l m s space f a i l e d", "all": "escape", "log": "6 enter", "runs": "escape 7",
    "only one is a run": "2 c 7 c",
}  # fmt: skip


@pytest.fixture(scope="module")
def first(store: Path) -> dict[str, Seen]:
    """The screens of the suite `first`."""
    return dict(zip(FIRST, tour(store, *list(FIRST.values())[1:], size=(110, 40), suite="first"), strict=True))


def test_the_first_screen_lists_the_suites_with_their_progress(planted):
    assert re.search(r"planted +━+ +12/12 +2026-01-02 05:04", planted["suites"].text)
    assert re.search(r"first +━+─* +20/24 +2 +2026-01-02 04:04", planted["suites"].text)


def test_enter_opens_the_suite_and_escape_goes_back(planted):
    assert "planted · run 2 of 2026-01-02 05:04 UTC · 12 of 12 complete" in planted["cells"]
    assert planted["suites again"].lines[:4] == planted["suites"].lines[:4]


def test_a_suite_may_be_named_at_the_start(first):
    assert "first · run 1 of 2026-01-02 04:04 UTC · 20 of 24 complete · 2 failed" in first["cells"]
    for line in (r"books +pop +1 +✓ done", r"books +sasrec +2 +✗ failed", r"films +ipsrec-s +3 +· missing"):
        assert re.search(line, first["cells"].text), line


def test_a_failed_cell_shows_its_log(first):
    assert "sasrec · films · seed 2" in first["log"]
    assert "MemoryError: too big" in first["log"]


def test_the_tables_show_the_numbers_of_the_report(report, planted):
    for line in report.results.lines:
        for cell in line.cells:
            assert f"{cell.score.mean:.4f}" in planted["tables"]
    assert "parameters" in planted["costs"]
    assert "interactions" in planted["datasets"]


def test_a_comparison_opens_with_every_statistic_of_its_pair(report, planted):
    first = report.comparisons[0]
    same = [c for c in report.comparisons if (c.row, c.reference) == (first.row, first.reference)]
    for comparison in same:
        assert f"{comparison.mean:.4f}" in planted["comparison"]
        assert f"{comparison.detectable:.4f}" in planted["comparison"]


def test_two_marked_rows_are_compared_as_the_command_does(store, planted, bench):
    printed = bench("compare", "sasrec", "ipsrec-s", "--suite", "planted", "--store", store).stdout
    assert "sasrec against ipsrec-s" in planted["compared"]
    numbers = re.findall(r"[-+<]?\d[\d.,]*%?", printed.split(" users, ")[1])
    assert len(numbers) > 60
    assert not [number for number in numbers if number not in planted["compared"]]


def test_escape_forgets_the_mark(planted):
    assert "A is 'pop'" in planted["A"]
    assert "A is 'sasrec'" in planted["other A"]


def test_a_refused_comparison_gives_the_reason(first):
    assert "only one of 'sasrec' and 'first@1' is a run" in first["only one is a run"]


def test_the_filter_keeps_lines_with_all_words(first):
    shown = [line.split()[:3] for line in first["filtered"].lines if re.search(r"^ (books|films) +\S+ +\d", line)]
    assert shown == [["films", "sasrec", "2"]]
    assert "1 line has 'films failed'" in first["filtered"]
    assert "films pop" in first["all"]


def test_curves_are_drawn_of_the_row_under_the_cursor(planted):
    assert "sasrec on d, validation MRR@10: seed 1 seed 2 seed 3" in planted["curves"]
    assert "sasrec on d, training loss" in planted["loss"]


def test_the_help_names_every_key_of_the_footer(planted):
    for key in ("Enter", "Tab", "Escape", "c ", "o ", "/", "r ", "q "):
        assert key in planted["help"].text
    assert "quits; a run that is followed goes on" in planted["help"]


def test_a_report_that_cannot_be_written_is_a_sentence(planted):
    assert "cannot be written there: Disk full" in planted["no report"]


def test_the_theme_is_switched(planted):
    assert [planted[name].theme for name in ("help", "light", "dark")] == [THEMES[0], THEMES[1], THEMES[0]]


def test_an_older_run_is_opened_from_the_list_of_runs(tmp_path):
    path = fill(tmp_path / "two.duckdb", users=30)
    with writing(path) as connection:
        connection.execute(
            "INSERT INTO runs (run, suite, settings, text, overrides, started)"
            " SELECT 2, suite, settings, text, ['seeds=[1]'], started FROM runs;"
            "INSERT INTO run_cells (run, position, key, dataset, model, title, type, variant, seed)"
            " SELECT 2, position, key, dataset, model, title, type, variant, seed FROM run_cells WHERE seed = 1"
        )
    _, newest, older, report = tour(path, "7", "down enter", "o", suite="planted")
    assert re.search(r"2 +\d{4}-.* 4/4 +seeds=\[1\]", newest.text)
    assert "12 of 12 complete · there is a newer run" in older
    assert "Reports are on the newest run" in report


def test_a_missing_store_is_an_error_in_one_sentence(tmp_path):
    assert "there is no result store yet" in tour(tmp_path / "later.duckdb")[0]


def test_control_c_quits(tmp_path):
    async def leave() -> int | None:
        app = Browser(tmp_path / "later.duckdb", never_written)
        async with app.run_test() as pilot:
            await pilot.press("ctrl+c")
            return app.return_code

    assert asyncio.run(leave()) == 0


def test_a_locked_store_is_a_sentence_until_it_is_free(store, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.ui.reading.PATIENCE_SECONDS", 0.1)
    with held_by_another_process(store):
        locked = tour(store)[0]
    assert "locked by another process" in locked


def test_a_running_suite_is_followed_through_its_journal(store):
    key = "bookspop1"
    cell = {"key": key, "dataset": "books", "label": "pop", "seed": 1}
    with Journal(store, "first") as journal:
        journal.write(RunStarted("first", "The first suite", 24, 20, metric="hr@10"))
        journal.write(RunPlanned(((key, "books", "pop", 1, "queued"),)))
        journal.write(CellStarted(**cell, epochs=9, stop_metric="mrr@10"))
        journal.write(EpochDone(**cell, epoch=3, loss=0.5, valid=0.25, targets_per_second=100.0))
        suites, progress, cells, log = tour(store, "down enter", "2", "6 down down enter", wait=FOLLOWED)
    assert re.search(r"first +running", suites.text)
    assert "The first suite" in progress
    assert "4/9" in progress
    assert "complete · 2 failed · running" in cells
    assert "epoch 4/9" in cells
    assert "books, pop, seed 1: started" in log


def test_a_stage_before_the_main_one_is_named(store):
    cell = {"key": "k", "dataset": "books", "label": "pop", "seed": 1}
    with Journal(store, "first") as journal:
        journal.write(RunStarted("first", "The first suite", 1, 0, metric="hr@10"))
        journal.write(RunPlanned((("bookspop1", "books", "pop", 1, "queued"),)))
        cell["key"] = "bookspop1"
        stages = (("pretrain", 9), ("main", 90))
        journal.write(CellStarted(**cell, epochs=99, stop_metric="mrr@10", stages=stages))
        journal.write(EpochDone(**cell, epoch=3, loss=0.5, valid=None, targets_per_second=1.0, stage="pretrain", of=9))
        _, progress, cells = tour(store, "down enter", "2", wait=FOLLOWED)
    assert "pretrain 4/9" in progress
    assert "pretrain 4/9" in cells


def test_the_curves_of_a_cell_are_those_of_its_stages_and_tasks():
    staged = [
        CurvePoint("k", 1, 3.0, None, "warm", {"next-item": 2.0, "b": 1.0}),
        CurvePoint("k", 1, 2.0, 0.5, losses={"next-item": 2.0}),
        CurvePoint("k", 2, 1.0, 0.75, losses={"next-item": 1.0}),
    ]
    assert [(kind.named("mrr@10"), curve(staged, kind)) for kind in kinds_of(staged)] == [
        ("validation MRR@10", ((1.0, 0.5), (2.0, 0.75))),
        ("training loss", ((1.0, 2.0), (2.0, 1.0))),
        ("warm, training loss", ((1.0, 3.0),)),
        ("warm, loss of next-item", ((1.0, 2.0),)),
        ("warm, loss of b", ((1.0, 1.0),)),
    ]
    assert kinds_of(staged[1:]) == [VALIDATION, LOSS]
    parts = kinds_of([CurvePoint("k", 1, 3.0, 0.5, losses={"next-item": 2.0, "penalty": 1.0})])
    assert [kind.named("mrr@10") for kind in parts[2:]] == ["loss of next-item", "loss of penalty"]


def test_the_place_of_the_report_is_shown_where_there_is_no_display(store, tmp_path):
    page = tmp_path / "planted.html"
    screen = tour(store, "o", suite="planted", write_report=page.with_stem, size=(80, 24))[1]
    assert str(page) in "".join(screen.text.split()).replace("│", "")
    assert "no display here" in screen


def test_the_report_is_opened_where_there_is_a_display(store, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.setenv("DISPLAY", ":0")
    opened: list[str] = []
    page = tmp_path / "planted.html"
    tour(store, "o", write_report=lambda _: page, before=lambda app: setattr(app, "open_url", opened.append))
    assert opened == [page.resolve().as_uri()]


def test_names_are_shown_as_they_are_and_leave_room_for_the_numbers(tmp_path):
    rows = [("pop", "[red]x[/]"), ("pop", "\u202ecba"), ("pop", "🎲"), ("pop", "long " * 30)]
    path = fill(tmp_path / "nasty.duckdb", datasets=("\x1b[31mred",), rows=rows, seeds=(1,), users=30)
    small, wide = tour(path, (200, 30), suite="planted", size=(80, 24))
    for name in (r"pop \[red\]x\[/\]", r"pop \\u202ecba", "pop 🎲", "pop long long .*…"):
        assert re.search(rf"^ \\x1b\[31mred +{name} +1  ✓ done", small.text, re.MULTILINE), name
    assert len(re.findall("long", wide.text)) > len(re.findall("long", small.text))


@pytest.fixture(scope="module")
def sizes(store: Path) -> dict[str, Seen]:
    """Three screens, each of them while the terminal becomes smaller."""
    names, steps = [], []
    for screen, key in (("suites", "r"), ("cells", "enter"), ("curves", "5")):
        for across, down in reversed(SIZES):
            names.append(f"{screen}-{across}x{down}")
            steps += [key, (across, down)] if (across, down) == SIZES[-1] else [(across, down)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store.parent)
        _, *seen = tour(Path(store.name), *steps)
    sized = [one for one, step in zip(seen, steps, strict=True) if not isinstance(step, str)]
    return dict(zip(names, sized, strict=True))


@pytest.mark.parametrize("name", sorted(path.stem for path in PICTURES.glob("*.txt")))
def test_the_screens_look_as_they_did(sizes, name):
    """To accept new pictures, run this test with IPSREC_BENCH_NEW_PICTURES=1 and look at the difference."""
    picture = PICTURES / f"{name}.txt"
    if os.environ.get("IPSREC_BENCH_NEW_PICTURES"):
        picture.write_text(sizes[name].text + "\n", encoding="utf-8")
    assert sizes[name].text + "\n" == picture.read_text(encoding="utf-8")


def test_the_picture_in_the_documentation_is_true():
    page = (PICTURES.parents[2] / "docs" / "how-to" / "ui.md").read_text(encoding="utf-8")
    shown = re.search(r"```text title=.*\n([^`]*)```", page)[1]
    picture = (PICTURES / "cells-80x24.txt").read_text(encoding="utf-8")
    assert shown.splitlines() == [line for line in picture.splitlines() if line]


def test_the_store_is_closed_while_statistics_are_made(store, monkeypatch):
    made = []

    def watched(real):
        def statistics(*arguments, **named):
            with writing(store, patience=0.0):  # refused while it is open for reading
                made.append(True)
            return real(*arguments, **named)

        return statistics

    monkeypatch.setattr(build, "build_report", watched(build.build_report))
    monkeypatch.setattr(selections, "compare", watched(selections.compare))
    read_content(store, "planted", 2)
    read_comparison(store, "planted", None, "pop", "sasrec")
    assert len(made) >= 2


def test_a_chart_goes_from_its_least_to_its_greatest_value():
    text = chart([Series(((1, 0.0), (2, 1.0), (3, 4.0)), "")], 40, 8, "epoch").plain.splitlines()
    assert text[0].split()[0] == "4"
    assert text[5].split()[0] == "0"
    assert text[-1].split() == ["1", "epoch", "3"]
    assert "⠁" <= text[0].rstrip()[-1] <= "⣿"
    assert not chart([], 40, 8, "epoch")
    assert not chart([Series(((1, 1.0),), "")], 10, 8, "epoch")


def test_the_command_needs_a_terminal(bench):
    asked = bench("ui")
    assert asked.returncode == 2
    assert "needs a terminal" in asked.stderr
    assert len(asked.stderr.strip().splitlines()) == 1


def test_the_command_names_the_package_that_is_missing(bench, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.extras.find_spec", lambda _: None)
    asked = bench("ui")
    assert asked.returncode == 2
    assert "pip install 'ipsrec-bench[ui]'" in asked.stderr
