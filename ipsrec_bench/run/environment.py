"""The environment of this process: versions, processor, device, memory."""

import contextlib
import ctypes
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import ipsrec_bench
from ipsrec_bench.errors import BenchError
from ipsrec_bench.run.executors.choice import available_cores
from ipsrec_bench.store.records import Environment
from ipsrec_bench.training.catalogue import product_dtype


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first CUDA device if there is one, else the CPU.

    Raises:
        BenchError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BenchError(f"--devices {name}: {str(error).splitlines()[0]}") from None
    return device


def device_works(name: str) -> bool:
    """Return whether this process can still use a device: some errors break a GPU for the rest of its lifetime."""
    if not name.startswith("cuda"):
        return True
    try:
        torch.cuda.synchronize(torch.device(name))
    except (RuntimeError, AssertionError):
        return False
    return True


def prepare_process(threads: int) -> None:
    """Set this process up for training with `threads` threads. Call this before torch starts any."""
    keep_freed_memory()
    start_threads(threads)


def start_threads(number: int) -> None:
    """Set the number of torch threads, and start them.

    Each thread keeps for good the denormal mode of the thread that starts it: exact, if no training runs yet.
    """
    torch.set_num_threads(number)
    torch.ones(number << 16).neg_()  # enough elements for each to get a share


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step; do nothing with another C library.

    By default, glibc returns large blocks to the system, which then clears the same pages in every step: up to a third
    of the time of training on a CPU. Blocks above 32 MiB are still returned. Call this before threads are started: a
    thread that already has its own arena keeps it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library, which has no such switch
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 1 << 30)
    mallopt(m_arena_max, 1)  # or each ranking thread would keep its freed memory to itself


def describe_environment(device: torch.device, threads: int) -> Environment:
    """Return the environment of cells that are trained on `device` of this machine with `threads` threads."""
    return Environment(
        package=ipsrec_bench.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        duckdb=version("duckdb"),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cores=available_cores(),
        threads=threads,
        device=(torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)
        + (", bfloat16 by default" if product_dtype("auto", device) == torch.bfloat16 else ""),
        revision=_revision(),
    )


@cache
def _revision() -> str:
    """Return the commit of the toolkit's files, with `+` if they were changed; empty outside a repository."""
    folder = Path(__file__).parent.parent
    git = ["git", "-C", str(folder)]
    try:
        tracked, head, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
            for command in (("ls-files", "--", "."), ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""  # no git, or no repository
    return head[:12] + ("+" if changed else "") if tracked else ""


def reset_peak_memory() -> None:
    """Reset the measurement of `peak_memory`, where the system supports it (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # memory kept from the previous cell does not count for this one
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # the peak then counts from the start of the process


def resident_memory() -> int:
    """Return the resident size of this process in bytes; 0 if the system does not report it (Linux does)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def peak_memory() -> int:
    """Return the largest resident size of this process in bytes, since `reset_peak_memory` on Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
