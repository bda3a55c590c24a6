"""The dashboard and the plain log: events in, text out."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from ipsrec_bench.cli.listen import listener
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    RunFinished,
    RunStarted,
    SearchStarted,
    StepDone,
    StoreBusy,
    TrialEnded,
)
from ipsrec_bench.tui.dashboard import clock, dashboard, sparkline
from ipsrec_bench.tui.plain import plain_line
from ipsrec_bench.tui.state import RunState, fold

A, B = ("a", "data", "sasrec", 1), ("b", "data", "pop", 1)
STREAM = [
    (DatasetReady("data", 10, 5, 2, 40, 0.1), 1.0),
    (RunStarted("s", "My suite", cells=5, skipped=1), 2.0),
    (CellStarted(*B, epochs=1, stop_metric="mrr@10"), 2.0),
    (CellFailed(*B, error="ValueError: no", seconds=1.0), 12.0),
    (CellStarted(*A, epochs=10, stop_metric="mrr@10"), 12.0),
    (StepDone(*A, epoch=1, step=5, steps=10, loss=4.5, targets_per_second=1234.0), 13.0),
    (EpochDone(*A, epoch=1, loss=4.25, valid=0.1, targets_per_second=1300.0), 14.0),
    (EpochDone(*A, epoch=2, loss=4.0, valid=0.2, targets_per_second=1300.0), 15.0),
]


def state_after(events):
    state = RunState(began=0.0)
    for event, now in events:
        state = fold(state, event, now)
    return state


def shown(state, now=22.0, width=100, height=40) -> str:
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(dashboard(state, now, height))
    return capture.get()


def test_the_picture_shows_progress_cells_and_failures():
    text = shown(state_after(STREAM))
    assert "My suite" in text
    assert "2/5 cells · 1 already done · 0:20 elapsed · about 0:46 left · 1 failed" in text
    assert "sasrec · data" in text
    assert "3/10" in text
    assert "4.0000" in text
    assert "▁█" in text
    assert "0.2000" in text
    assert "1,300" in text
    assert "pop · data" in text
    assert "pop, seed 1: ValueError: no" in text


def test_progress_within_an_epoch_counts():
    state = state_after(STREAM[:6])
    assert state.running["a"].progress == 0.05
    assert state.remaining_seconds(12.5) == 10.5 * (4 - 1.05) / 1.05


def test_finished_cells_leave_the_running_table_and_old_ones_scroll_away():
    events = [*STREAM, (CellFinished(*A, metrics={"hr@5": 0.5, "hr@10": 0.75}, best_epoch=2, seconds=4.0), 16.0)]
    text = shown(state_after(events))
    assert "hr@10" in text
    assert "0.7500" in text
    assert "Running" not in text
    many = state_after(events + [(CellFinished(*A, {"hr@10": 0.1}, 1, 1.0), 17.0)] * 50)
    text = shown(many, height=30)
    assert "earlier not shown" in text
    assert len(text.splitlines()) <= 30


def test_waiting_for_the_store_is_said_until_the_cell_is_in():
    waiting = state_after([*STREAM, (StoreBusy("the store is locked by PID 7"), 16.0)])
    assert "Waiting: the store is locked by PID 7" in shown(waiting)
    done = fold(waiting, CellFinished(*A, {"hr@10": 0.1}, 1, 1.0), 18.0)
    assert "Waiting" not in shown(done)


TRIALS = [
    (SearchStarted("Tuning ipsrec-c on data", "mrr@10", 8, None, 2, 30.0, 0.3, "lambda = 0.1, tau = 1"), 0.0),
    (CellStarted("trial-2", "data", "ipsrec-c (lambda = 0.5)", 1, epochs=10, stop_metric="mrr@10"), 0.0),
    (CellStarted("trial-3", "data", "ipsrec-c (lambda = 0.2)", 1, epochs=10, stop_metric="mrr@10"), 0.0),
    (EpochDone("trial-2", "data", "ipsrec-c (lambda = 0.5)", 1, 1, 4.0, 0.2, 900.0), 4.0),
    (TrialEnded("trial-2", 2, "lambda = 0.5", "pruned", None, 1, 5.0), 5.0),
    (TrialEnded("trial-3", 3, "lambda = 0.2", "complete", 0.4, 10, 10.0), 10.0),
    (CellStarted("trial-4", "data", "ipsrec-c (lambda = 0.7)", 1, epochs=10, stop_metric="mrr@10"), 10.0),
    (TrialEnded("trial-4", 4, "lambda = 0.7", "failed", None, 0, 1.0, "no memory"), 11.0),
    (CellStarted("trial-5", "data", "ipsrec-c (lambda = 0.3)", 1, epochs=10, stop_metric="mrr@10"), 11.0),
]


def test_a_search_shows_its_trials_the_best_so_far_and_the_time_left():
    text = shown(state_after(TRIALS), now=12.0, width=120)
    assert "Tuning ipsrec-c on data" in text
    facts = "4/8 trials · 2 already there · 1 pruned · 1 failed · 1 running · 0:12 elapsed"
    # Two and a half trials in 12 s, three and a half are left.
    assert f"{facts} · about 0:16 left" in text
    assert "Best so far: 0.4000 with lambda = 0.2" in text
    assert "ipsrec-c (lambda = 0.3) · data" in text
    assert "ipsrec-c (lambda = 0.5)" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "2 lambda = 0.5 pruned 1 0:05" in lines
    assert "3 lambda = 0.2 0.4000 10 0:10" in lines
    assert "trial 4: no memory" in lines
    assert "Best so far: 0.3000 with lambda = 0.1, tau = 1" in shown(state_after(TRIALS[:5]))


def test_a_search_over_time_shows_how_much_of_it_is_left():
    by_time = SearchStarted("t", "mrr@10", None, 100.0, 2, 30.0, None, "")
    text = shown(state_after([(by_time, 0.0), *TRIALS[1:]]), now=21.0, width=140)
    # 30 s before, 16 s of trials that ended, 10 s of the one that runs.
    assert "0:56 of 1:40 of training · about 0:44 left" in text
    many = state_after([(by_time, 0.0), *[(TrialEnded(f"trial-{n}", n, "x = 1", "pruned", None, 1, 1.0), 1.0)
                                          for n in range(50)]])  # fmt: skip
    text = shown(many, height=30)
    assert "earlier not shown" in text
    assert len(text.splitlines()) <= 30


def test_the_next_search_begins_anew():
    state = state_after([*TRIALS, (SearchStarted("Tuning sasrec", "mrr@10", 8, None, 0, 0.0, None, ""), 20.0)])
    text = shown(state, now=20.0)
    assert "0/8 trials · 0:00 elapsed" in text
    assert "lambda" not in text


def test_plain_lines_of_a_search():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    lines = [(plain_line(event, now) or "").removeprefix("2026-01-02 03:04:05 ") for event, _ in TRIALS]
    assert lines[0] == "Tuning ipsrec-c on data: 8 trials; 2 trials in 30.0 s so far"
    assert lines[4] == "trial 2 (lambda = 0.5): pruned after 1 epochs, 5.0 s"
    assert lines[5] == "trial 3 (lambda = 0.2): complete, 0.4000 after 10 epochs, 10.0 s"
    assert lines[7] == "trial 4 (lambda = 0.7): failed after 0 epochs, 1.0 s: no memory"


def test_names_with_markup_are_shown_as_they_are():
    name = ("a", "[bold]d[/bold]", "[red]m", 1)
    text = shown(state_after([(RunStarted("s", "[link]t", 1, 0), 0.0), (CellStarted(*name, 1, "hr@5"), 0.0)]))
    assert "[link]t" in text
    assert "[red]m · [bold]d[/bold]" in text


def test_a_narrow_terminal_shows_every_cell_and_trial_in_two_lines():
    done = CellFinished("c", "data", "a model of a long name", 2, {"hr@10": 0.1, "mrr@10": 0.0123}, 3, 61.0)
    for width in (30, 40):
        text = shown(state_after([*STREAM, (done, 16.0)]), width=width)
        assert max(map(len, text.splitlines())) <= width
        lines = [line.strip() for line in text.splitlines()]
        assert "sasrec · data" in lines
        assert "3/10 · 0.2000 · seed 1" in lines
        assert "pop · data" in lines
        assert "failed · seed 1" in lines
        assert "mrr@10 0.0123 · seed 2" in lines
        lines = [line.strip() for line in shown(state_after(TRIALS), now=12.0, width=width).splitlines()]
        assert lines[lines.index("3: lambda = 0.2") + 1] == "0.4000, 0:10"
        assert lines[lines.index("2: lambda = 0.5") + 1] == "pruned, 0:05"
    many = [(replace(done, key=str(n)), 16.0) for n in range(40)]
    assert len(shown(state_after([*STREAM, *many]), width=30, height=30).splitlines()) <= 30


def test_a_terminal_without_unicode_gets_plain_lines(capsys):
    for encoding, words in (("ascii", "My suite: 5 cells"), ("utf-8", "")):
        screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with listener(Console(file=screen, force_terminal=True, width=30), quiet=False, as_json=False) as emit:
            for event, _ in STREAM:
                emit(event)
        assert words in capsys.readouterr().out
        screen.flush()
        assert bool(screen.buffer.getvalue()) == (encoding == "utf-8")


def test_hidden_characters_of_names_and_errors_are_written_out():
    hidden = "a\x1b[2Jb\u202ec\nd"
    name = ("k", hidden, hidden, 1)
    events = [
        RunStarted("s", hidden, 2, 0),
        CellStarted(*name, epochs=1, stop_metric="hr@5"),
        CellFailed(*name, error=hidden, seconds=1.0),
        DatasetLeftOut(hidden, hidden),
        StoreBusy(hidden),
        CellStarted("l", hidden, hidden, 2, epochs=1, stop_metric="hr@5"),
    ]
    text = shown(state_after([(event, 0.0) for event in events]), width=200)
    assert text.count(r"a\x1b[2Jb\u202ec\nd") == 10
    for event in events:
        text += plain_line(event, datetime(2026, 1, 2, tzinfo=UTC)) or ""
    assert {"\x1b", "\u202e"}.isdisjoint(text)
    assert len((plain_line(events[2], datetime(2026, 1, 2, tzinfo=UTC)) or "").splitlines()) == 1


def test_sparklines_and_clocks():
    assert sparkline(()) == ""
    assert sparkline((1.0, 1.0)) == "▁▁"
    assert sparkline((0.0, 0.5, 1.0)) == "▁▅█"
    assert len(sparkline(tuple(range(100)), width=16)) == 16
    assert (clock(59.9), clock(61), clock(3661)) == ("0:59", "1:01", "1:01:01")


def test_plain_lines_are_timestamped_and_skip_steps():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    lines = [plain_line(event, now) for event, _ in STREAM]
    assert lines[5] is None
    assert all(line.startswith("2026-01-02 03:04:05 ") for line in lines if line)
    assert lines[3].endswith("data, pop, seed 1: FAILED after 1.0 s: ValueError: no")
    assert "2 complete, 1 failed" in plain_line(RunFinished(1, 2, 1, 3.0, interrupted=False), now)


def test_events_are_json_lines():
    for event, _ in STREAM + TRIALS:
        line = json.loads(event.to_json())
        assert line["event"].replace("-", "") == type(event).__name__.lower()
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
