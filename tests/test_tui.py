"""The dashboard and the plain log: events in, text out."""

import json
from datetime import UTC, datetime

from rich.console import Console

from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellStarted,
    DatasetReady,
    EpochDone,
    RunFinished,
    RunStarted,
    StepDone,
    StoreBusy,
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


def test_names_with_markup_are_shown_as_they_are():
    name = ("a", "[bold]d[/bold]", "[red]m", 1)
    text = shown(state_after([(RunStarted("s", "[link]t", 1, 0), 0.0), (CellStarted(*name, 1, "hr@5"), 0.0)]))
    assert "[link]t" in text
    assert "[red]m · [bold]d[/bold]" in text


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
    for event, _ in STREAM:
        line = json.loads(event.to_json())
        assert line["event"].replace("-", "") == type(event).__name__.lower()
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
