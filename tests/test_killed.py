"""Commands that are killed at any moment: nothing is lost, half-written or left behind."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from ipsrec_bench.run.workplace import Workplace

from .conftest import clean_environment, command
from .test_run import ALL_RANKS, STORE, table

KILLS = int(os.environ.get("IPSREC_BENCH_KILLS", "4"))
"""Number of kills; sixty take two minutes."""

SUITE = """
title = "Shop"
seeds = [1, 2]
[datasets.shop]
path = "${IPSREC_BENCH_CASES}/shop.csv"
max_length = 8
[models.pop]
[models.sasrec]
embedding_size = 8
inner_size = 16
[models.ipsrec-s]
embedding_size = 8
inner_size = 16
[training]
epochs = 10
batch_size = 16
"""
TRIALS = 3
COMMANDS = {
    "run": ("run", "shop.toml", "--json"),
    "tune": ("tune", "shop.toml", "--model", "ipsrec-s", "--trials", TRIALS, "--json", "--set", "training.epochs=5"),
    "prepare": ("data", "prepare", "shop", "--suite", "shop.toml"),
    "report": ("report", "shop", "--format", "html,md,latex,json"),
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(name: str, folder: Path) -> subprocess.Popen:
    cases = str(Path(__file__).parent / "cases")
    return subprocess.Popen(
        command(*COMMANDS[name]), cwd=folder, env=clean_environment() | {"IPSREC_BENCH_CASES": cases},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(name: str, folder: Path) -> str:
    process = start(name, folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (name, errors)
    return output


def check_pages(folder: Path) -> None:
    for page in folder.glob("reports/*/*.html"):
        assert page.read_text(encoding="utf-8").rstrip().endswith("</html>"), page


def test_commands_killed_at_random_lose_nothing_and_leave_nothing(tmp_path):
    """Signals end one process of a command or all; the ranks are those of an undisturbed run."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
        (folder / "shop.toml").write_text(SUITE, encoding="utf-8")
    finish("run", whole)
    chance = np.random.default_rng(5)
    names = [list(COMMANDS)[number % len(COMMANDS)] for number in range(KILLS)]
    for name in names:
        process = start(name, killed)
        time.sleep(chance.uniform(0.1, 3))
        number = SIGNALS[chance.integers(len(SIGNALS))]
        if process.poll() is None:
            if chance.random() < 0.5:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, (name, number, errors)
        check_pages(killed)
    outputs = {name: finish(name, killed) for name in COMMANDS}
    check_pages(killed)
    store = killed / STORE
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells WHERE status = 'complete'") == [(5, 5)]
    assert table(store, ALL_RANKS) == table(whole / STORE, ALL_RANKS)
    assert not Workplace(store).deaths()
    assert {place for place in places(killed) if is_leftover(place)} == set()
    (study,) = json.loads(outputs["tune"])
    assert len(study["trials"]) == TRIALS


def places(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def is_leftover(place: str) -> bool:
    """Return whether the file or folder is a temporary one of a command."""
    return any(part in place for part in (".part", ".wal", ".tmp", ".d/cells/", ".d/trials/")) or (
        Path(place).name.startswith(".") and not place.endswith((".lock", ".basis"))
    )
