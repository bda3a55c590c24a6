"""Checks of the machine: Python, libraries, devices, processor, memory, file systems."""

import contextlib
import fcntl
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ipsrec_bench.run.doctor.finding import Finding
from ipsrec_bench.words import counted

TORCH_SECONDS = 60.0
"""Timeout for starting torch and testing every device."""
BUSY = 0.5
"""Share of the cores that other programs may use before the check gives a note."""
LITTLE_MEMORY = 2 << 30
"""Bytes that two processes with torch and small data take."""
CLOCK_SECONDS = 60.0
"""Tolerated difference between the clocks of a file server and of this machine."""


def check_python() -> Finding:
    """Return which Python runs the toolkit."""
    return Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")


def check_libraries() -> Iterator[Finding]:
    """Yield whether DuckDB works, and which optional libraries are installed."""
    try:
        from ipsrec_bench.store.database import connect_to_none

        with connect_to_none() as connection:
            connection.execute("SELECT sum(range) FROM range(1000)").fetchall()
    except Exception as error:  # noqa: BLE001 (a broken library may raise anything)
        reinstall = "install it again: pip install --force-reinstall duckdb"
        yield Finding("duckdb", "problem", f"it does not work: {_first_line(error)}", reinstall)
    else:
        yield Finding("duckdb", "ok", f"{version('duckdb')}, a database in memory opens")
    ray = _version("ray")
    if ray:
        yield Finding("ray", "ok", ray)
    else:
        yield Finding(
            "ray",
            "note",
            "not installed; only --executor ray needs it",
            "to install it: pip install 'ipsrec-bench[ray]'",
        )
    triton = _version("triton")
    yield Finding("triton", "ok", triton or "not installed; only GPUs need it, and torch for CUDA includes it")


