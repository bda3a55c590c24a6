"""The executor `ray`: tasks run on the nodes of a Ray cluster, where one actor per node has a pool of fresh processes.

A task sees the same as in a pool of this machine. A node that sees the task's folder and its data, as on a shared disk,
works there. Any other node gets copies, and its results are copied back.
"""

import contextlib
import logging
import math
import os
import pickle
import secrets
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from ipsrec_bench.errors import BenchError, StoreError
from ipsrec_bench.events import Emit, ExecutorNotice, WorkerEnded, WorkerStarted
from ipsrec_bench.run.executors.api import Died, Done, Executor, Outcome, Refused, Slot, Stopped, Task, Tick
from ipsrec_bench.run.executors.choice import Cluster, available_cores
from ipsrec_bench.run.executors.node import CHUNK, DataAt, Ended, Heard, Node, modules_in, versions
from ipsrec_bench.run.signals import STOPPING
from ipsrec_bench.run.workplace import files_of

TICK_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""Interval at which the list of nodes is read."""
AGAIN_SECONDS = 30.0
"""Backoff before a node is used again after its loss or its actor's: Ray takes a while to notice a dead node."""
WAIT_SECONDS = 10.0
"""Seconds without a slot after which a notice says what is waited for."""
CLOSE_SECONDS, CONNECT_SECONDS = 3.0, 10.0
OBJECT_STORE = 100 << 20
"""Bytes of the object store in a cluster that is started for one run; its objects are small."""
SETTINGS = {  # of Ray, where the user has not set them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that a later version will not hide GPUs
    "RAY_raylet_start_wait_time_s": "120",  # its default of 30 is too short on a busy machine
    "RAY_memory_monitor_refresh_ms": "0",  # it would end a node's whole actor, but the kernel kills only one process
}


@dataclass(eq=False)
class _Given:
    """A task that was given to a node."""

    task: Task
    slot: Slot
    mark: Path
    """A file in the task's folder, by which a node finds out whether it sees that folder."""
    data: DataAt | None
    is_shared: bool = True
    """Whether the node works in the task's folder itself."""
    is_told_to_stop: bool = False


@dataclass(eq=False)
class _Member:
    """A node's actor."""

    node: str
    """Ray's ID of the node."""
    name: str
    """Name of the node in messages."""
    actor: Any
    slots: list[Slot]
    is_ready: bool = False
    given: dict[str, _Given] = field(default_factory=dict)
    """By the keys of tasks."""
    workers: set[str] = field(default_factory=set)
    """Workers that have started and not ended."""
    has: set[str] = field(default_factory=set)
    """Fingerprints of the data that were sent to it."""


