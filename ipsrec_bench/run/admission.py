"""Decides when a cell may begin: once the memory that it takes is free.

Nothing here imports torch, and `Admission` never queries the machine itself.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.precision import cuda_memory
from ipsrec_bench.run.costs import (
    LEAST_PROCESS,
    CellKind,
    Cost,
    CostEstimate,
    NoCost,
    kind_of,
    least_memory,
    measured_costs,
    most_memory,
)
from ipsrec_bench.run.executors.choice import available_cores
from ipsrec_bench.run.plan import Plan
from ipsrec_bench.suite.cells import Cell

SPARE = 0.05
"""Share of all memory that stays free: estimates are off by a few percent, and files are cached in it."""
PROBED_MARGIN = 1.25
"""A probed cell reserves this multiple of what the probe took: a whole epoch has larger batches."""
REMEDY = (
    "a smaller training.batch_size or embedding_size, an approximate training.objective, or a machine with more memory"
    " may help"
)


@dataclass(frozen=True)
class Memory:
    """Memory of a machine or a device, in bytes."""

    total: int
    available: int
    """Memory that can be taken without swapping."""


@dataclass(frozen=True)
class Running:
    """A running cell or probe."""

    device: str
    resident: int
    """Resident bytes of its process; 0 if unknown."""


@dataclass(frozen=True)
class Begin:
    """Train this cell now."""

    key: str


@dataclass(frozen=True)
class Probe:
    """Probe this cell now; it waits for the probe's result."""

    key: str


@dataclass(frozen=True)
class Refuse:
    """Fail this cell: it does not fit."""

    key: str
    sentence: str


Choice = Begin | Probe | Refuse


