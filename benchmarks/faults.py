"""A campaign of faults: runs are killed and disturbed at random moments, and the same command resumes each time.

    python benchmarks/faults.py --faults 200 [--jobs 2] [--seed 1]

A round is one store, from its first run to the last cell; rounds are repeated until the number of faults is reached.
At the end of each, every cell is complete exactly once, its ranks are those of an undisturbed run bit for bit, no
process is left, and no temporary file is left. Anything else ends the campaign with exit code 1. States of trainings
are written after every epoch here, not every 30 seconds, so that killed cells can be resumed.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import duckdb
import numpy as np

SUITE = """
title = "Faults"
seeds = [1]
[datasets.world]
source = "synthetic"
users = 200
items = 60
providers = 6
mean_length = 9
max_length = 10
[models.pop]
[models.sasrec]
embedding_size = 16
inner_size = 32
[models.gru4rec]
embedding_size = 16
[models.ipsrec-c]
embedding_size = 16
inner_size = 32
[training]
epochs = 15
patience = 15
batch_size = 64
"""
STORE = Path("reports/ipsrec-bench.duckdb")
RANKS = 'SELECT key, split, "user", higher, ties FROM ranks JOIN cells USING (cell) ORDER BY ALL'
MARK, LIMIT = "FAULTS_CAMPAIGN", "FAULTS_LIMIT"
"""Environment variables: the first one marks the processes of the campaign; the second one is the maximum size of a
file in bytes, as on a full disk."""
LONGEST_START = 6.0
"""Maximum seconds before a fault; a run loads torch for two or three of them."""
ENDING_SECONDS = 60.0
"""Maximum time from a fault to the end of the last process: on a busy machine, a new process first imports torch, and
one that draws the report's charts first finishes the current one."""


