"""What `doctor` finds in fresh, finished and broken folders, and what its --fix repairs."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipsrec_bench.data.staging import alone
from ipsrec_bench.run.doctor import machine
from ipsrec_bench.run.kept import keep
from ipsrec_bench.run.workplace import KEPT, STATE, Workplace
from ipsrec_bench.store.health import examine

from .conftest import ROOT, clean_environment
from .test_gc import UNKNOWN, change, left_by_a_dead_run, weights
from .test_migrate import STORES, unpacked
from .test_run import ALL_RANKS, STORE, table
from .test_store import held_by_another_process, record

TORCH = {"part": "torch", "version": "9.9", "threads": 1, "cuda": None}
CPU = {"part": "cpu", "error": "", "kernels": False, "warning": "", "fast_in_bfloat16": False}
GPU = {**CPU, "part": "cuda:0", "name": "H100", "free": 2**34, "total": 2**35, "kernels": True}


def torch_that(*lines: str):
    """A stand-in for the process that tests torch, which takes seconds to start."""
    return lambda: subprocess.Popen(
        [sys.executable, "-c", "\n".join(["import os, time", *lines])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def said(*parts: dict) -> list[str]:
    return [f"print({json.dumps(part)!r}, flush=True)" for part in parts]


@pytest.fixture(autouse=True)
def _torch_works(monkeypatch):
    monkeypatch.setattr(machine, "start_torch", torch_that(*said(TORCH, CPU)))
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def doctor(bench):
    """Run `doctor --json`; return its exit code, and what it has found by state and name."""

    def run(*arguments):
        done = bench("doctor", "--json", *arguments)
        found = {}
        for one in json.loads(done.stdout):
            found.setdefault(one["state"], {}).setdefault(one["name"], []).append(one)
            assert bool(one["mend"]) == (one["state"] != "ok"), one
        return done.returncode, found

    return run


def content(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_folder_has_no_problem_and_is_left_as_it_is(tmp_path):
    """With the real torch, which another process imports."""
    program = """
        import sys
        from ipsrec_bench.cli.main import app
        try:
            app(["doctor", "--json"])
        except SystemExit as end:
            assert not end.code, end.code
        assert "torch" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=clean_environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert {
        name: found[name]["state"] for name in ("python", "duckdb", "torch", "device cpu", "store")
    } == dict.fromkeys(("python", "duckdb", "torch", "device cpu", "store"), "ok")
    assert "loss, gradients and ranks are right" in found["device cpu"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_has_no_problem_and_is_left_as_it_is(finished, doctor):
    before = content(finished)
    code, found = doctor("tiny.toml")
    assert code == 0
    assert "problem" not in found
    assert found["ok"]["suite tiny"][0]["found"] == "8 cells, 0 to run"
    assert found["ok"]["data world"][0]["found"] == "prepared"
    assert "8 complete cells" in found["ok"]["store"][0]["found"]
    assert "those of 8 complete cells, and no others" in found["ok"]["weights"][0]["found"]
    assert {*found.get("note", ())} <= {"ray", "memory", "processor"}
    assert content(finished) - before == set()


def test_problems_come_last_each_with_a_remedy_and_signs_need_no_colour(finished, bench):
    (finished / STORE).write_text("junk" * 2000)
    done = bench("doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    signs = [line.split()[0] for line in lines[:-1]]
    assert signs == sorted(signs, key=["ok", "note", "PROBLEM"].index)
    assert lines[-2].startswith("PROBLEM  store ")
    assert "cannot be opened as a result store" in lines[-2]
    assert "-> move the file away, then restore a copy or choose another place with --store" in lines[-2]
    assert lines[-1].startswith("1 problem")
    assert (finished / STORE).read_text() == "junk" * 2000


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM ranks WHERE cell = 1 AND split = 'test' AND \"user\" % 2 = 0", "test users instead of"),
        ("DELETE FROM ranks WHERE cell = 1", "has ranks of 0 test users instead of"),
        ("DELETE FROM ranks WHERE cell = 1; DELETE FROM cell_targets WHERE cell = 1", "has no ranks of test users"),
        ("UPDATE ranks SET higher = -1 WHERE cell = 1", "has negative ranks"),
        ("DELETE FROM datasets", "and 7 more is of a dataset that the store does not describe"),
        ("DELETE FROM cells WHERE cell = 1", "the table ranks has rows of 1 cells that do not exist"),
    ],
)
def test_faults_of_a_store_are_found(finished, statement, fault):
    assert examine(finished / STORE).faults == ()
    change(finished / STORE, statement)
    assert fault in "; ".join(examine(finished / STORE).faults)


def test_a_store_that_lacks_ranks_is_a_problem(finished, doctor):
    change(finished / STORE, "DELETE FROM ranks")
    code, found = doctor()
    assert code == 1
    assert any("and 7 more has ranks of 0 test users instead of" in one["found"] for one in found["problem"]["store"])