class Admission:
    """Decides which cell begins next.

    The memory of a cell is that of like cells in the store. If there are none, an upper bound from its settings is
    used, provided that it does not exceed one job's share of the memory. A cell with a larger bound is probed first,
    once for all cells of its kind.
    """

    def __init__(
        self,
        cells: Mapping[str, tuple[Cell, PreparedDataset]],
        measured: Mapping[CellKind, Cost],
        jobs: int,
        devices: Sequence[str],
    ) -> None:
        """Start with the cells and the costs that the store knows.

        Args:
            cells: cells and their data by key.
            measured: costs of like cells in the store.
            jobs: maximum number of cells that run at once.
            devices: devices on which they run, as torch names them.
        """
        self._cells = dict(cells)
        self._kinds = {key: kind_of(cell, data) for key, (cell, data) in cells.items()}
        self._found: dict[CellKind, CostEstimate] = dict(measured)
        self._jobs = jobs
        self._cuda = any(device.startswith("cuda") for device in devices)
        self._bounds: dict[CellKind, tuple[int, int | None]] = {}
        """Lower bound on the memory of a process in bytes, and the upper bound if there is one."""
        for key, kind in self._kinds.items():
            if kind not in self._bounds:
                cell, data = cells[key]
                least = LEAST_PROCESS if self._cuda else least_memory(cell, data)
                self._bounds[kind] = least, most_memory(cell, data, cuda=self._cuda)
        self._devices_shared = self._cuda and jobs > len(set(devices))
        self._probed: dict[str, bool] = {}
        """Cells that are being probed, and whether nothing else ran when their probe began."""
        self._crowded: set[CellKind] = set()
        """Kinds that did not fit beside others, and are probed alone."""
        self._killed: set[str] = set()
        """Cells that were killed, and begin again when nothing else runs."""
        self._reserved: dict[str, int] = {}

    def next(
        self,
        waiting: Iterable[str],
        running: Mapping[str, Running],
        device: str,
        memory: Mapping[str, Memory],
        idle: int = 0,
    ) -> Choice | None:
        """Return what to do in a free slot; None to wait until something ends.

        If nothing runs and nothing fits, the cell that needs least begins.

        Args:
            waiting: keys of cells that have not begun, in the order of preference.
            running: running cells and probes of this machine, by the key of the cell.
            device: device of the slot.
            memory: memory of this machine under `cpu`, and of GPUs under their names as far as known.
            idle: resident bytes of the slot's process, which count as part of what a cell takes.
        """
        here = memory["cpu"]
        spare = int(SPARE * here.total)
        free = (
            here.available
            - spare
            - sum(max(0, self._reserved.get(key, 0) - task.resident) for key, task in running.items())
        )
        share = (
            min(here.total, here.available + sum(task.resident for task in running.values())) - spare
        ) // self._jobs
        on_device = [key for key, task in running.items() if task.device == device]
        options: list[tuple[int, Begin | Probe]] = []
        for key in waiting:
            choice, need = self._choice(key, share, here)
            if isinstance(choice, Refuse):
                return choice
            if choice is None or not self._fits_on_device(key, on_device, memory.get(device)):
                continue
            if need - idle <= free:
                return self._chosen(choice, need, running)
            options.append((need, choice))
        if running or not options:
            return None
        need, choice = min(options, key=lambda option: option[0])
        return self._chosen(choice, need, running)

    def learn(self, key: str, finding: CostEstimate) -> None:
        """Record the result of the probe of the cell `key`."""
        alone, kind = self._probed.pop(key), self._kinds[key]
        if isinstance(finding, Cost) or alone or not finding.does_not_fit:
            self._found[kind] = finding
            self._crowded.discard(kind)
        else:
            self._crowded.add(kind)

    def take_back(self, choice: Choice) -> None:
        """Withdraw a choice that is not carried out because another run has the cell."""
        if isinstance(choice, Probe):
            self._probed.pop(choice.key, None)

    def killed(self, key: str) -> None:
        """Record that a cell's process was killed, perhaps for lack of memory; the cell begins again alone."""
        self._killed.add(key)

    def need(self, key: str) -> int:
        """Return the bytes that a cell takes if they are known, else a lower bound."""
        found = self._found.get(self._kinds[key])
        return found.memory if isinstance(found, Cost) else self._bounds[self._kinds[key]][0]

    def _choice(self, key: str, share: int, here: Memory) -> tuple[Begin | Probe | Refuse | None, int]:
        """Return what may be done with a cell, and the bytes to reserve; None while one of its kind is probed."""
        kind = self._kinds[key]
        if any(self._kinds[other] == kind for other in self._probed):
            return None, 0
        found, need, problem = self._found.get(kind), self.need(key), ""
        if need > here.total:
            problem = f"needs {'' if isinstance(found, Cost) else 'at least '}{_gigabytes(need)} of memory"
        elif isinstance(found, NoCost) and found.does_not_fit:
            problem = f"does not fit into memory ({found.reason})"
        if problem:
            cell, _ = self._cells[key]
            row, total = f"{cell.shown} on {cell.dataset}", _gigabytes(here.total)
            return Refuse(key, f"{row} {problem}, and the machine has {total}; {REMEDY}"), 0
        reserved = here.total if key in self._killed else self._reservation(kind, share)
        if reserved is not None:
            return Begin(key), reserved
        return Probe(key), here.total if kind in self._crowded else max(need, share)

    def _reservation(self, kind: CellKind, share: int) -> int | None:
        """Return the bytes to reserve for a cell, or None if it must be probed before it begins."""
        found, (least, most) = self._found.get(kind), self._bounds[kind]
        if self._devices_shared and (found is None or (isinstance(found, Cost) and found.source == "measured")):
            return None  # the store does not record GPU memory
        if isinstance(found, Cost):
            return found.memory if found.source == "measured" else int(PROBED_MARGIN * found.memory)
        if found is not None:
            return max(least, share)  # its model fails, which its own training will record
        return most if most is not None and most <= share else None

    def _fits_on_device(self, key: str, others: Sequence[str], device: Memory | None) -> bool:
        """Return whether a cell fits on a GPU beside `others`; a cell of unknown memory gets the GPU to itself."""
        if not self._cuda or not others:
            return True
        if device is None:
            return False
        needs = 0
        for one in (key, *others):
            found = self._found.get(self._kinds[one])
            if not isinstance(found, Cost) or found.device_memory is None:
                return False
            needs += found.device_memory
        return needs <= (1 - SPARE) * device.total

    def _chosen(self, choice: Begin | Probe, need: int, running: Mapping[str, Running]) -> Begin | Probe:
        self._reserved[choice.key] = need
        if isinstance(choice, Probe):
            self._probed[choice.key] = not running
        return choice