@dataclass
class Campaign:
    """The faults so far, and the folder of the round."""

    folder: Path
    jobs: int
    chance: np.random.Generator
    mark: str = field(default_factory=lambda: uuid4().hex)
    done: Counter[str] = field(default_factory=Counter)
    endings: list[float] = field(default_factory=list)
    """Seconds from each fault to the end of the last process."""

    def start(self, limit: int | None = None) -> subprocess.Popen[str]:
        """Start the run of this round; with `limit`, no file may grow beyond this many bytes, as on a full disk."""
        log = (self.folder / f"{time.time_ns()}.log").open("w")
        words = ("run", "suite.toml", "--jobs", str(self.jobs), "--threads", "1", "--retry-failed", "--json")
        with log:
            return subprocess.Popen(
                [sys.executable, __file__, *words],
                cwd=self.folder,
                env={**os.environ, MARK: self.mark, **({LIMIT: str(limit)} if limit else {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Return the processes of the campaign that are alive."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    def workers(self, run: subprocess.Popen[str]) -> list[int]:
        """Return the processes that train for a run."""
        found = []
        for pid in self.processes():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if pid != run.pid and b"spawn_main" in words:
                found.append(pid)
        return found

    def wait_for_the_end(self, what: str) -> None:
        """Wait until no process is left.

        Raises:
            SystemExit: some are.
        """
        start = time.monotonic()
        while left := self.processes():
            if time.monotonic() > start + ENDING_SECONDS:
                commands = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in left]
                sys.exit(f"FAILED: after {what} processes are left: {commands}")
            time.sleep(0.1)
        self.endings.append(time.monotonic() - start)


def kill_run(_: Campaign, run: subprocess.Popen[str]) -> None:
    """Kill the coordinator alone."""
    run.kill()


def kill_all(_: Campaign, run: subprocess.Popen[str]) -> None:
    """Kill the coordinator and its workers at once."""
    os.killpg(run.pid, signal.SIGKILL)


def kill_worker(campaign: Campaign, run: subprocess.Popen[str]) -> None:
    """Kill a worker; the run continues, and is killed a little later."""
    workers = campaign.workers(run)
    if workers:
        os.kill(int(campaign.chance.choice(workers)), signal.SIGKILL)
        time.sleep(campaign.chance.uniform(0.5, LONGEST_START))
    run.kill()


def terminate(campaign: Campaign, run: subprocess.Popen[str]) -> None:
    """Send one of the signals that end a command cleanly."""
    number = campaign.chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    os.killpg(run.pid, int(number)) if campaign.chance.random() < 0.5 else run.send_signal(int(number))


def lock_store(campaign: Campaign, run: subprocess.Popen[str]) -> None:
    """Hold the store open while cells end, then kill the run."""
    store = campaign.folder / STORE
    if store.exists():
        try:
            with duckdb.connect(str(store), read_only=True):
                time.sleep(campaign.chance.uniform(0.5, 3.0))
        except duckdb.Error:  # the run has it open at this moment
            pass
    run.kill()


def tear_journal(campaign: Campaign, run: subprocess.Popen[str]) -> None:
    """Leave half a line at the end of the run's journal, as a power cut does."""
    run.kill()
    run.wait()
    journals = sorted((campaign.folder / f"{STORE}.d" / "runs").glob("*.jsonl"))
    if journals:
        content = journals[-1].read_bytes()
        journals[-1].write_bytes(content[: max(1, len(content) - int(campaign.chance.integers(1, 60)))])


FAULTS: dict[str, Callable[[Campaign, "subprocess.Popen[str]"], None]] = {
    "SIGKILL of the coordinator": kill_run,
    "SIGKILL of a worker, then of the coordinator": kill_worker,
    "SIGKILL of all processes": kill_all,
    "SIGTERM, SIGINT or SIGHUP": terminate,
    "store locked, then SIGKILL": lock_store,
    "journal torn": tear_journal,
}
FULL_DISK = "disk full"


def disturb(campaign: Campaign) -> None:
    """Start the run, cause one fault, and wait until no process is left."""
    names = [*FAULTS, FULL_DISK]
    name = names[sum(campaign.done.values()) % len(names)]
    store = campaign.folder / STORE
    limit = None
    if name == FULL_DISK:
        # The store outgrows it with the next cells.
        limit = (store.stat().st_size if store.exists() else 1 << 20) + int(campaign.chance.integers(1, 1 << 17))
    run = campaign.start(limit)
    if limit is None:
        try:
            run.wait(campaign.chance.uniform(0.3, LONGEST_START))
        except subprocess.TimeoutExpired:
            FAULTS[name](campaign, run)
    run.wait()
    campaign.wait_for_the_end(name)
    campaign.done[name] += 1


def table(store: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(store), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def is_over(campaign: Campaign, cells: int) -> bool:
    """Return whether the round's store has all its cells."""
    store = campaign.folder / STORE
    try:
        return table(store, "SELECT count(*) FROM cells WHERE status = 'complete'") == [(cells,)]
    except duckdb.Error:
        return False


def finished(log: Path) -> list[str]:
    """Return the keys of the finished cells in the log of a run. The last line of the log may be incomplete."""
    lines = [line for line in log.read_text().splitlines() if line.startswith('{"event": "cell-finished"')]
    return [json.loads(line)["key"] for line in lines if line.endswith("}")]


def check(campaign: Campaign, wanted: list[tuple[object, ...]], cells: int) -> None:
    """Run the same command once more, undisturbed, and compare.

    Raises:
        SystemExit: a check fails.
    """
    last = campaign.start()
    logs = sorted(campaign.folder.glob("*.log"))
    if last.wait() != 0:
        sys.exit(f"FAILED: the undisturbed command ended with {last.returncode}: {logs[-1].read_text()[-2000:]}")
    campaign.wait_for_the_end("the last run")
    store = campaign.folder / STORE
    found = table(store, "SELECT count(*), count(DISTINCT key), count(*) FILTER (status = 'complete') FROM cells")
    problems = []
    if found != [(cells, cells, cells)]:
        problems.append(f"cells: {found}")
    if table(store, RANKS) != wanted:
        problems.append("ranks differ from those of an undisturbed run")
    for log in logs:
        text = log.read_text()
        if "Traceback" in text:
            problems.append(f"a traceback: {text[text.index('Traceback') :][:1500]}")
    ended = Counter(key for log in logs for key in finished(log))
    problems += [f"a cell was finished {count} times" for count in ended.values() if count > 1]
    places = [str(path.relative_to(campaign.folder)) for path in (campaign.folder / "reports").rglob("*")]
    left = [place for place in places if ".part" in place or ".wal" in place or ".d/cells/" in place]
    if left:
        problems.append(f"left behind: {left}")
    if problems:
        sys.exit("FAILED: " + "\n".join(problems))


def main() -> None:
    if MARK in os.environ:
        from ipsrec_bench.cli.main import main as run

        if LIMIT in os.environ:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ[LIMIT]),) * 2)
        run()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = np.random.default_rng(options.seed)
    done: Counter[str] = Counter()
    began, rounds = time.perf_counter(), 0
    endings: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        whole = Campaign(Path(name) / "whole", options.jobs, chance)
        whole.folder.mkdir()
        (whole.folder / "suite.toml").write_text(SUITE, encoding="utf-8")
        if whole.start().wait() != 0:
            sys.exit("FAILED: the undisturbed run")
        wanted = table(whole.folder / STORE, RANKS)
        cells = len(table(whole.folder / STORE, "SELECT key FROM cells"))
        while sum(done.values()) < options.faults:
            rounds += 1
            campaign = Campaign(Path(name) / f"round-{rounds}", options.jobs, chance, done=done, endings=endings)
            campaign.folder.mkdir()
            (campaign.folder / "suite.toml").write_text(SUITE, encoding="utf-8")
            while sum(done.values()) < options.faults and not is_over(campaign, cells):
                disturb(campaign)
            check(campaign, wanted, cells)
            shutil.rmtree(campaign.folder)
            print(f"round {rounds}: {sum(done.values())} faults, {time.perf_counter() - began:.0f} s", flush=True)
    for fault, count in done.items():
        print(f"| {fault} | {count} |")
    median, longest = statistics.median(endings), max(endings)
    print(f"the last process ended {median:.1f} s after a fault (median), {longest:.1f} s at most")
    print(f"{sum(done.values())} faults in {rounds} rounds, {time.perf_counter() - began:.0f} s: all checks passed")


if __name__ == "__main__":
    main()
elif MARK in os.environ:  # a worker of the campaign, which imports this module
    from ipsrec_bench.training import state

    state.SECONDS, state.SHARE = 0.0, 1