def test_a_damaged_block_is_found_though_the_store_opens(finished, doctor):
    path = finished / STORE
    whole = path.read_bytes()
    for place in range(len(whole) - 2**17, 2**14, -(2**17)):  # some block holds ranks
        path.write_bytes(whole[:place] + bytes(4096) + whole[place + 4096 :])
        code, found = doctor()
        if code:
            break
    assert code == 1
    assert "store" in found["problem"]


def test_a_locked_store_is_a_note_that_names_the_holder(finished, doctor, monkeypatch):
    monkeypatch.setattr("ipsrec_bench.store.health.PATIENCE_SECONDS", 0.1)
    with held_by_another_process(finished / STORE) as process:
        code, found = doctor("tiny.toml")
    assert code == 0
    assert f"PID {process.pid}" in found["note"]["store"][0]["found"]


def test_an_older_store_is_checked_and_not_migrated(tmp_path, doctor):
    path, version = unpacked(STORES[0], tmp_path)
    before = path.read_bytes()
    code, found = doctor()
    assert code == 0
    assert f"schema version {version}, written by an older version" in found["note"]["store"][0]["found"]
    assert path.read_bytes() == before


def test_failed_cells_and_deaths_are_noted(finished, doctor):
    change(finished / STORE, "UPDATE cells SET status = 'failed', error = 'no' WHERE type = 'sasrec'")
    Workplace(finished / STORE).note_death(UNKNOWN, "SIGKILL")
    code, found = doctor()
    assert code == 0
    assert found["note"]["failed cells"][0]["found"] == "2 in the store"
    assert found["note"]["deaths"][0]["found"] == "1 cell ended its process: SIGKILL"


def test_fix_removes_scratch_and_keeps_running_and_resumable_cells(finished, doctor):
    place, ranks = Workplace(finished / STORE), table(finished / STORE, ALL_RANKS)
    claim = place.claim("a" * 32, "world, sasrec, seed 3")
    on = left_by_a_dead_run(place, "b" * 32, STATE)
    stale = place.folder / "cells" / ("c" * 32)
    stale.mkdir()
    (stale / "log").touch()
    code, found = doctor()
    assert code == 0
    assert found["ok"]["claims"][0]["found"] == "running now: 1 (world, sasrec, seed 3)"
    assert found["ok"]["unfinished"][0]["found"].endswith("1 (a cell)")
    assert stale.name in found["note"]["scratch"][0]["found"]
    assert stale.exists()
    code, found = doctor("--fix")
    assert code == 0
    assert found["ok"]["scratch"][0]["found"] == f"removed: 1 ({stale.name})"
    assert not stale.exists()
    assert claim.folder.exists()
    assert (on / STATE).exists()
    assert table(finished / STORE, ALL_RANKS) == ranks
    claim.give_back()


def test_fix_enters_results_that_wait_for_the_store(finished, doctor):
    place = Workplace(finished / STORE)
    claim = place.claim(UNKNOWN, "a cell")
    keep(record(UNKNOWN, error="ValueError: no", ranks=None, epochs=()), claim.folder)
    claim.give_back()
    assert "1 (a cell)" in doctor()[1]["note"]["kept results"][0]["found"]
    assert (claim.folder / KEPT).exists()
    code, found = doctor("--fix")
    assert code == 0
    assert found["ok"]["kept results"][0]["found"] == "entered into the store: 1"
    assert table(finished / STORE, f"SELECT error FROM cells WHERE key = '{UNKNOWN}'") == [("ValueError: no",)]
    assert not claim.folder.exists()


def test_weights_of_no_cell_and_cells_without_weights_are_noted(finished, doctor):
    checkpoints = (finished / STORE).with_name("checkpoints")
    (checkpoints / f"{min(weights(finished))}.safetensors").rename(checkpoints / f"{UNKNOWN}.safetensors")
    code, found = doctor("--fix")
    assert code == 0
    notes = [one["found"] for one in found["note"]["weights"]]
    assert notes[0].startswith("no cell needs 1 file, ")
    assert notes[1] == "1 of 8 complete cells have no best weights in reports/checkpoints"
    assert UNKNOWN in weights(finished)


def test_fix_removes_leftovers_of_killed_writers_and_no_file_that_is_being_written(finished, doctor):
    left = [
        finished / "reports/.ipsrec-bench-1.part",
        finished / "reports/tiny/.ipsrec-bench-2.part",
        finished / "data/prepared/.world-1.part",
    ]
    for folder in left:
        folder.mkdir()
        (folder / "file").touch()
    with alone(left[2].parent):  # as while a dataset is prepared
        found = doctor("--fix")[1]
        assert found["ok"]["leftovers"][0]["found"].startswith("removed: 2 (reports/.ipsrec-bench-1.part; ")
        assert [folder.exists() for folder in left] == [False, False, True]
    assert "data/prepared/.world-1.part" in doctor()[1]["note"]["leftovers"][0]["found"]
    doctor("--fix")
    assert not left[2].exists()
    assert doctor()[1]["ok"]["leftovers"][0]["found"] == "no half-written files"


