"""The part of a cluster's executor on a node: the files that it sees, receives and returns."""

import os
import pickle
import sys
import tempfile
import time
from functools import partial

import pytest

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import StoreBusy
from ipsrec_bench.run.engine import execute
from ipsrec_bench.run.executors.api import Died, Done, Refused, Slot, Stopped
from ipsrec_bench.run.executors.inline import Inline
from ipsrec_bench.run.executors.node import CHUNK, DataAt, Modules, Node, modules_in, versions
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.run.workplace import KEPT, LOG, STATE, Workplace
from ipsrec_bench.suite.load import load_suite

from .test_run import STORE

MODULES = {
    "parts_of_mine/__init__.py": b"",
    "parts_of_mine/inner.py": b"def work(place, data, emit): return 'done'",
}
SLOT = Slot("worker 1", "cpu", 1)


def go_on(place, _data, emit):
    """Write the files of a training, more each time, and wait to be ended."""
    state = place.folder / STATE
    state.write_bytes((state.read_bytes() if state.exists() else b"") + b"an epoch")
    (place.folder / "unfinished.part").touch()
    while True:
        emit(StoreBusy("on"))
        time.sleep(0.01)


def finish(size, place, data, _emit):
    (place.folder / KEPT).write_bytes(bytes(range(256)) * (size // 256))
    return place.folder, data.path if data else None, os.getpid()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The node's own disk."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def node(own):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(own))
        patch.setattr(sys, "path", [*sys.path])
        patch.setitem(vars(sys.modules["__main__"]), "__file__", "no file")
        made = Node()
        made.open([SLOT], Modules(own / "nowhere", MODULES), {})
        yield made
        made.close()
        assert [path for path in own.glob("*/*/*") if path.parent.name != "data"] == []


def ended(node):
    """Listen until a task has ended."""
    events = []
    while True:
        heard = node.listen()
        events += heard.events
        if heard.ended:
            (found,) = heard.ended
            return found, events


def at(data):
    return DataAt(data.name, data.path, data.fingerprint)


def test_a_node_works_in_the_folder_and_with_the_data_that_it_sees(node, world, tmp_path):
    (tmp_path / "mark").touch()
    assert node.sees(tmp_path, "mark", at(world)) == (True, True)
    node.begin(SLOT, "k", pickle.dumps(partial(finish, 512)), at(world), tmp_path)
    found, _ = ended(node)
    assert isinstance(found.outcome, Done)
    assert found.files == []
    assert pickle.loads(found.outcome.result)[:2] == (tmp_path, world.path)  # noqa: S301
    assert (tmp_path / KEPT).stat().st_size == 512


def test_a_node_that_sees_neither_works_on_copies_and_returns_its_files(node, own, world, tmp_path):
    elsewhere = DataAt(world.name, tmp_path / "nowhere", world.fingerprint)
    assert node.sees(tmp_path / "nowhere", "mark", elsewhere) == (False, False)
    for path in world.path.iterdir():
        content = path.read_bytes()
        for part in (content[:100], content[100:]):
            node.receive(world.fingerprint, path.name, part)
    node.keep_data(world.fingerprint)
    assert node.sees(tmp_path / "nowhere", "mark", elsewhere) == (False, True)
    size = CHUNK + 512
    node.begin(SLOT, "k", pickle.dumps(partial(finish, size)), elsewhere, None)
    found, _ = ended(node)
    folder, data, _ = pickle.loads(found.outcome.result)  # noqa: S301
    assert own in folder.parents
    assert {path.name: path.read_bytes() for path in data.iterdir()} == {
        path.name: path.read_bytes() for path in world.path.iterdir()
    }
    assert found.files == [(LOG, 0), (KEPT, size)]
    content = node.read("k", KEPT, 0)
    assert content + node.read("k", KEPT, len(content)) == bytes(range(256)) * (size // 256)
    node.leave("k")
    assert not folder.exists()


def test_data_of_another_fingerprint_in_the_same_place_is_not_used(node, world, tmp_path):
    assert node.sees(tmp_path, "mark", DataAt(world.name, world.path, "another")) == (False, False)


def test_a_stopped_or_killed_task_resumes_from_the_files_that_it_was_sent(node):
    node.receive("k", STATE, b"an epoch")
    node.begin(SLOT, "k", pickle.dumps(go_on), None, None)
    node.listen()
    node.stop("k")
    found, _ = ended(node)
    assert found.outcome == Stopped("k")
    assert node.read("k", STATE, 0) == b"an epochan epoch"
    node.leave("k")
    node.begin(SLOT, "k", pickle.dumps(go_on), None, None)
    while not any(isinstance(event, StoreBusy) for event in node.listen().events):
        pass
    node.kill("k", "it took too long")
    found, _ = ended(node)
    assert found.outcome == Died("k", "it took too long")
    assert found.files == [(LOG, 0), (STATE, 8)]
    node.leave("k")


def test_modules_that_a_node_does_not_see_are_copied_and_those_that_it_lacks_are_named(node):
    node.begin(SLOT, "k", b"cparts_of_mine.inner\nwork\n.", None, None)
    assert pickle.loads(ended(node)[0].outcome.result) == "done"  # noqa: S301
    node.leave("k")
    node.begin(SLOT, "k", b"cnowhere_to_be_found\nwork\n.", None, None)
    outcome = ended(node)[0].outcome
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, BenchError)
    assert "the module 'nowhere_to_be_found' is missing" in str(outcome.error)
    node.leave("k")


def test_modules_and_packages_of_a_folder_are_found(tmp_path):
    for name in ("mine.py", "parts/__init__.py", "parts/inner/deep.py", "no_package/other.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(modules_in(tmp_path).files) == ["mine.py", "parts/__init__.py", "parts/inner/deep.py"]


def test_versions_differ_if_the_code_does():
    assert versions().keys() == {"ipsrec-bench", "torch", "numpy", "Python"}
    assert "+" not in versions()["torch"]


class Losing(Inline):
    """An executor whose machine is lost three times."""

    losses = 3

    def outcomes(self, seconds):
        if self._task is None or not self.losses:
            return super().outcomes(seconds)
        self.losses -= 1
        task, self._task = self._task, None
        return [Died(task.key, "the node was lost", blame=False)]


def test_a_cell_whose_node_is_lost_begins_again_however_often(tiny_suite, tmp_path):
    store = tmp_path / STORE
    plan = make_plan(load_suite(tiny_suite, ["seeds=[1]"]), tmp_path / "data", store, lambda _: None)
    ended = execute(plan, store, partial(Losing, "cpu", 1), lambda _: None)
    assert (ended.complete, ended.failed) == (5, 0)
    assert Workplace(store).deaths() == {}
