"""The dashboard and the plain log: events in, text out."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from rich.cells import cell_len
from rich.console import Console

from ipsrec_bench.cli.listen import listener
from ipsrec_bench.events import (
    CellFailed,
    CellFinished,
    CellFound,
    CellInterrupted,
    CellStarted,
    DatasetLeftOut,
    DatasetReady,
    EpochDone,
    RunFinished,
    RunPaused,
    RunPlanned,
    RunResumed,
    RunStarted,
    SearchStarted,
    StepDone,
    StoreBusy,
    TrialEnded,
    WorkerEnded,
    WorkerSeen,
    WorkerStarted,
)
from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.tui.lines import about, clock, decimal, fit, size, sparkline
from ipsrec_bench.tui.log import plain_line
from ipsrec_bench.tui.pace import remaining_seconds
from ipsrec_bench.tui.results import MARKS
from ipsrec_bench.tui.state import RunState, fold
from ipsrec_bench.tui.summary import summary

A, B = ("a", "data", "sasrec", 1), ("b", "data", "pop", 1)
STREAM = [
    DatasetReady("data", 10, 5, 2, 40, 0.1, time=1.0),
    RunStarted("s", "My suite", cells=5, skipped=1, time=2.0),
    CellStarted(*B, epochs=1, stop_metric="mrr@10", time=2.0),
    CellFailed(*B, error="ValueError: no", seconds=1.0, time=12.0),
    CellStarted(*A, epochs=10, stop_metric="mrr@10", time=12.0),
    StepDone(*A, epoch=1, step=5, steps=10, loss=4.5, targets_per_second=1234.0, time=13.0),
    EpochDone(*A, epoch=1, loss=4.25, valid=0.1, targets_per_second=1300.0, time=14.0),
    EpochDone(*A, epoch=2, loss=4.0, valid=0.2, targets_per_second=1300.0, time=15.0),
]


def state_after(events, state=None):
    state = state or RunState()
    for event in events:
        state = fold(state, event)
    return state


def printed(what, width=100, height=40) -> str:
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def shown(state, now=22.0, width=100, height=40) -> str:
    return printed(dashboard(state, now, height), width, height)


def words(text) -> list[str]:
    """Return the lines with one space for every gap."""
    return [" ".join(line.split()) for line in text.splitlines()]


def plan(datasets=("books",), labels=("pop", "sasrec"), seeds=(1, 2), done=(), **known):
    """Return the beginning of a run whose cells have keys such as books/pop/1."""
    places = [(dataset, label, seed) for dataset in datasets for label in labels for seed in seeds]
    keys = ["/".join(map(str, place)) for place in places]
    grid = tuple((k, *place, "done" if k in done else "queued") for k, place in zip(keys, places, strict=True))
    return [
        RunStarted("s", "A suite", len(grid), len(done), time=0.0, **known.pop("started", {})),
        RunPlanned(grid, time=0.0, **known),
    ]


def cell(key):
    dataset, label, seed = key.split("/")
    return key, dataset, label, int(seed)


def started(key, time=0.0, worker="", epochs=10, resumed=0):
    return CellStarted(*cell(key), epochs, "mrr@10", resumed, time=time, worker=worker)


def finished(key, value, time=0.0, seconds=10.0):
    return CellFinished(*cell(key), {"hr@10": 2 * value, "mrr@10": value}, 3, seconds, time=time)


def ready(worker, time=0.0, device="cpu"):
    return WorkerStarted(device, "host", 7, 1, time=time, worker=worker)


def test_the_picture_shows_progress_cells_and_failures():
    text = shown(state_after(STREAM), width=140)
    assert "My suite" in text
    assert "1 of 5 done (1 before this run) · 1 failed · 3 left · 0:20 elapsed" in text
    assert "sasrec · seed 1" in text
    assert "3/10" in text
    assert "4.000" in text
    assert "▁█" in text
    assert "0.2000" in text
    assert "1,300" in text
    assert "✗ pop · data · 1: ValueError: no" in text


def test_progress_within_an_epoch_counts():
    state = state_after(STREAM[:6])
    assert state.running["a"].progress == 0.05
    assert state.running["a"].seconds(12.5) == 10.0


STAGED = (
    CellStarted(*A, epochs=60, stop_metric="mrr@10", stages=(("pretrain", 10), ("main", 50)), time=12.0),
    EpochDone(*A, epoch=2, loss=4.25, valid=None, targets_per_second=1300.0, stage="pretrain", of=10, time=14.0),
    StepDone(*A, epoch=3, step=5, steps=10, loss=4.5, targets_per_second=1234.0, stage="pretrain", time=15.0),
    EpochDone(*A, epoch=10, loss=4.0, valid=None, targets_per_second=1300.0, stage="pretrain", of=10, time=20.0),
    EpochDone(*A, epoch=5, loss=3.0, valid=0.1, targets_per_second=1300.0, time=30.0),
)


def test_the_epochs_of_all_stages_are_progress():
    progress = [state_after(STAGED[:number]).running["a"].progress for number in range(1, 6)]
    assert progress == [0.0, pytest.approx(2 / 60), pytest.approx(2.5 / 60), pytest.approx(10 / 60), 0.25]
    for number, said in ((1, "pretrain 1/10"), (3, "pretrain 3/10"), (4, "1/50"), (5, "6/50")):
        for width in (140, 80, 40):
            text = shown(state_after((ready("worker 1"), *STAGED[:number])), width=width)
            assert re.search(rf"(?<![\w/]){said}(?!\d)", text), (said, width, text)
    assert state_after(STAGED).running["a"].valid == (0.1,)


def test_a_cell_that_is_resumed_before_its_main_stage_shows_where_it_is():
    begun = replace(STAGED[0], resumed=7)
    assert state_after((begun,)).running["a"].current == ("pretrain", 8, 10)
    assert state_after((replace(begun, resumed=12),)).running["a"].current == ("", 3, 50)
    long = replace(begun, stages=(("pretraining on everything\x1b", 10), ("main", 50)))
    text = shown(state_after((ready("worker 1"), long)), width=140)
    assert "pretrai… 8/10" in text


def test_a_second_training_follows_the_first_wherever_that_ended():
    """The main stage ends after 20 of 50 epochs, of which the 12th was best: so many has the second training."""
    refit = dict.fromkeys(("loss", "targets_per_second"), 1.0) | {"stage": "refit"}
    events = (
        CellStarted(*A, epochs=100, stop_metric="mrr@10", stages=(("main", 50), ("refit", 50)), time=12.0),
        EpochDone(*A, epoch=20, loss=3.0, valid=0.1, targets_per_second=1300.0, time=20.0),
        StepDone(*A, epoch=1, step=5, steps=10, **refit, time=21.0),
        EpochDone(*A, epoch=1, valid=None, of=12, **refit, time=22.0),
        EpochDone(*A, epoch=12, valid=None, of=12, **refit, time=30.0),
    )
    cells = [state_after(events[:number]).running["a"] for number in range(1, 6)]
    assert [cell.current for cell in cells[:-1]] == [("", 1, 50), ("", 21, 50), ("refit", 1, 50), ("refit", 2, 12)]
    assert [cell.progress for cell in cells] == pytest.approx([0.0, 0.2, 0.505, 51 / 62, 1.0])
    assert cells[-1].valid == (0.1,)
    assert "refit 2/12" in shown(state_after((ready("worker 1"), *events[:4])), width=140)


def test_a_replay_shows_what_was_shown_live():
    """The time at which an event is folded does not matter."""
    end = RunFinished(1, 1, 1, 20.0, interrupted=False, time=22.0)
    state = state_after([*STREAM, finished("data/sasrec/1", 0.5, 22.0), end])
    assert shown(state, now=22.0) == shown(state, now=9_999.0)
    assert "0:20 elapsed" in shown(state, now=9_999.0)


def test_a_journal_of_two_runs_ends_with_the_second():
    end = RunFinished(1, 1, 1, 20.0, interrupted=True, time=22.0)
    again = [replace(event, time=event.time + 100) for event in STREAM[:2]]
    for events in ([*STREAM, end, *again], [*STREAM, *again]):
        text = shown(state_after(events), now=110.0)
        assert "✗" not in text
        assert "0:08 elapsed" in text
        assert "interrupted" not in text
        assert text.count("data: 10 users") == 1


def test_a_wait_for_the_store_is_shown_until_the_cell_is_in():
    waiting = state_after([*STREAM, StoreBusy("the store is locked by PID 7", time=16.0)])
    assert "the store is locked by PID 7" in shown(waiting)
    assert len(shown(waiting).splitlines()) == len(shown(state_after(STREAM)).splitlines())
    done = fold(waiting, CellFinished(*A, {"hr@10": 0.1}, 1, 1.0, time=18.0))
    assert "locked" not in shown(done)


def test_every_worker_has_a_row_with_its_cell_memory_and_load():
    events = [
        *plan(),
        ready("worker 1", device="cuda:0"),
        ready("worker 2"),
        started("books/pop/1", worker="worker 1"),
        WorkerSeen(300 * 2**20, 0.98, time=1.0, worker="worker 1"),
    ]
    lines = words(shown(state_after(events), now=1.0, width=80))
    assert "1 cuda:0 pop · seed 1 ──── 1/10 300M 1.0" in lines
    assert "2 cpu idle" in lines
    height = len(lines)
    ended = state_after([finished("books/pop/1", 0.1)], state_after(events))
    lines = words(shown(ended, now=1.0, width=80))
    assert "1 cuda:0 idle 300M" in lines
    assert len(lines) == height


def test_a_worker_that_died_is_seen_with_its_reason_once_and_replaced_in_its_row():
    death = WorkerEnded("it was killed by SIGKILL", time=5.0, worker="worker 1")
    busy = [
        *plan(),
        ready("worker 1"),
        ready("worker 2"),
        started("books/pop/1", worker="worker 1"),
        EpochDone(*cell("books/pop/1"), 1, 4.0, 0.1, 100.0, time=4.0, worker="worker 1"),
    ]
    dead = state_after([*busy, death])
    text = shown(dead, now=5.0)
    assert "1 cpu ✗ died" in words(text)
    assert text.count("it was killed by SIGKILL") == 1
    assert "! worker 1 died: it was killed by SIGKILL" in words(text)
    assert "‖···" not in text
    assert "‖· " in text
    for name, row in (("worker 1", "1 cpu"), ("worker 3", "3 cpu")):
        again = [ready(name, 6.0), started("books/pop/1", 7.0, name, resumed=1)]
        lines = words(shown(state_after(again, dead), now=7.0))
        assert any(line.startswith(f"{row} pop · seed 1 ") and "2/10" in line for line in lines)
        assert sum("cpu" in line for line in lines) == 2
        assert any("↻ 1 resumed" in line for line in lines)


def test_a_worker_that_exited_normally_is_not_a_failure():
    state = state_after([*plan(), ready("worker 1"), WorkerEnded("", time=1.0, worker="worker 1")])
    text = shown(state, now=1.0)
    assert "1 cpu ended" in words(text)
    assert "died" not in text


def test_the_grid_has_a_mark_for_every_state_of_a_cell():
    labels = ("queued", "done", "running", "resumed", "stopped", "failed", "found", "kept")
    events = [
        *plan(labels=labels, seeds=(1,), done=("books/kept/1",)),
        started("books/done/1"),
        finished("books/done/1", 0.1),
        started("books/running/1"),
        started("books/resumed/1", resumed=3),
        started("books/stopped/1"),
        CellInterrupted(*cell("books/stopped/1")),
        CellFailed(*cell("books/failed/1"), "no", 1.0),
        CellFound(*cell("books/found/1")),
    ]
    state = state_after(events)
    lines = words(shown(state, now=1.0, width=80))
    marks = {mark: symbol for mark, (symbol, _) in MARKS.items()}
    assert len(set(marks.values())) == len(marks)
    for label in labels:
        mark = marks["done" if label in {"found", "kept"} else label]
        assert any(line.startswith(f"{label} {mark}") for line in lines), label
    assert "✓ 3 done ▸ 1 running ↻ 1 resumed ‖ 1 stopped ✗ 1 failed · 1 queued" in lines
    assert (state.done, len(state.failed), state.left) == (3, 1, 4)


def test_a_cell_that_is_tried_again_counts_once():
    events = [*plan(), CellFailed(*cell("books/pop/1"), "no", 1.0), started("books/pop/1")]
    state = state_after(events)
    assert (state.done, len(state.failed), state.left) == (0, 0, 4)
    state = state_after([finished("books/pop/1", 0.1)] * 2, state)
    assert (state.done, len(state.failed), state.left) == (1, 0, 3)


def test_the_standings_compare_rows_only_over_the_seeds_that_both_have():
    events = [
        *plan(labels=("pop", "sasrec", "ipsrec-c"), started={"baseline": "sasrec"}),
        finished("books/sasrec/1", 0.10),
        finished("books/sasrec/2", 0.40),
        finished("books/ipsrec-c/1", 0.12),
    ]
    lines = words(shown(state_after(events), now=1.0, width=80))
    assert "mrr@10, mean of the finished seeds, and difference to sasrec" in lines
    rows = lines[lines.index("books") + 1 :][:3]
    assert rows == ["sasrec ✓✓ 0.2500* base", "ipsrec-c ✓· 0.1200 +20.0%", "pop ··"]


def test_without_a_baseline_the_best_other_row_is_compared_with():
    events = [
        *plan(labels=("pop", "sasrec", "ipsrec-c"), seeds=(1,), started={"baseline": "best", "metric": "hr@10"}),
        finished("books/pop/1", 0.05),
        finished("books/sasrec/1", 0.10),
        finished("books/ipsrec-c/1", 0.12),
    ]
    lines = words(shown(state_after(events), now=1.0, width=80))
    assert "hr@10, mean of the finished seeds, and difference to the best other row" in lines
    rows = lines[lines.index("books") + 1 :][:3]
    assert rows == ["ipsrec-c ✓ 0.2400* +20.0%", "sasrec ✓ 0.2000 -16.7%", "pop ✓ 0.1000 -58.3%"]


def test_a_deterministic_model_has_its_result_at_every_seed():
    grid = [("p", "books", "pop", seed, "queued") for seed in (1, 2)]
    grid += [(f"s{seed}", "books", "sasrec", seed, "queued") for seed in (1, 2)]
    events = [
        RunStarted("s", "t", 3, 0, baseline="pop", time=0.0),
        RunPlanned(tuple(grid), time=0.0),
        CellFinished("p", "books", "pop", 1, {"mrr@10": 0.1}, 1, 1.0),
        CellFinished("s2", "books", "sasrec", 2, {"mrr@10": 0.2}, 1, 1.0),
    ]
    lines = words(shown(state_after(events), now=1.0, width=80))
    assert "sasrec ·✓ 0.2000* +100%" in lines
    assert "pop ✓✓ 0.1000 base" in lines


def test_results_from_before_count_if_the_plan_has_them():
    events = plan(done=("books/pop/1",), metrics={"books/pop/1": {"mrr@10": 0.25}}, seconds={"books/pop/1": 30.0})
    state = state_after(events)
    assert any(line.startswith("pop ✓· 0.2500") for line in words(shown(state, now=0.0)))
    assert remaining_seconds(state, 0.0) == 90.0


def test_no_remaining_time_is_shown_before_an_estimate_is_possible():
    state = state_after([*plan(), ready("worker 1"), started("books/pop/1", worker="worker 1")])
    assert remaining_seconds(state, 30.0) is None
    assert "about" not in shown(state, now=30.0)


def test_time_left_is_estimated_from_like_cells_and_divided_among_workers():
    events = [
        DatasetReady("books", 1, 1, 1, 100, 0.1, time=0.0),
        DatasetReady("films", 1, 1, 1, 300, 0.1, time=0.0),
        *plan(("books", "films"), ("pop", "sasrec", "new"), seeds=(1, 2)),
        ready("worker 1"),
        finished("books/pop/1", 0.1, seconds=4.0),
        finished("books/sasrec/1", 0.1, seconds=20.0),
    ]
    # books: pop 4, sasrec 20, new: the mean, 12, twice; films, twice each: pop 3 times 4, sasrec 3 times 20, new 12
    expected = 4 + 20 + 2 * 12 + 2 * (12 + 60 + 12)
    assert remaining_seconds(state_after(events), 0.0) == expected
    assert remaining_seconds(state_after([*events, ready("worker 2")]), 0.0) == expected / 2
    begun = state_after([*events, started("books/sasrec/2", 0.0, "worker 1")])
    assert remaining_seconds(begun, 5.0) == expected - 5.0
    # Its own pace: 2 of 10 epochs in 2 s.
    quick = fold(begun, EpochDone(*cell("books/sasrec/2"), 2, 1.0, 0.1, 10.0, time=2.0))
    assert remaining_seconds(quick, 2.0) == expected - 20.0 + 8.0
    assert "about 3 min to go" in shown(quick, now=2.0)


def test_the_longest_cell_bounds_the_time_left():
    events = [*plan(seeds=(1,)), *(ready(f"worker {n}") for n in (1, 2)), finished("books/pop/1", 0.1)]
    events += [started("books/sasrec/1"), EpochDone(*cell("books/sasrec/1"), 1, 1.0, 0.1, 1.0, time=10.0)]
    assert remaining_seconds(state_after(events), 10.0) == 90.0


def test_epochs_of_an_earlier_attempt_do_not_count_for_the_pace():
    state = state_after([*plan(), started("books/pop/1", resumed=5)])
    assert state.running["books/pop/1"].seconds(10.0) is None
    state = fold(state, EpochDone(*cell("books/pop/1"), 6, 1.0, 0.1, 1.0, time=3.0))
    assert state.running["books/pop/1"].seconds(3.0) == pytest.approx(30.0)


def test_a_pause_is_shown_and_does_not_slow_the_pace():
    events = [*plan(), started("books/pop/1"), EpochDone(*cell("books/pop/1"), 5, 1.0, 0.1, 1.0, time=10.0)]
    paused = state_after([*events, RunPaused(time=10.0)])
    assert "PAUSED" in shown(paused, now=500.0)
    before = remaining_seconds(state_after(events), 10.0)
    assert remaining_seconds(paused, 500.0) == before
    after = fold(paused, RunResumed(time=500.0))
    assert "PAUSED" not in shown(after, now=500.0)
    assert remaining_seconds(after, 500.0) == before


@cache
def full_run(workers=4, datasets=3, labels=6, seeds=5):
    """Return a run after its plan, and when half is finished, with a failure, a death, and busy workers."""
    names = [f"a dataset {n}" for n in range(datasets)], [f"model-{n} less a part" for n in range(labels)]
    events = plan(*names, tuple(range(1, seeds + 1)))
    keys = [key for key, *_ in events[1].grid]
    half = len(keys) // 2
    events += [ready(f"worker {n}") for n in range(workers)]
    events += [finished(key, 0.01 + n / 10_000) for n, key in enumerate(keys[:half])]
    events += [CellFailed(*cell(keys[half]), "ValueError: " + "no " * 100, 1.0)]
    events += [WorkerEnded("it was killed by SIGKILL", worker="worker 0")]
    events += [started(key, worker=f"worker {n}") for n, key in enumerate(keys[half + 1 :][:workers])]
    return state_after(events[:2]), state_after(events)


@pytest.mark.parametrize(("width", "height"), [(20, 5), (40, 24), (60, 24), (80, 24), (110, 30), (200, 50)])
@pytest.mark.parametrize("sizes", [(4, 3, 6, 5), (1, 1, 1, 1), (100, 10, 20, 10), (8, 2, 30, 40)])
def test_the_picture_fits_the_terminal(width, height, sizes):
    for state in full_run(*sizes):
        lines = shown(state, now=5.0, width=width, height=height).splitlines()
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width


def test_a_common_terminal_shows_workers_failures_standings_and_every_cell():
    text = shown(full_run()[1], now=5.0, width=80, height=24)
    lines = words(text)
    assert sum(line.endswith("cpu idle") or " model-" in line for line in lines) >= 4
    assert any(line.startswith("✗ model-3 less a part · a dataset 1 · 1: ValueError: no no") for line in lines)
    assert any(line.startswith("! worker 0 died") for line in lines)
    assert text.count("✓") == 45 + 1
    assert text.count("▸") == 4 + 1


def test_the_picture_keeps_its_height_while_cells_come_and_go():
    state, heights = full_run()[1], set()
    for key in [worker.key for worker in state.workers.values() if worker.key]:
        heights.add(len(shown(state, now=5.0, width=80, height=24).splitlines()))
        state = fold(state, finished(key, 0.02))
    heights.add(len(shown(state, now=5.0, width=80, height=24).splitlines()))
    assert len(heights) == 1


def test_what_does_not_fit_is_counted():
    text = shown(full_run(100, 10, 20, 10)[1], now=5.0, width=80, height=24)
    assert "more workers: " in text
    assert "more rows" in text
    assert "more datasets" in text
    assert "✓ 1000 done" in text


def test_long_and_wide_names_are_cut_with_an_ellipsis():
    events = plan(("書" * 60,), ("モデル" * 30, "sasrec"), (1,))
    key = events[1].grid[0][0]
    events += [ready("worker 1"), CellStarted(*events[1].grid[0][:4], 10, "mrr@10", worker="worker 1")]
    events += [CellFinished(*events[1].grid[1][:4], {"mrr@10": 0.1}, 1, 1.0)]
    text = shown(state_after(events), now=1.0, width=80, height=24)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "モデル" in text
    assert "…" in text
    assert key in state_after(events).running


def test_the_name_of_the_last_dataset_takes_the_room_to_its_right():
    text = shown(state_after(plan(("a-name-of-forty-characters-of-a-dataset-1",), ("pop",), (1,))), width=80, height=24)
    assert "   a-name-of-forty-characters-of-a-dataset-1\n" in text


def test_the_summary_has_every_row_with_means_counts_and_time():
    events = [
        *plan(labels=("pop", "sasrec"), started={"baseline": "pop"}),
        finished("books/pop/1", 0.1, seconds=61.0),
        finished("books/pop/2", 0.2, seconds=4.0),
        finished("books/sasrec/1", 0.15),
        CellFailed(*cell("books/sasrec/2"), "no", 3.0),
        RunFinished(1, 3, 1, 78.0, interrupted=False, time=80.0),
    ]
    lines = words(printed(summary(state_after(events)), width=100))
    assert "dataset model hr@10 mrr@10 vs base done failed time" in lines
    assert "books pop 0.3000 0.1500 base 2/2 1:05" in lines
    assert "sasrec 0.3000 0.1500 +50.0% 1/2 1 0:13" in lines
    assert "3 of 4 cells done, 1 failed; finished after 1:18" in lines
    narrow = words(printed(summary(state_after(events)), width=28))
    assert "books pop 0.1500 2/2" in narrow
    assert "sasrec 0.1500 1/2" in narrow


def test_there_is_no_summary_without_cells():
    assert summary(RunState()) is None
    assert summary(state_after(TRIALS)) is None


TRIALS = [
    SearchStarted("Tuning ipsrec-c on data", "mrr@10", 8, None, 2, 30.0, 0.3, "lambda = 0.1, tau = 1", time=0.0),
    CellStarted("trial-2", "data", "ipsrec-c (lambda = 0.5)", 1, epochs=10, stop_metric="mrr@10", time=0.0),
    CellStarted("trial-3", "data", "ipsrec-c (lambda = 0.2)", 1, epochs=10, stop_metric="mrr@10", time=0.0),
    EpochDone("trial-2", "data", "ipsrec-c (lambda = 0.5)", 1, 1, 4.0, 0.2, 900.0, time=4.0),
    TrialEnded("trial-2", 2, "lambda = 0.5", "pruned", None, 1, 5.0, time=5.0),
    TrialEnded("trial-3", 3, "lambda = 0.2", "complete", 0.4, 10, 10.0, time=10.0),
    CellStarted("trial-4", "data", "ipsrec-c (lambda = 0.7)", 1, epochs=10, stop_metric="mrr@10", time=10.0),
    TrialEnded("trial-4", 4, "lambda = 0.7", "failed", None, 0, 1.0, "no memory", time=11.0),
    CellStarted("trial-5", "data", "ipsrec-c (lambda = 0.3)", 1, epochs=10, stop_metric="mrr@10", time=11.0),
]


def test_a_search_shows_its_trials_the_best_so_far_and_the_time_left():
    text = shown(state_after(TRIALS), now=12.0, width=120)
    assert "Tuning ipsrec-c on data" in text
    facts = "4/8 trials · 2 before this run · 1 pruned · 1 failed · 1 running · 0:12 elapsed"
    # Two and a half trials in 12 s, three and a half are left.
    assert f"{facts} · about 20 s to go" in text
    assert "Best so far: 0.4000 with lambda = 0.2" in text
    assert "ipsrec-c (lambda = 0.3) · seed 1" in text
    assert "ipsrec-c (lambda = 0.5)" not in text
    lines = words(text)
    assert "2 lambda = 0.5 pruned 1 0:05" in lines
    assert "3 lambda = 0.2 0.4000 10 0:10" in lines
    assert "✗ trial 4: no memory" in lines
    assert "idle" in lines  # two were at work once
    assert "Best so far: 0.3000 with lambda = 0.1, tau = 1" in shown(state_after(TRIALS[:5]))


def test_a_search_shows_its_workers():
    name = ("trial-6", "data", "ipsrec-c (lambda = 0.4)", 1)
    events = [TRIALS[0], ready("worker 1"), ready("worker 2"), CellStarted(*name, 10, "mrr@10", worker="worker 2")]
    lines = words(shown(state_after(events), now=1.0))
    assert "1 cpu idle" in lines
    assert any(line.startswith("2 cpu ipsrec-c (lambda = 0.4) · seed 1 ") for line in lines)


def test_a_search_over_time_shows_how_much_of_it_is_left():
    by_time = SearchStarted("t", "mrr@10", None, 100.0, 2, 30.0, None, "", time=0.0)
    text = shown(state_after([by_time, *TRIALS[1:]]), now=21.0, width=140)
    # 30 s before, 16 s of trials that ended, 10 s of the one that runs.
    assert "0:56 of 1:40 of training · about 40 s to go" in text
    many = [TrialEnded(f"trial-{n}", n, "x = 1", "pruned", None, 1, 1.0, time=1.0) for n in range(50)]
    text = shown(state_after([by_time, *many]), height=30)
    assert "earlier not shown" in text
    assert len(text.splitlines()) <= 30


def test_the_next_search_begins_anew():
    state = state_after([*TRIALS, SearchStarted("Tuning sasrec", "mrr@10", 8, None, 0, 0.0, None, "", time=20.0)])
    text = shown(state, now=20.0)
    assert "0/8 trials · 0:00 elapsed" in text
    assert "lambda" not in text


def test_plain_lines_of_a_search():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    lines = [(plain_line(event, now) or "").removeprefix("2026-01-02 03:04:05 ") for event in TRIALS]
    assert lines[0] == "Tuning ipsrec-c on data: 8 trials; 2 trials in 30.0 s so far"
    assert lines[4] == "trial 2 (lambda = 0.5): pruned after 1 epoch, 5.0 s"
    assert lines[5] == "trial 3 (lambda = 0.2): complete, 0.4000 after 10 epochs, 10.0 s"
    assert lines[7] == "trial 4 (lambda = 0.7): failed after 0 epochs, 1.0 s: no memory"


def test_names_with_markup_are_shown_as_they_are():
    name = ("a", "[bold]d[/bold]", "[red]m", 1)
    text = shown(
        state_after([RunStarted("s", "[link]t", 1, 0), CellStarted(*name, 1, "hr@5"), CellStarted(*B, 1, "hr@5")])
    )
    assert "[link]t" in text
    assert "[red]m · [bold]d[/bold]" in text


def test_a_narrow_terminal_shows_every_worker_and_trial_in_two_lines():
    done = CellFinished("c", "data", "a model of a long name", 2, {"hr@10": 0.1, "mrr@10": 0.0123}, 3, 61.0)
    for width in (30, 40):
        text = shown(state_after([*STREAM, done]), width=width)
        assert max(map(len, text.splitlines())) <= width
        lines = words(text)
        assert "━━────── 3/10 · 0.2000" in lines
        assert lines[lines.index("━━────── 3/10 · 0.2000") - 1] == "sasrec · seed 1"
        assert any(line.startswith("✗ pop · data · 1: ") for line in lines)
        assert any("0.0123" in line for line in lines)
        lines = words(shown(state_after(TRIALS), now=12.0, width=width))
        assert lines[lines.index("3: lambda = 0.2") + 1] == "0.4000, 0:10"
        assert lines[lines.index("2: lambda = 0.5") + 1] == "pruned, 0:05"
    many = [replace(done, key=str(n), seed=n) for n in range(40)]
    assert len(shown(state_after([*STREAM, *many]), width=30, height=30).splitlines()) <= 30


def test_a_terminal_without_unicode_gets_plain_lines(capsys):
    for encoding, words in (("ascii", "My suite: 5 cells"), ("utf-8", "")):
        screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with listener(Console(file=screen, force_terminal=True, width=30), quiet=False, as_json=False) as emit:
            for event in STREAM:
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
        WorkerStarted(hidden, hidden, 1, 1, worker=hidden),
        CellStarted("l", hidden, hidden, 2, epochs=1, stop_metric="hr@5", worker=hidden),
        RunPlanned((("l", hidden, hidden, 2, "queued"),)),
        WorkerEnded(hidden, worker=hidden),
    ]
    state = state_after(events)
    text = shown(state, width=200)
    assert text.count(r"a\x1b[2Jb\u202ec\nd") == 10
    text += printed(summary(state), width=200)
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


def test_numbers_take_few_columns():
    spans = (about(1), about(44), about(59.9), about(61), about(3700), about(5 * 3600 + 1830), about(5 * 86400))
    assert spans == (
        "about 10 s",
        "about 40 s",
        "about 1 min",
        "about 1 min",
        "about 1 h",
        "about 5 h 30 min",
        "about 5 days",
    )
    assert [decimal(x) for x in (0.01234, 4.89, 12.345, 12345.6, float("nan"))] == [
        "0.012",
        "4.890",
        "12.35",
        "12346",
        "nan",
    ]
    assert [size(x * 2**20) for x in (312, 999, 1024, 20_000)] == ["312M", "999M", "1.0G", "20G"]
    assert [fit(text, 4) for text in ("ab", "abcd", "abcde", "書書書")] == ["ab  ", "abcd", "abc…", "書… "]


def test_plain_lines_are_timestamped_and_skip_steps():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    lines = [plain_line(event, now) for event in STREAM]
    assert lines[5] is None
    assert all(line.startswith("2026-01-02 03:04:05 ") for line in lines if line)
    assert lines[3].endswith("data, pop, seed 1: FAILED after 1.0 s: ValueError: no")
    assert "2 complete, 1 failed" in plain_line(RunFinished(1, 2, 1, 3.0, interrupted=False), now)


def test_events_are_json_lines():
    for event in STREAM + TRIALS:
        line = json.loads(event.to_json())
        assert line["event"].replace("-", "") == type(event).__name__.lower()
        assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_plain_lines_of_workers_pauses_and_resumed_cells():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    name = ("k", "data", "sasrec", 1)
    said = {
        WorkerStarted(
            "cuda:0", "host", 7, 1, worker="worker 1"
        ): "worker 1: ready on host, cuda:0, 1 thread, process 7",
        WorkerEnded("it was killed by SIGKILL", worker="worker 1"): "worker 1: died: it was killed by SIGKILL",
        WorkerEnded("", worker="worker 1"): None,
        WorkerSeen(1, 1.0, worker="worker 1"): None,
        RunPaused(): "paused",
        RunResumed(): "resumed after the pause",
        CellStarted(*name, 10, "mrr@10", 7, worker="worker 1"): (
            "data, sasrec, seed 1: started, resumed after epoch 7 (worker 1)"
        ),
        CellStarted(*name, 60, "mrr@10", 7, (("pretrain", 10), ("main", 50))): (
            "data, sasrec, seed 1: started, resumed after pretrain 7/10"
        ),
        CellStarted(*name, 60, "mrr@10", 17, (("pretrain", 10), ("main", 50))): (
            "data, sasrec, seed 1: started, resumed after epoch 7"
        ),
        CellStarted(*name, 100, "mrr@10", 57, (("main", 50), ("refit", 50))): (
            "data, sasrec, seed 1: started, resumed after refit 7/50"
        ),
        EpochDone(*name, 3, 1.5, None, 100.0, "pretrain", 10): (
            "data, sasrec, seed 1: pretrain 3/10, loss 1.5000, 100 targets/s"
        ),
        EpochDone(*name, 3, 1.5, 0.25, 100.0): (
            "data, sasrec, seed 1: epoch 3, loss 1.5000, validation 0.2500, 100 targets/s"
        ),
        CellInterrupted(
            *name
        ): "data, sasrec, seed 1: stopped; the next run resumes after its last epoch on disk, if there is one",
    }
    for event, text in said.items():
        assert plain_line(event, now) == (text and f"2026-01-02 03:04:05 {text}")