def test_missing_data_are_a_problem_that_says_where_they_come_from(doctor):
    code, found = doctor(ROOT / "suites" / "paper.toml")
    assert code == 1
    (tmall,) = found["problem"]["data tmall"]
    assert "ijcai2016_taobao.csv: there is no such file" in tmall["found"]
    assert "https://tianchi.aliyun.com" in tmall["mend"]
    code, found = doctor(ROOT / "suites" / "paper.toml", "--set", "stand_in=true", "--set", "scale=0.01")
    assert code == 0
    assert found["ok"]["data tmall"][0]["found"] == "not prepared; the run generates it first"


def test_a_suite_that_needs_more_than_the_disk_has_is_a_problem(finished, doctor, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5_000))
    code, found = doctor("tiny.toml")
    assert code == 0  # nothing is left to do
    change(finished / STORE, "UPDATE cells SET status = 'failed', error = 'no' WHERE type = 'sasrec'")
    code, found = doctor("tiny.toml")
    assert code == 1
    assert "the suite needs about" in found["problem"]["disk of the store"][0]["found"]


def test_folders_that_cannot_be_used_are_problems(tmp_path, doctor, monkeypatch):
    (tmp_path / "data").write_text("a file")
    code, found = doctor()
    assert code == 1
    assert found["problem"]["data folder"][0]["found"] == "data: it is not a folder"
    (tmp_path / "data").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(machine, "time", SimpleNamespace(time=lambda: time.time() + 3600))
        code, found = doctor()
        assert code == 1
        assert "3600 s from this machine's clock" in found["problem"]["store folder"][0]["found"]
    with monkeypatch.context() as patched:
        patched.setattr(machine.fcntl, "flock", lambda *_: None)
        code, found = doctor()
        assert code == 1
        assert "does not support locks" in found["problem"]["temporary"][0]["found"]


@pytest.mark.parametrize(
    ("lines", "name", "words"),
    [
        (["raise ImportError('libtorch is broken')"], "torch", "ImportError: libtorch is broken"),
        (["os.kill(os.getpid(), 11)"], "torch", "ended by SIGSEGV"),
        ([*said(TORCH, CPU), "os.abort()"], "devices", "the device after cpu failed: its process was ended by SIGABRT"),
        (said(TORCH, {**CPU, "error": "3 of 48 ranks are wrong"}), "device cpu", "fails: 3 of 48 ranks are wrong"),
        (said(TORCH, CPU, {**GPU, "error": "no kernel image"}), "device cuda:0", "H100: a small training"),
    ],
)  # fmt: skip
def test_a_torch_that_does_not_work_is_a_problem_and_the_rest_is_still_checked(doctor, monkeypatch, lines, name, words):
    monkeypatch.setattr(machine, "start_torch", torch_that(*lines))
    code, found = doctor()
    assert code == 1
    assert words in found["problem"][name][0]["found"]
    assert "store" in found["ok"]


def test_a_torch_that_hangs_is_a_problem_and_is_not_waited_for(tmp_path, doctor, monkeypatch):
    mark = tmp_path / "mark"

    def start():
        process = torch_that(*said(TORCH), f"open({str(mark)!r}, 'w').close()", "time.sleep(600)")()
        while not mark.exists():
            time.sleep(0.01)
        return process

    monkeypatch.setattr(machine, "TORCH_SECONDS", 0.1)
    monkeypatch.setattr(machine, "start_torch", start)
    code, found = doctor()
    assert code == 1
    assert found["problem"]["devices"][0]["found"] == "trying the CPU failed: it did not answer within 0.1 s"


def test_gpus_are_reported_with_their_memory_and_whether_kernels_run(doctor, monkeypatch):
    bare = {**GPU, "part": "cuda:1", "kernels": False, "warning": "no C compiler"}
    monkeypatch.setattr(machine, "start_torch", torch_that(*said(TORCH, CPU, GPU, bare)))
    code, found = doctor()
    assert code == 0
    assert "H100, 16.0 of 32.0 GiB free" in found["ok"]["device cuda:0"][0]["found"]
    assert found["ok"]["device cuda:0"][0]["found"].endswith("Triton's kernels run")
    assert found["note"]["device cuda:1"][0]["found"].endswith("slower torch code replaces them: no C compiler")


def test_busy_cores_are_noted(doctor, monkeypatch):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    code, found = doctor()
    assert code == 0
    assert "load of the last minute 1000.0" in found["note"]["processor"][0]["found"]
