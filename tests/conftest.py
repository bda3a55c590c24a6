"""Shared pieces: small datasets, the command line, and the order in which tests run side by side."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from typer.testing import CliRunner

from ipsrec_bench.cli.main import app
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.report import renderer
from ipsrec_bench.run.environment import available_cores
from ipsrec_bench.suite.schema import SyntheticSource, TableSource

if not torch.cuda.is_available():
    # Kernels are then run by Triton's interpreter, on the CPU; it looks here when it is first imported.
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("untimed", deadline=None)  # an example that takes 0.2 s on a busy machine is no failure
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent

TINY_SUITE = """
title = "Tiny"
seeds = [1, 2]
[datasets.world]
source = "synthetic"
users = 120
items = 40
providers = 6
mean_length = 7
max_length = 8
[models.pop]
[models.recent-pop]
[models.sasrec]
embedding_size = 8
inner_size = 16
[models.ipsrec-s]
embedding_size = 8
inner_size = 16
variants."w/o CL" = { lambda = 0 }
[training]
epochs = 2
batch_size = 128
"""


def pytest_configure() -> None:
    """Give each process of pytest-xdist, and all that its tests start, its share of the cores.

    Threads of one that wait for threads of another, whose core it is, take twice as long.

    Signals that are ignored, as in a job in the background, would be ignored by all commands that tests start.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        share = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: workers]
        if share:
            os.sched_setaffinity(0, share)


FIRST = (
    "test_positive_world", "test_negative_world", "test_tuning", "test_cli", "test_together", "test_killed",
    "test_stopping", "test_run", "test_compare",
)  # fmt: skip
"""Files whose tests take longest, the longest first: files run side by side, and what begins last should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session", autouse=True)
def _a_thread_for_each_core():
    torch.set_num_threads(available_cores())


DRAWING = renderer._renderer


class _NoPictures:
    """Answers like the renderer of `ipsrec_bench.report`, with pictures that are empty."""

    def ask(self, kind: str, content: object) -> str:
        return DRAWING().ask(kind, content) if kind == "bundle" else {"svg": EMPTY_PICTURE, "pdf": ""}[kind]


EMPTY_PICTURE = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Leave charts undrawn: drawing takes longer than all else in most tests that write a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "_renderer", _NoPictures)
        yield


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Have charts drawn. In processes that a test starts they always are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "_renderer", DRAWING)
        yield


@contextlib.contextmanager
def _reports_without_charts() -> Iterator[None]:
    """Leave the charts out of reports that commands write, unless the test has them drawn: they cost half a report."""
    with pytest.MonkeyPatch.context() as patch:
        if renderer._renderer is _NoPictures:
            patch.setattr("ipsrec_bench.report.charts.charts_of", lambda _report: [])
        yield


@pytest.fixture
def pictures() -> Iterator[None]:
    """Have the test's charts drawn."""
    with drawing():
        yield


@pytest.fixture
def tiny_suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_SUITE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `tiny.toml` has been run; to be read and copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY_SUITE, encoding="utf-8")
    done = run_bench("run", "tiny.toml", "--quiet", "--device", "cpu", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """The test's folder, in which `tiny.toml` has been run: a copy of `finished_once`."""
    shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A synthetic dataset with histories of 1 to about 20 interactions."""
    source = SyntheticSource(users=200, items=60, providers=8, mean_length=7)
    return prepare("world", source, tmp_path_factory.mktemp("world"))


@pytest.fixture
def prepared_table(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepare a table written as text, by default one with columns user, item, provider, time."""

    def build(text: str, name: str = "log.csv", **settings: object) -> PreparedDataset:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return prepare("table", TableSource.model_validate({"path": str(path), **settings}), tmp_path / "data")

    return build


Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Run `ipsrec-bench` in this process, in the test's folder."""
    return functools.partial(run_bench, cwd=tmp_path)


@pytest.fixture
def bench_process(tmp_path: Path) -> Bench:
    """Run `ipsrec-bench` in a separate process, in the test's folder.

    It takes seconds to start: for what shows only there, such as signals, imports and the exit of the process.
    """
    return functools.partial(run_bench_process, cwd=tmp_path)


def run_bench(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ipsrec-bench` in this process; an error that is not one of its own sentences passes through."""
    changes = dict.fromkeys(os.environ.keys() - clean_environment().keys())
    changes |= {"IPSREC_BENCH_EXECUTOR": "inline", **environment}
    threads = torch.get_num_threads()
    try:
        with contextlib.chdir(cwd), _reports_without_charts():
            result = CliRunner().invoke(app, [str(one) for one in arguments], env=changes, catch_exceptions=False)
    finally:
        torch.set_num_threads(threads)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def run_bench_process(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ipsrec_bench", *map(str, arguments)]


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("IPSREC_BENCH") and k not in ("COLUMNS", "LINES")}


def sequences(data: PreparedDataset) -> list[list[int]]:
    """Return every user's items as dense ids."""
    return [data.items[a:b].tolist() for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)]


def raw_sequences(data: PreparedDataset) -> dict[str, list[str]]:
    """Return every user's items by their raw ids."""
    users, items = vocabulary(data, "users"), vocabulary(data, "items")
    return {users[u]: [items[i] for i in row] for u, row in enumerate(sequences(data))}


def vocabulary(data: PreparedDataset, table: str) -> dict[int, str]:
    import duckdb

    return {i: raw for raw, i in duckdb.read_parquet(str(data.path / f"{table}.parquet")).fetchall()}


def lengths(values: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values)])