def known_needs(cells: Iterable[tuple[Cell, PreparedDataset]], measured: Mapping[CellKind, Cost]) -> list[int]:
    """Return the bytes that each of `cells` takes on a CPU: as measured on like cells, else a lower bound."""
    found = ((measured.get(kind_of(cell, data)), cell, data) for cell, data in cells)
    return [least_memory(cell, data) if cost is None else cost.memory for cost, cell, data in found]


def admit(
    plan: Plan, store: Path, devices: Sequence[str], jobs: int | None, threads: int, *, force: bool
) -> tuple[int, Admission]:
    """Return how many cells to run at once (`jobs` if given), and the admission that decides which.

    Raises:
        StoreError: the store cannot be read.
    """
    cells = {key: (cell, plan.datasets[cell.dataset]) for key, cell in plan.todo(force=force)}
    cuda = any(device.startswith("cuda") for device in devices)
    kinds = {kind_of(cell, data) for cell, data in cells.values()}
    measured = measured_costs(store, kinds, cuda=cuda, threads=threads)
    needs = known_needs(cells.values(), measured)
    jobs = jobs or default_jobs(devices, threads, needs, available_cores(), machine_memory())
    return jobs, Admission(cells, measured, jobs, devices)


def default_jobs(devices: Sequence[str], threads: int | None, needs: Sequence[int], cores: int, memory: Memory) -> int:
    """Return the default number of cells to run at once: one per GPU, or one per core.

    Args:
        devices: devices as torch names them.
        threads: threads of each job; None means one.
        needs: bytes that the cells take, as far as known.
        cores: number of cores available to this process.
        memory: memory of this machine; it limits the jobs to the number of the smallest cells that fit at once.
    """
    gpus = {device for device in devices if device.startswith("cuda")}
    most = len(gpus) or max(1, cores // (threads or 1))
    free, fitting = memory.available - int(SPARE * memory.total), 0
    for need in sorted(needs)[:most]:
        free -= need
        fitting += free >= 0
    return max(1, fitting)


def memory_at(device: str) -> dict[str, Memory]:
    """Return the memory of this machine, under `cpu`, and of a GPU, under its name.

    All memory of a GPU counts as available, because the use of other programs is unknown.
    """
    found = {"cpu": machine_memory()}
    kind, _, number = device.partition(":")
    size = cuda_memory(int(number or 0)) if kind == "cuda" else None
    return found if size is None else {**found, device: Memory(size, size)}


def machine_memory(root: Path = Path("/")) -> Memory:
    """Return the memory of this machine, or of the control group of this process (a container's, a batch job's).

    If the system does not report available memory, half of the total is assumed.

    Args:
        root: root of the file system, below which Linux has /proc and /sys.
    """
    found = list(_group_memory(root))
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
        found.append(Memory(sizes["MemTotal"], sizes["MemAvailable"]))
    except (OSError, KeyError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(Memory(total, total // 2))
    return Memory(min(memory.total for memory in found), min(memory.available for memory in found))


def _group_memory(root: Path) -> Iterator[Memory]:
    """Yield the limit and the available memory of each control group of this process, version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, names, cached = mount, ("memory.max", "memory.current"), "inactive_file"
        elif "memory" in controllers.split(","):
            base, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
            cached = "total_inactive_file"
        else:
            continue
        inside = base / path.strip("/")
        # A container may see its own group as the mount's root, under which its path does not exist.
        for folder in (inside, *(parent for parent in inside.parents if parent.is_relative_to(base))):
            try:
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in names)
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text("ascii").splitlines())
            except (OSError, ValueError):  # there is no such group, or no limit: "max"
                continue
            yield Memory(limit, max(0, limit - used + int(stat.get(cached, 0))))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
