"""Overhead of the run engine, and the gain of parallel jobs.

    python benchmarks/engine.py cells [--cells 400]      # seconds and memory of the engine, beside its cells
    python benchmarks/engine.py jobs [--rounds 3]        # a suite with 2 jobs of 1 thread, 1 job of 2, 1 of 1
    python benchmarks/engine.py beside [--rounds 3]      # the same beside a program that keeps one core busy
    python benchmarks/engine.py stop [--rounds 3]        # from Ctrl-C to the end of a run and its workers
    python benchmarks/engine.py listeners                # processor time of journal and dashboard in a run

The suite is controls.toml on the positive control. Each round runs every variant once. The benchmark
prints the median over the rounds.
"""

import argparse
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb

SUITE = """
title = "Engine"
seeds = {seeds}
[datasets.world]
source = "synthetic"
users = 60
items = 30
providers = 4
mean_length = 6
max_length = 6
[models.sasrec]
embedding_size = 8
inner_size = 8
n_layers = 1
[training]
epochs = 1
batch_size = 128
"""
STORE = Path("reports/ipsrec-bench.duckdb")
CONTROLS = Path(__file__).parent.parent / "suites" / "controls.toml"
POSITIVE = 'datasets=["positive-control"]'
RANKS = 'SELECT key, split, "user", higher, ties FROM ranks JOIN cells USING (cell) ORDER BY ALL'


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    (line,) = (row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def table(store: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(store), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def cost_of_cells(executor: str, cells: int) -> None:
    """Run many tiny cells and print the time that is not their own work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.toml").write_text(SUITE.format(seeds=list(range(1, cells + 1))), encoding="utf-8")
        words = ("run", "suite.toml", "--json", "--executor", executor, "--jobs", "1", "--threads", "1")
        memory: dict[int, int] = {}
        ended, first, last = 0, 0.0, 0.0
        with subprocess.Popen(
            [sys.executable, "-m", "ipsrec_bench", *words], cwd=folder, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                kind = json.loads(line)["event"]
                if kind == "cell-started" and not first:
                    first = time.perf_counter()
                if kind == "cell-finished":
                    ended, last = ended + 1, time.perf_counter()
                    if ended % (cells // 4) == 0:
                        memory[ended] = resident(process.pid)
        ((own,),) = table(folder / STORE, "SELECT sum(seconds) FROM cells WHERE status = 'complete'")
        assert ended == cells
        cost = (last - first - float(str(own))) / cells
        shown = ", ".join(f"{count}: {size >> 20} MiB" for count, size in memory.items())
        work = float(str(own)) / cells
        print(f"{executor}: {1000 * cost:.0f} ms of overhead per cell, beside {1000 * work:.0f} ms of its own work")
        print(f"  memory of the started process, by finished cells: {shown}", flush=True)


def controls(jobs: int, threads: int, settings: list[str]) -> tuple[float, list[tuple[object, ...]]]:
    """Run the suite in a fresh folder; return its seconds and its ranks."""
    with tempfile.TemporaryDirectory() as name:
        words = ("run", str(CONTROLS), "--quiet", "--jobs", str(jobs), "--threads", str(threads))
        words += tuple(word for setting in (POSITIVE, *settings) for word in ("--set", setting))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ipsrec_bench", *words], cwd=name, check=True)
        return time.perf_counter() - began, table(Path(name) / STORE, RANKS)


def spin() -> None:
    """Keep a core busy."""
    while True:
        sum(range(100_000))


def jobs_side_by_side(rounds: int, settings: list[str]) -> None:
    """Print the gain of two jobs of one thread over one job of two, and whether ranks are the same."""
    ways = ((2, 1), (1, 2), (1, 1))
    seconds: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    ranks = {}
    for _ in range(rounds):
        for way in ways:
            took, ranks[way] = controls(*way, settings)
            seconds[way].append(took)
            print(f"  --jobs {way[0]} --threads {way[1]}: {took:.1f} s", flush=True)
    middle = {way: statistics.median(took) for way, took in seconds.items()}
    print(f"2 jobs are {middle[1, 2] / middle[2, 1]:.2f} times as fast as 1 job of 2 threads")
    same = ranks[2, 1] == ranks[1, 1]
    print(f"  and {middle[1, 1] / middle[2, 1]:.2f} times as fast as 1 job of 1; ranks equal: {same}")


def beside_a_busy_core(rounds: int, settings: list[str]) -> None:
    """Print how much longer a run takes beside a program that keeps one core busy."""
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(controls(2, 1, settings)[0])
        busy = multiprocessing.Process(target=spin)
        busy.start()
        beside.append(controls(2, 1, settings)[0])
        busy.kill()
        print(f"  alone {alone[-1]:.1f} s, beside a busy core {beside[-1]:.1f} s", flush=True)
    print(f"beside a busy core: {statistics.median(beside) / statistics.median(alone):.2f} times as long")


def until_the_end(rounds: int) -> None:
    """Print how long a run of the suite takes to end after Ctrl-C, with its workers."""
    took = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            words = ("run", str(CONTROLS), "--json", "--jobs", "2", "--set", POSITIVE, "--set", "training.epochs=1000")
            with subprocess.Popen(
                [sys.executable, "-m", "ipsrec_bench", *words],
                cwd=name,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            ) as process:
                assert process.stdout is not None
                workers = set()
                for line in process.stdout:
                    event = json.loads(line)
                    if event["event"] == "worker-started":
                        workers.add(event["pid"])
                    if event["event"] == "epoch-done" and event["epoch"] > 1 and "sasrec" not in event["label"]:
                        break
                began = time.perf_counter()
                os.killpg(process.pid, signal.SIGINT)
                process.stdout.read()
                code = process.wait()
                took.append(time.perf_counter() - began)
                left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
                print(f"  {took[-1]:.2f} s, exit code {code}, workers left: {left}", flush=True)
    print(f"from Ctrl-C to the end: {statistics.median(took):.2f} s, at most {max(took):.2f} s")


def listeners() -> None:
    """Print the share of a run's processor time that journal and dashboard take."""
    from rich.console import Console
    from rich.live import Live

    from ipsrec_bench.cli.listen import listener
    from ipsrec_bench.run.engine import execute
    from ipsrec_bench.run.executors.inline import Inline
    from ipsrec_bench.run.journal import Journal
    from ipsrec_bench.run.plan import make_plan
    from ipsrec_bench.suite.load import load_suite

    spent = {"events": 0.0, "pictures": 0.0}
    drawn = Live.update

    def timed_update(self, *rest, **options):
        began = time.thread_time()
        drawn(self, *rest, **options)
        spent["pictures"] += time.thread_time() - began

    Live.update = timed_update
    file = load_suite(CONTROLS, [POSITIVE, "seeds=[1]", "training.epochs=10"])
    screen = Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), force_terminal=True, width=110, height=30)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "s.duckdb"
        with listener(screen, quiet=False, as_json=False, journal=Journal(store, file.name)) as listen:

            def emit(event):
                began = time.thread_time()
                listen(event)
                spent["events"] += time.thread_time() - began

            plan = make_plan(file, Path(name) / "data", store, emit)
            began = time.process_time()
            execute(plan, store, partial(Inline, "cpu", 1), emit)
            whole = time.process_time() - began
    for what, seconds in spent.items():
        print(f"{what}: {100 * seconds / whole:.2f}% of {whole:.0f} s of processor time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cells", "jobs", "beside", "stop", "listeners"))
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="of the suite, like seeds=[1]")
    options = parser.parse_args()
    if options.what == "cells":
        for executor in ("inline", "pool"):
            cost_of_cells(executor, options.cells)
    elif options.what == "jobs":
        jobs_side_by_side(options.rounds, options.settings)
    elif options.what == "beside":
        beside_a_busy_core(options.rounds, options.settings)
    elif options.what == "stop":
        until_the_end(options.rounds)
    else:
        listeners()


if __name__ == "__main__":
    main()