class Ray(Executor):
    """Executor whose slots are processes on the nodes of a Ray cluster.

    Nodes that join bring slots, and nodes that die take theirs with them. If this process dies, all workers end.
    """

    def __init__(self, cluster: Cluster, kind: str, threads: int, emit: Emit, tick: Tick) -> None:
        """Join the cluster.

        Args:
            cluster: which one, and how much of it.
            kind: kind of device that each task gets: `cpu` or `cuda`.
            threads: number of torch threads, and of processors, for each task.
            emit: callback that receives the events of tasks and workers.
            tick: callback that is called a few times a second while tasks run.

        Raises:
            BenchError: Ray is not installed, or there is no such cluster.
        """
        self._ray = _connect(cluster.address)
        self._jobs, self._kind, self._threads = cluster.jobs or math.inf, kind, threads
        self._emit, self._tick = emit, tick
        self._modules, self._versions = modules_in(cluster.modules), versions()
        self._members: dict[str, _Member] = {}
        """By Ray's ID of the node."""
        self._answers: dict[Any, tuple[_Member, Callable[[Any], None]]] = {}
        """Pending calls, and the callbacks for their answers."""
        self._ended: list[Outcome] = []
        self._names: dict[str, list[str]] = {}
        """Nodes by their host's name, which several may share."""
        self._not_before: dict[str, float] = {}
        self._refused: set[str] = set()
        self._chunks: dict[str, list[tuple[str, Any]]] = {}
        """Chunks of data in Ray's object store, by fingerprint."""
        self._is_held = self._is_said = False
        self._looked = -math.inf
        self._lacks_since = time.monotonic()
        gpus = sum(node["Resources"].get("GPU", 0) for node in self._nodes().values())
        self._per_gpu = max(1, math.ceil(cluster.jobs / gpus)) if cluster.jobs and gpus else 1

    def free(self) -> list[Slot]:
        """Return the idle slots, those of the least busy nodes first."""
        found, busy = [], 0
        for member in self._members.values():
            busy += len(member.given)
            if member.is_ready:
                taken = {given.slot.worker for given in member.given.values()}
                free = [slot for slot in member.slots if slot.worker not in taken]
                found += [(len(taken) + n, slot) for n, slot in enumerate(free)]
        found.sort(key=lambda pair: pair[0])
        return [slot for _, slot in found[: max(0, int(min(self._jobs - busy, len(found))))]]

    def begin(self, slot: Slot, task: Task) -> None:
        """Hand a task to the slot's node, once the node has answered which files it sees."""
        (member,) = (member for member in self._members.values() if slot in member.slots)
        mark = task.folder / f"{uuid4().hex}.part"
        try:
            mark.touch()
        except OSError as error:
            self._ended.append(Refused(task.key, _refusal(task.folder, error)))
            return
        data = task.data
        at = DataAt(data.name, data.path.absolute(), data.fingerprint) if data is not None else None
        given = member.given[task.key] = _Given(task, slot, mark, at)
        answer = member.actor.sees.remote(task.folder.absolute(), mark.name, at)
        self._await(member, answer, lambda seen: self._equip(member, given, *seen))

    def outcomes(self, seconds: float) -> list[Outcome]:
        """Pass on the events of nodes until a task ends or `seconds` have passed; return all outcomes."""
        deadline = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._looked + LOOK_SECONDS:
                self._look()
            left = min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))
            if self._answers:
                ready, _ = self._ray.wait(list(self._answers), timeout=left)
                for answer in ready:
                    self._take(answer)
            else:
                time.sleep(left)
            self._tick()
            if self._ended or time.monotonic() >= deadline:
                ended, self._ended = self._ended, []
                return ended

    def stop(self, key: str) -> None:
        """Ask the node that has the task to stop it."""
        for member, given in self._at(key):
            given.is_told_to_stop = True
            member.actor.stop.remote(key)

    def kill(self, key: str, cause: str) -> None:
        """Ask the node that has the task to kill its process."""
        for member, given in self._at(key):
            given.is_told_to_stop = True
            member.actor.kill.remote(key, cause)

    def pause(self, *, held: bool) -> None:
        """Pause or resume all nodes."""
        self._is_held = held
        for member in self._members.values():
            if member.is_ready:
                member.actor.pause.remote(held=held)

    def close(self) -> None:
        """End all actors and their processes, and leave the cluster."""
        members = list(self._members.values())
        for member in members:
            for given in member.given.values():
                given.mark.unlink(missing_ok=True)
        self._members.clear()
        self._answers.clear()
        if not self._ray.is_initialized():
            return
        closing = [member.actor.close.remote() for member in members if member.is_ready]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
        for member in members:
            self._ray.kill(member.actor)
        self._ray.shutdown()

    # Nodes that come and go

    def _nodes(self) -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    def _look(self) -> None:
        """Start an actor on each node that has none.

        Raises:
            BenchError: no node can run a task.
        """
        self._looked = now = time.monotonic()
        nodes = self._nodes()
        free = self._ray._private.state.available_resources_per_node()  # noqa: SLF001 (there is no public way)
        able = {name for name, node in nodes.items() if self._devices(node["Resources"])} - self._refused
        for name in able - self._members.keys():
            devices = self._devices(free.get(name, {}))
            if devices and now >= self._not_before.get(name, now):
                self._begin_member(name, nodes[name], devices)
        if any(member.is_ready for member in self._members.values()):
            self._lacks_since, self._is_said = now, False
        elif not able and not self._members:
            if self._refused:
                raise BenchError("no node of the Ray cluster can be used; the reason for each is given above")
            gpu = " and a GPU" if self._kind == "cuda" else ""
            raise BenchError(f"no node of the Ray cluster has {self._threads} processors{gpu}, which a cell needs")
        elif now > self._lacks_since + WAIT_SECONDS and not self._is_said:
            self._emit(ExecutorNotice("no node of the Ray cluster has free resources for a cell yet"))
            self._is_said = True

    def _devices(self, resources: dict[str, float]) -> list[str]:
        """Return the device of each slot for which the resources suffice."""
        slots = min(self._jobs, resources.get("CPU", 0) // self._threads)
        if self._kind == "cpu":
            return ["cpu"] * int(slots)
        gpus = int(min(resources.get("GPU", 0), slots))
        return [f"cuda:{n % gpus}" for n in range(int(min(slots, gpus * self._per_gpu)))]

    def _begin_member(self, node: str, about: dict[str, Any], devices: list[str]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        host = name = about["NodeManagerHostname"]
        taken = {member.name for member in self._members.values()}
        name = next(
            name for n in range(1, len(taken) + 2) if (name := host if n == 1 else f"{host} ({n})") not in taken
        )
        actor = (
            self._ray.remote(Node)
            .options(
                num_cpus=self._threads * len(devices),
                num_gpus=len(set(devices)) if self._kind == "cuda" else 0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        slots = [Slot(f"{name} worker {n + 1}", device, self._threads) for n, device in enumerate(devices)]
        member = self._members[node] = _Member(node, name, actor, slots)
        self._await(member, actor.versions.remote(), partial(self._meet, member))

    def _meet(self, member: _Member, there: dict[str, str]) -> None:
        """Use a node only if its versions are those of this process: ranks must not depend on the node."""
        other = [f"{name} {there.get(name)} instead of {ours}" for name, ours in self._versions.items()
                 if there.get(name) != ours]  # fmt: skip
        if other:
            self._refuse(member, f"it has {', '.join(other)}")
            return
        opened = member.actor.open.remote(member.slots, self._modules, {_OMP: os.environ.get(_OMP)})
        self._await(member, opened, lambda _: self._admit(member))

    def _admit(self, member: _Member) -> None:
        member.is_ready = True
        if self._is_held:
            member.actor.pause.remote(held=True)
        self._listen(member)

    def _refuse(self, member: _Member, reason: str) -> None:
        self._refused.add(member.node)
        self._drop(member)
        self._emit(ExecutorNotice(f"the node {member.name} is not used: {reason}"))

    def _lose(self, member: _Member, error: Exception) -> None:
        """Remove a lost node or actor; the tasks that were there have died."""
        from ray.exceptions import ActorUnavailableError

        is_there = not isinstance(error, ActorUnavailableError) and member.node in self._nodes()
        cause = f"Ray's actor on {member.name} was killed" if is_there else f"the node {member.name} was lost"
        if not member.is_ready and is_there:
            self._refuse(member, f"no process can be started there: {_last_line(error)}")
            return
        self._drop(member)
        self._not_before[member.node] = time.monotonic() + AGAIN_SECONDS
        for worker in sorted(member.workers):
            self._emit(WorkerEnded(cause, worker=worker))
        for key, given in member.given.items():
            given.mark.unlink(missing_ok=True)
            self._ended.append(Died(key, cause, blame=is_there))

    def _drop(self, member: _Member) -> None:
        del self._members[member.node]
        self._answers = {answer: rest for answer, rest in self._answers.items() if rest[0] is not member}
        self._ray.kill(member.actor)

    # Calls and their answers

    def _await(self, member: _Member, answer: Any, then: Callable[[Any], None]) -> None:  # noqa: ANN401 (Ray's)
        self._answers[answer] = member, then

    def _take(self, answer: Any) -> None:  # noqa: ANN401 (Ray's)
        """Handle the answer to a call."""
        from ray.exceptions import RayError, RayTaskError

        member, then = self._answers.pop(answer, (None, None))
        if member is None or then is None:  # it was dropped meanwhile
            return
        try:
            found = self._ray.get(answer)
        except RayTaskError as error:
            if isinstance(error.cause, BenchError):
                raise error.cause from None
            raise RuntimeError(f"{member.name} raised an unexpected error:\n{error}") from None
        except RayError as error:
            self._lose(member, error)
            return
        then(found)

    def _listen(self, member: _Member) -> None:
        self._await(member, member.actor.listen.remote(), partial(self._hear, member))

    def _hear(self, member: _Member, heard: Heard) -> None:
        self._listen(member)
        for event in heard.events:
            if isinstance(event, WorkerStarted):
                member.workers.add(event.worker)
            elif isinstance(event, WorkerEnded):
                member.workers.discard(event.worker)
            self._emit(event)
        for ended in heard.ended:
            self._bring(member, member.given[ended.outcome.key], ended)

    # Files that a node does not see

    def _equip(self, member: _Member, given: _Given, sees_folder: bool, has_data: bool) -> None:
        """Send the files that the node does not see, and begin the task there."""
        task, data, actor = given.task, given.data, member.actor
        if given.is_told_to_stop:
            self._end(member, given, Stopped(task.key))
            return
        if not has_data and data is not None and data.fingerprint not in member.has:
            for file, chunk in self._chunks_of(data):
                actor.receive.remote(data.fingerprint, file, chunk)
            self._await(member, actor.keep_data.remote(data.fingerprint), lambda _: None)
            member.has.add(data.fingerprint)
        given.is_shared = sees_folder
        if not sees_folder:
            for path in files_of(task.folder):
                for chunk in _chunks(path):
                    actor.receive.remote(task.key, path.name, chunk)
        folder = task.folder.absolute() if sees_folder else None
        begun = actor.begin.remote(given.slot, task.key, pickle.dumps(task.work), data, folder)
        self._await(member, begun, lambda _: None)

    def _chunks_of(self, data: DataAt) -> list[tuple[str, Any]]:
        """Return the files of data as chunks in Ray's object store, from which each node takes them."""
        if data.fingerprint not in self._chunks:
            paths = sorted(path for path in data.path.iterdir() if path.is_file())
            self._chunks[data.fingerprint] = [
                (path.name, self._ray.put(chunk)) for path in paths for chunk in _chunks(path)
            ]
        return self._chunks[data.fingerprint]

    def _bring(self, member: _Member, given: _Given, ended: Ended, chunk: bytes | None = None) -> None:
        """Copy the files of an ended task from its node in chunks, the result last; then pass on the outcome."""
        folder, key = given.task.folder, given.task.key
        try:
            while ended.files:
                name, size = ended.files[0]
                part = folder / f"{name}.part"
                with part.open("wb" if chunk is None else "ab") as file:
                    file.write(chunk or b"")
                    at = file.tell()
                if at < size:
                    read = member.actor.read.remote(key, name, at)
                    self._await(member, read, partial(self._bring, member, given, ended))
                    return
                part.replace(folder / name)
                del ended.files[0]
                chunk = None
        except OSError as error:
            self._end(member, given, Refused(key, _refusal(folder, error)))
            return
        outcome = ended.outcome
        self._end(member, given, Done(key, pickle.loads(outcome.result)) if isinstance(outcome, Done) else outcome)  # noqa: S301 (from a node)

    def _end(self, member: _Member, given: _Given, outcome: Outcome) -> None:
        # On a shared disk, files from other machines are sure to be visible only once the folder was changed here.
        given.mark.unlink(missing_ok=True)
        del member.given[outcome.key]
        if not given.is_shared:
            member.actor.leave.remote(outcome.key)
        self._ended.append(outcome)

    def _at(self, key: str) -> Iterator[tuple[_Member, _Given]]:
        for member in self._members.values():
            if key in member.given:
                yield member, member.given[key]


_OMP = "OMP_NUM_THREADS"
"""Ray sets it for its actors, whose processes would inherit it."""


def _connect(address: str | None) -> Any:  # noqa: ANN401 (a module that may be missing)
    """Join the cluster at `address`, or start one of this machine.

    Returns:
        The module `ray`.
    """
    for name, value in (SETTINGS if address else {**SETTINGS, **_only_us()}).items():
        os.environ.setdefault(name, value)
    import ray

    # Ray would print its nodes' reports to standard output, where --json writes its lines.
    ray._private.worker.listen_error_messages = lambda *_, **__: None  # noqa: SLF001 (there is no public way)
    where = f"--address {address}" if address else "--executor ray"
    host, _, port = (address or "").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray itself takes minutes to give up
        except OSError as error:
            raise BenchError(f"{where}: no Ray cluster can be joined: {error.strerror or error}") from error
    own = {} if address else {"num_cpus": available_cores(), "object_store_memory": OBJECT_STORE}
    try:
        with _own_signals():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=None if address else False,
                **own,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = "".join(traceback.format_exception(error))
        reason = str(error).strip().splitlines()[0]
        if "AuthenticationError" in said:
            reason = "it requires a token; set RAY_AUTH_MODE=token, as on its nodes (see Ray's token authentication)"
        raise BenchError(f"{where}: no Ray cluster can be joined: {reason}") from error
    return ray


def _only_us() -> dict[str, str]:
    """Return settings that keep others out of a cluster that is started for one run, as it listens on the network."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from replacing this command's signal handlers, and its children from receiving a terminal's signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield a file in chunks; an empty file yields one empty chunk."""
    with path.open("rb") as file:
        yield file.read(CHUNK)
        while chunk := file.read(CHUNK):
            yield chunk


def _refusal(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder}: cannot be written: {error.strerror or error}; the next run resumes the cell")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