def start_torch() -> subprocess.Popen[str]:
    """Start the process that tests torch; see `torch_check`."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ipsrec_bench.run.doctor.torch_check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=found,
    )


def check_torch(process: subprocess.Popen[str], cores: int) -> Iterator[Finding]:
    """Wait for the process of `start_torch`, then yield its findings: on torch, then on each device.

    Args:
        process: the process.
        cores: number of cores that this process may use.
    """
    try:
        output, errors = process.communicate(timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        ended = f"it did not answer within {TORCH_SECONDS:g} s"
    else:
        ended = _ended(process.returncode, errors)
    parts = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not parts:
        yield Finding(
            "torch",
            "problem",
            f"it cannot be used: {ended}",
            "install it again, for this Python and this processor: https://pytorch.org/get-started",
        )
        return
    torch, *devices = parts
    threads = torch["threads"]
    said = f"{torch['version']}, {counted(threads, 'thread')} by default"
    if threads != cores:
        why = "OMP_NUM_THREADS is set" if os.environ.get("OMP_NUM_THREADS") else "some may be hardware threads"
        yield Finding("torch", "ok", f"{said} on {cores} cores: {why}; run --threads sets another number")
    else:
        yield Finding("torch", "ok", said)
    for part in devices:
        yield _device(part)
    if ended:
        after = devices[-1]["part"] if devices else "torch was loaded"
        yield Finding(
            "devices",
            "problem",
            f"trying the device after {after} failed: {ended}" if devices else f"trying the CPU failed: {ended}",
            "update the driver or torch, or leave the device out with --device",
        )
    if torch["cuda"] is None and Path("/dev/nvidia0").exists():
        yield Finding(
            "GPU",
            "note",
            "a GPU is present, but this torch is built without CUDA",
            "install torch for CUDA: https://pytorch.org/get-started",
        )


def _device(part: dict[str, Any]) -> Finding:
    name = f"device {part['part']}"
    if part["error"]:
        what = f"{part['name']}: " if "name" in part else ""
        return Finding(
            name,
            "problem",
            f"{what}a small training or ranking step fails: {part['error']}",
            "update torch or the driver; until then, do not trust its results",
        )
    product = "bfloat16 by default" if part["fast_in_bfloat16"] else "float32 by default"
    if "name" not in part:
        return Finding(name, "ok", f"loss, gradients and ranks are right; {product}")
    memory = f"{part['free'] / 2**30:.1f} of {part['total'] / 2**30:.1f} GiB free"
    said = f"{part['name']}, {memory}; loss, gradients and ranks are right; {product}"
    if part["kernels"]:
        return Finding(name, "ok", f"{said}; Triton's kernels run")
    return Finding(
        name,
        "note",
        f"{said}; Triton's kernels do not run, so slower torch code replaces them: {part['warning'] or 'no Triton'}",
        "install triton, a C compiler and Python's headers; GPUs older than Ampere cannot run the kernels",
    )


def _ended(code: int, errors: str) -> str:
    """Return how a process ended; empty if it exited normally."""
    if code == 0:
        return ""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"its process ended with code {code}"


def check_processor(cores: int) -> Finding:
    """Return how many cores there are, and how busy other programs keep them."""
    load = os.getloadavg()[0]
    quota = _cpu_quota()
    said = f"{cores} cores, load of the last minute {load:.1f}"
    if quota is not None and quota < cores:
        return Finding(
            "processor",
            "note",
            f"{said}; the container may use only {quota:.1f} of them",
            f"give run --threads {max(1, int(quota))}, or give the container more cores",
        )
    if load > BUSY * cores:
        return Finding(
            "processor",
            "note",
            f"{said}: other programs, or a run, keep them busy",
            "end them, or expect slower training: a thread that waits for a busy core delays all others",
        )
    return Finding("processor", "ok", said)


def check_memory() -> Finding:
    """Return how much memory is free, and what limits there are."""
    available, total = _memory()
    if available is None or total is None:
        return Finding("memory", "note", "unknown: this system does not report it")
    limits = {"-v": resource.RLIMIT_AS, "-d": resource.RLIMIT_DATA}
    limited = [f"ulimit {flag}" for flag, which in limits.items() if resource.getrlimit(which)[0] >= 0]
    said = f"{available / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if limited:
        return Finding(
            "memory",
            "note",
            f"{said}; {' and '.join(limited)} limits address space",
            "lift it: torch, DuckDB and the report's charts reserve more than they use",
        )
    if available < LITTLE_MEMORY:
        return Finding("memory", "note", said, "end other programs; a cell that does not fit fails")
    return Finding("memory", "ok", said)


def check_folder(name: str, folder: Path) -> Iterator[Finding]:
    """Yield whether files in `folder` can be written and locked, and get correct time stamps.

    If the folder does not exist yet, its nearest existing parent is checked.
    """
    place = existing(folder)
    if folder.exists() and place != folder.absolute():
        yield Finding(name, "problem", f"{folder}: it is not a folder", "move it away, or choose another folder")
        return
    try:
        with tempfile.NamedTemporaryFile(prefix=".ipsrec-bench-doctor-", dir=place) as file:
            file.write(b"x" * 4096)
            file.flush()
            distance = abs(Path(file.name).stat().st_mtime - time.time())
            locks = _locks_hold(Path(file.name))
    except OSError as error:
        yield Finding(
            name,
            "problem",
            f"{place}: cannot be written: {error.strerror}",
            f"choose another folder, or make it writable: chmod u+w {place}",
        )
        return
    will_be = "" if folder.is_dir() else f"; {folder} will be created"
    if not locks:
        yield Finding(
            name,
            "problem",
            f"{place}: its file system does not support locks, so two runs would train the same cells",
            "use another disk, or mount the network disk with locks",
        )
    elif distance > CLOCK_SECONDS:
        yield Finding(
            name,
            "problem",
            f"{place}: its file times differ by {distance:.0f} s from this machine's clock",
            "synchronise the clocks of this machine and of the file server, for example with NTP",
        )
    else:
        yield Finding(name, "ok", f"{place}: can be written, locks hold{will_be}")


def existing(folder: Path) -> Path:
    """Return `folder`, or its nearest parent that exists."""
    place = folder.absolute()
    return next(path for path in (place, *place.parents) if path.is_dir())


def _locks_hold(path: Path) -> bool:
    """Return whether a lock on one handle of a file keeps another handle from locking it."""
    with path.open("rb") as first, path.open("rb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _version(package: str) -> str:
    """Return the version of an installed package; empty if it is not installed."""
    if find_spec(package) is None:
        return ""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown version"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _memory() -> tuple[int | None, int | None]:
    """Return the available and the total bytes, within the container's limit."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kibibytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
        available, total = kibibytes["MemAvailable"] << 10, kibibytes["MemTotal"] << 10
    except (OSError, KeyError, ValueError):
        return None, None
    limit, used = _control("memory.max"), _control("memory.current")
    if limit.isdigit() and used.isdigit() and int(limit) < total:
        return min(available, int(limit) - int(used)), int(limit)
    return available, total


def _cpu_quota() -> float | None:
    """Return how many cores the container may use at once; None without a limit."""
    quota, _, period = _control("cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _control(name: str) -> str:
    """Return a value of this process's control group; empty if it has none."""
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
