"""Choose a command's executor and its slots from its options, without importing torch."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit
from ipsrec_bench.extras import require
from ipsrec_bench.precision import cuda_devices
from ipsrec_bench.run.executors.api import Executor, Slot, Tick

ExecutorName = Literal["pool", "inline", "ray"]
_OTHER_KINDS = ("cpu", "mps", "xpu")
"""Kinds of devices other than CUDA on which torch trains."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and how much of it is used."""

    address: str | None
    """Address for `ray.init`, such as `auto`; None starts a cluster of this machine alone, for one command."""
    jobs: int | None
    """Maximum number of slots; None for as many as fit."""
    modules: Path
    """Folder of the suite's own modules, which are sent to nodes."""


@dataclass(frozen=True)
class Workers:
    """Where cells are trained, as the options of a command say."""

    executor: ExecutorName
    devices: tuple[str, ...]
    jobs: int | None
    """Number of cells at a time; None for as many as fit."""
    threads: int
    """Number of torch threads of each worker."""

    def slots(self, jobs: int) -> list[Slot]:
        """Return `jobs` slots, distributed over the devices in turn."""
        return [Slot(f"worker {n + 1}", self.devices[n % len(self.devices)], self.threads) for n in range(jobs)]


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of(text: str) -> tuple[str, ...]:
    """Return the devices that `--devices` names: `auto`, or names with commas between them; `cuda` means all GPUs.

    Raises:
        BenchError: there is no such GPU or kind of device, or the devices are of more than one kind.
    """
    found: list[str] = []
    gpus = cuda_devices()
    for name in text.split(","):
        kind, _, number = name.strip().partition(":")
        if kind == "auto":
            found += [f"cuda:{n}" for n in range(gpus)] or ["cpu"]
        elif kind == "cuda" and not number:
            if not gpus:
                raise BenchError(f"--devices {text}: the installed torch finds no GPU here")
            found += [f"cuda:{n}" for n in range(gpus)]
        elif kind == "cuda" and not (number.isdigit() and int(number) < gpus):
            there = f"cuda:0 to cuda:{gpus - 1}" if gpus else "none that the installed torch can use"
            raise BenchError(f"--devices {text}: there is no GPU '{name.strip()}' here; available: {there}")
        elif not kind:
            raise BenchError(f"--devices {text!r}: name devices, like cpu or cuda:0,cuda:1")
        elif kind not in _OTHER_KINDS and kind != "cuda":
            raise BenchError(f"--devices {text}: {kind!r} is not a device; name cpu, cuda, or GPUs like cuda:0,cuda:1")
        else:
            found.append(name.strip())
    devices = tuple(dict.fromkeys(found))
    if len({device.partition(":")[0] for device in devices}) > 1:
        raise BenchError(f"--devices {text}: name devices of one kind; ranks differ in their last bits between kinds")
    return devices


def places_of(name: ExecutorName, text: str) -> tuple[str, ...]:
    """Return the devices that `--devices` names for an executor; on a Ray cluster only their kind, as Ray assigns them.

    On a cluster, `auto` means the kind of device that this machine has.

    Raises:
        BenchError: there is no such GPU, the devices are of more than one kind, or Ray is not installed.
    """
    if name != "ray":
        return devices_of(text)
    require("ray", "--executor ray")
    if text == "auto":
        return (devices_of(text)[0].partition(":")[0],)
    if text not in ("cpu", "cuda"):
        raise BenchError(f"--devices {text}: on a Ray cluster, give cpu or cuda; Ray assigns its GPUs itself")
    return (text,)


def executor_maker(
    name: ExecutorName, slots: list[Slot], cluster: Cluster | None = None
) -> Callable[[Emit, Tick], Executor]:
    """Return a factory for the executor `name`.

    Args:
        name: name of the executor.
        slots: slots of this machine; those of a cluster take the first one's kind of device and its threads.
        cluster: required by `ray`; ignored by the others.
    """

    def make(emit: Emit, tick: Tick) -> Executor:
        if name == "inline":
            from ipsrec_bench.run.executors.inline import Inline

            return Inline(slots[0].device, slots[0].threads, emit, tick)
        if name == "ray":
            from ipsrec_bench.run.executors.ray import Ray

            assert cluster is not None
            return Ray(cluster, slots[0].device.partition(":")[0], slots[0].threads, emit, tick)
        from ipsrec_bench.run.executors.pool import Pool

        return Pool(slots, emit, tick)

    return make
