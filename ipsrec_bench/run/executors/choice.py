"""Which executor a command gets, with which slots, by what its options say; found without torch."""

import os
from collections.abc import Callable
from typing import Literal

from ipsrec_bench.errors import BenchError
from ipsrec_bench.events import Emit
from ipsrec_bench.precision import cuda_devices
from ipsrec_bench.run.executors.api import Executor, Slot, Tick

ExecutorName = Literal["pool", "inline"]


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of(text: str) -> tuple[str, ...]:
    """Return the devices that `--devices` means: `auto`, or names with commas; `cuda` stands for all GPUs.

    Raises:
        BenchError: there is no such GPU here, or the devices are of more than one kind.
    """
    found: list[str] = []
    gpus = cuda_devices()
    for name in text.split(","):
        kind, _, number = name.strip().partition(":")
        if kind == "auto":
            found += [f"cuda:{n}" for n in range(gpus)] or ["cpu"]
        elif kind == "cuda" and not number:
            if not gpus:
                raise BenchError(f"--devices {text}: there is no GPU here that torch, as it is installed, could use")
            found += [f"cuda:{n}" for n in range(gpus)]
        elif kind == "cuda" and not (number.isdigit() and int(number) < gpus):
            there = f"cuda:0 to cuda:{gpus - 1}" if gpus else "none that torch, as it is installed, could use"
            raise BenchError(f"--devices {text}: there is no GPU '{name.strip()}' here; there are: {there}")
        elif not kind:
            raise BenchError(f"--devices {text!r}: name devices, like cpu or cuda:0,cuda:1")
        else:
            found.append(name.strip())
    devices = tuple(dict.fromkeys(found))
    if len({device.partition(":")[0] for device in devices}) > 1:
        raise BenchError(f"--devices {text}: name devices of one kind; ranks differ in their last bits between kinds")
    return devices


def make_slots(devices: tuple[str, ...], jobs: int, threads: int) -> list[Slot]:
    """Return `jobs` slots, dealt over the devices."""
    return [Slot(f"worker {n + 1}", devices[n % len(devices)], threads) for n in range(jobs)]


def executor_maker(name: ExecutorName, slots: list[Slot]) -> Callable[[Emit, Tick], Executor]:
    """Return what makes the executor of this name."""

    def make(emit: Emit, tick: Tick) -> Executor:
        if name == "inline":
            from ipsrec_bench.run.executors.inline import Inline

            return Inline(slots[0].device, slots[0].threads, emit, tick)
        from ipsrec_bench.run.executors.pool import Pool

        return Pool(slots, emit, tick)

    return make
