"""Cells on a Ray cluster: nodes that see the disk and nodes that do not, lost nodes, and nodes that differ."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import pytest

import ipsrec_bench

from .conftest import clean_environment, command
from .test_run import ALL_RANKS, STORE, run_suite, table

pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'")

SUITE = """
title = "Cluster"
seeds = [1, 2]
modules = "."
[datasets.world]
source = "synthetic"
users = 120
items = 40
providers = 6
mean_length = 7
max_length = 8
[models.pop]
[models.mine]
type = "mine:Mine"
embedding_size = 8
inner_size = 16
[models.sasrec]
embedding_size = 8
inner_size = 16
[models.ipsrec-s]
embedding_size = 8
inner_size = 16
[training]
epochs = 15
patience = 15
batch_size = 32
"""
MODULE = """
from ipsrec_bench.models.configs import TransformerConfig
from ipsrec_bench.models.sasrec import SASRec


class Mine(SASRec):
    config_type = TransformerConfig
"""
CELLS = 7
PATIENT = {"RAY_raylet_start_wait_time_s": "200"}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}
"""Keeps others from the cluster, which listens to the network."""
MEMORY = str(80_000_000)
"""Bytes of a node's object store: about the minimum that Ray accepts."""


class Cluster:
    """Nodes on this machine, each in a separate process group."""

    def __init__(self, folder):
        self.folder, self.groups = folder, []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def start(self, name, *options, hidden="", **environment):
        """Start a node with one processor, to which the folder `hidden` looks empty, and wait until it has joined."""
        port = self.address.partition(":")[2]
        place = [f"--port={port}", f"--temp-dir={self.folder}"] if name == "head" else [f"--address={self.address}"]
        ray = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *place, *options,
            "--num-cpus=1", f"--object-store-memory={MEMORY}", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        if hidden:
            ray = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *ray]
        own = self.folder / name
        own.mkdir()
        with (own / "log").open("w") as log:
            process = subprocess.Popen(
                ray, cwd=own, stdout=log, stderr=log, start_new_session=True,
                env=clean_environment() | TOKEN | PATIENT | {"TMPDIR": str(own)} | environment,
            )  # fmt: skip
        self.groups.append(process)
        until = time.monotonic() + 240
        while "Ray runtime started" not in (said := (own / "log").read_text()):  # two at once take the same socket
            assert process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.2)
        return process

    def stop(self):
        for process in reversed(self.groups):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def folder():
    """A short one: sockets have paths of 100 characters at most."""
    made = Path(tempfile.mkdtemp(prefix="ray-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(folder):
    made = Cluster(folder)
    try:
        made.start("head", "--head", "--include-dashboard=false")
        yield made
    finally:
        made.stop()
        assert gone(processes_of(folder)), processes_of(folder)


def processes_of(folder):
    """Return the processes of a cluster's nodes that still run, with their children."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        if f"TMPDIR={folder}".encode() in environment(place.name):
            found[int(place.name)] = (place / "cmdline").read_bytes()
    return found


def environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def gone(pids, seconds=30):
    until = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def is_alive(pid):
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Ranks of all cells, from a run in this process."""
    place = tmp_path_factory.mktemp("inline")
    write_suite(place)
    ended, _, store = run_suite(place / "cluster.toml", place)
    assert ended.complete == CELLS
    return table(store, ALL_RANKS)


def write_suite(place):
    (place / "cluster.toml").write_text(SUITE, encoding="utf-8")
    (place / "mine.py").write_text(MODULE, encoding="utf-8")


@contextlib.contextmanager
def running(place, cluster):
    """Run the suite on the cluster; yield the process, whose events are on its standard output."""
    process = subprocess.Popen(
        command("run", "cluster.toml", "--executor", "ray", "--address", cluster.address, "--json"),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment() | TOKEN,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def events_until(process, is_last):
    found = []
    for line in process.stdout:
        found.append(json.loads(line))
        if is_last(found[-1]):
            return found
    raise AssertionError((found, process.stderr.read()))


def finish(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, [json.loads(line) for line in output.splitlines()], errors


def can_hide():
    unshare = Path("/usr/bin/unshare")
    return unshare.exists() and not subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode


def other_version(folder):
    """Return a folder with another version of the toolkit."""
    package = folder / "other" / "ipsrec_bench"
    shutil.copytree(Path(ipsrec_bench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text('"""Another."""\n\n__version__ = "0.0.9"\n', encoding="utf-8")
    return package.parent


@pytest.mark.skipif(not can_hide(), reason="no folder can be hidden from a process here")
def test_ranks_from_lost_and_unequal_nodes_are_those_of_a_run_in_one_process(cluster, folder, expected, tmp_path):
    """One node does not see the disk, and is lost while it trains; another has another version."""
    write_suite(tmp_path)
    blind = cluster.start("blind", hidden=tmp_path)
    other = cluster.start("other-version", PYTHONPATH=str(other_version(folder)))
    there = set()

    def is_there(event):
        """Return whether an event is of a worker on the node that does not see the disk."""
        if event["event"] == "worker-started" and f"TMPDIR={folder}/blind".encode() in environment(event["pid"]):
            there.add(event["worker"])
        return event["worker"] in there

    with running(tmp_path, cluster) as process:
        first = events_until(process, lambda event: is_there(event) and event["event"] == "cell-started")
        key = first[-1]["key"]
        second = events_until(process, lambda event: event["event"] == "cell-finished" and event["key"] == key)
        third = events_until(process, lambda event: is_there(event) and event["event"] == "epoch-done")
        os.killpg(blind.pid, signal.SIGKILL)
        code, last, errors = finish(process)
    os.killpg(other.pid, signal.SIGKILL)
    assert (code, errors) == (0, "")
    events = first + second + third + last
    assert any("0.0.9" in event["message"] for event in events if event["event"] == "executor-notice")
    ends = [(event["worker"] in there, event["reason"]) for event in events if event["event"] == "worker-ended"]
    assert [(is_lost, "the node " in reason) for is_lost, reason in ends] == [(True, True)]
    assert list((folder / "blind").glob("ipsrec-bench-*/data/*/meta.json"))
    store = tmp_path / STORE
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells WHERE status = 'complete'") == [(CELLS, CELLS)]
    assert table(store, ALL_RANKS) == expected
    assert not (tmp_path / f"{STORE}.d" / "deaths.json").exists()
    assert gone([event["pid"] for event in events if event["event"] == "worker-started"])


def test_a_run_that_is_killed_or_stopped_leaves_no_process_and_the_next_one_resumes(cluster, expected, tmp_path):
    write_suite(tmp_path)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with running(tmp_path, cluster) as process:
            events = events_until(process, lambda event: event["event"] == "epoch-done")
            process.send_signal(number)
            found, _, errors = finish(process)
        assert found == code
        assert "Traceback" not in errors
        assert ("the same command resumes" in errors) == (code == 130)
        assert gone([event["pid"] for event in events if event["event"] == "worker-started"])
    with running(tmp_path, cluster) as process:
        code, _, errors = finish(process)
    assert (code, errors) == (0, "")
    store = tmp_path / STORE
    assert table(store, "SELECT count(*), count(DISTINCT key) FROM cells WHERE status = 'complete'") == [(CELLS, CELLS)]
    assert table(store, ALL_RANKS) == expected


def test_a_cluster_that_cannot_be_joined_and_a_cell_that_no_node_can_hold_are_sentences(cluster, tmp_path):
    write_suite(tmp_path)
    for options, reason in (
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1: no Ray cluster can be joined"),
        (("--address", cluster.address, "--threads", "9"), "no node of the Ray cluster has 9 processors"),
    ):
        done = subprocess.run(
            command("run", "cluster.toml", "--quiet", "--executor", "ray", *options),
            cwd=tmp_path, capture_output=True, text=True, env=clean_environment() | TOKEN, check=False,
        )  # fmt: skip
        assert (done.returncode, reason in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
