"""When a cell may begin: only if its memory fits, and always if nothing else runs."""

import dataclasses

import pytest

from ipsrec_bench.run.admission import (
    Admission,
    Begin,
    Memory,
    Probe,
    Refuse,
    Running,
    default_jobs,
    known_needs,
    machine_memory,
)
from ipsrec_bench.run.costs import Cost, NoCost, finishing_time, kind_of, least_memory, most_memory
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.suite.load import load_suite

GB = 10**9
LAPTOP = Memory(16 * GB, 12 * GB)
CPU = {"cpu": LAPTOP}


@pytest.fixture
def cells(tiny_suite, world):
    """The cells of the tiny suite that are trained by gradients, with their data, by label and seed."""
    found = cells_of(load_suite(tiny_suite))
    return {f"{cell.label} {cell.seed}": (cell, world) for cell in found if not cell.counts}


def cost(memory, device_memory=None, source="measured"):
    return Cost(1.0, 10.0, memory, device_memory, source)


def admission(cells, memory=None, jobs=8, devices=("cpu",)):
    """Return an admission for `cells`; the store knows the `memory` of each, by key."""
    return Admission(cells, {kind_of(*cells[key]): cost(size) for key, size in (memory or {}).items()}, jobs, devices)


def running(resident=0, *keys, device="cpu"):
    return {key: Running(device, resident) for key in keys}


def enlarged(cells, **sizes):
    return {key: (cell, dataclasses.replace(data, **sizes)) for key, (cell, data) in cells.items()}


def test_tiny_cells_begin_without_a_probe_on_a_laptop(cells):
    here, begun = admission(cells), {}
    for key in cells:
        assert here.next([key], begun, "cpu", CPU) == Begin(key)
        begun |= running(0, key)


def test_a_laptop_does_not_fill_up_with_cells_of_unknown_memory(cells):
    """Half a million items at batches of 1,024: eight such cells may need more than the 16 GB."""
    large = {
        key: (dataclasses.replace(cell, training=cell.training.model_copy(update={"batch_size": 1024})), data)
        for key, (cell, data) in enlarged(cells, num_items=500_000).items()
    }
    here = admission(large)
    assert here.next(["sasrec 1", "sasrec 2"], {}, "cpu", CPU) == Probe("sasrec 1")
    probing = running(0, "sasrec 1")
    assert here.next(["sasrec 2"], probing, "cpu", CPU) is None  # it waits for what the probe finds
    here.learn("sasrec 1", cost(4 * GB, source="probed"))  # and perhaps a quarter more in a whole epoch
    begun = {}
    for key in ("sasrec 1", "sasrec 2"):
        assert here.next([key], begun, "cpu", CPU) == Begin(key)
        begun |= running(0, key)
    assert here.next(["ipsrec-s 1"], begun, "cpu", CPU) is None


def test_a_running_cell_reserves_its_peak_before_it_reaches_it(cells):
    here = admission(cells, {"sasrec 1": 6 * GB, "ipsrec-s 1": 6 * GB})
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Begin("sasrec 1")
    early, there = running(1 * GB, "sasrec 1"), {"cpu": Memory(16 * GB, 11 * GB)}
    assert here.next(["ipsrec-s 1"], early, "cpu", there) is None
    grown = {"cpu": Memory(16 * GB, 8 * GB)}  # it has taken less than estimated of others, and is at its peak
    assert here.next(["ipsrec-s 1"], running(6 * GB, "sasrec 1"), "cpu", grown) == Begin("ipsrec-s 1")


def test_memory_of_an_idle_worker_counts_for_the_cell_that_it_takes(cells):
    here = admission(cells, {"sasrec 1": 4 * GB, "ipsrec-s 1": 5 * GB})
    begun = running(4 * GB, "sasrec 1")
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Begin("sasrec 1")
    there = {"cpu": Memory(16 * GB, 5 * GB)}
    assert here.next(["ipsrec-s 1"], begun, "cpu", there) is None
    assert here.next(["ipsrec-s 1"], begun, "cpu", there, idle=1 * GB) == Begin("ipsrec-s 1")


def test_a_cell_that_fits_goes_before_one_that_does_not_yet(cells):
    here = admission(cells, {"sasrec 1": 11 * GB, "ipsrec-s 1": 1 * GB, "ipsrec-s w/o CL 1": 2 * GB})
    assert here.next(["ipsrec-s 1"], {}, "cpu", CPU) == Begin("ipsrec-s 1")
    begun = running(0, "ipsrec-s 1")
    assert here.next(["sasrec 1", "ipsrec-s w/o CL 1"], begun, "cpu", CPU) == Begin("ipsrec-s w/o CL 1")


def test_if_nothing_runs_a_cell_begins_even_if_others_have_the_memory(cells):
    here = admission(cells, {"sasrec 1": 9 * GB, "ipsrec-s 1": 8 * GB})
    taken = {"cpu": Memory(16 * GB, 1 * GB)}
    assert here.next(["sasrec 1", "ipsrec-s 1"], {}, "cpu", taken) == Begin("ipsrec-s 1")
    assert here.next([], {}, "cpu", taken) is None


def test_a_cell_that_fits_nowhere_is_refused_with_a_sentence(cells):
    here = admission(cells, {"sasrec 1": 17 * GB})
    refused = here.next(["sasrec 1"], {}, "cpu", CPU)
    assert isinstance(refused, Refuse)
    assert refused.sentence == (
        "sasrec on world needs 17.0 GB of memory, and the machine has 16.0 GB; a smaller training.batch_size or"
        " embedding_size, an approximate training.objective, or a machine with more memory may help"
    )
    tables = admission(enlarged(cells, num_items=10**9))  # of which no probe is needed
    assert "at least" in tables.next(["sasrec 1"], {}, "cpu", CPU).sentence


def test_a_probe_that_did_not_fit_beside_others_is_tried_again_alone(cells):
    large = enlarged(cells, num_items=10**7)
    here = admission(large | {"small": cells["ipsrec-s 1"]}, {"small": 1 * GB})
    here.next(["small"], {}, "cpu", CPU)
    begun = running(0, "small")
    assert here.next(["sasrec 1"], begun, "cpu", CPU) == Probe("sasrec 1")
    here.learn("sasrec 1", NoCost("it was killed by SIGKILL", does_not_fit=True))
    assert here.next(["sasrec 1"], begun, "cpu", CPU) is None
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Probe("sasrec 1")
    here.learn("sasrec 1", NoCost("it was killed by SIGKILL", does_not_fit=True))
    assert "it was killed by SIGKILL" in here.next(["sasrec 1"], {}, "cpu", CPU).sentence


def test_a_cell_that_was_killed_begins_again_when_nothing_else_runs(cells):
    here = admission(cells, {"sasrec 1": 1 * GB, "ipsrec-s 1": 1 * GB})
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Begin("sasrec 1")
    here.killed("sasrec 1")
    waiting = ["sasrec 1", "ipsrec-s 1"]
    assert here.next(waiting, {}, "cpu", CPU) == Begin("ipsrec-s 1")
    assert here.next(["sasrec 1"], running(0, "ipsrec-s 1"), "cpu", CPU) is None
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Begin("sasrec 1")
    assert here.next(["ipsrec-s 1"], running(0, "sasrec 1"), "cpu", CPU) is None


def test_a_cell_whose_probe_failed_for_another_reason_is_trained_and_fails_there(cells):
    here = admission(enlarged(cells, num_items=10**7))
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Probe("sasrec 1")
    here.learn("sasrec 1", NoCost("ValueError: no", does_not_fit=False))
    assert here.next(["sasrec 1"], {}, "cpu", CPU) == Begin("sasrec 1")


def test_a_gpu_is_shared_only_by_cells_whose_memory_on_it_is_known(cells):
    memory = {"cpu": Memory(128 * GB, 120 * GB), "cuda:0": Memory(80 * GB, 79 * GB)}
    alone = admission(cells, {"sasrec 1": 4 * GB}, jobs=1, devices=["cuda:0"])
    assert alone.next(["sasrec 1"], {}, "cuda:0", memory) == Begin("sasrec 1")
    shared = admission(cells, {"sasrec 1": 4 * GB}, jobs=2, devices=["cuda:0"])
    assert shared.next(["sasrec 1"], {}, "cuda:0", memory) == Probe("sasrec 1")
    shared.learn("sasrec 1", cost(4 * GB, 39 * GB, "probed"))
    assert shared.next(["sasrec 1"], {}, "cuda:0", memory) == Begin("sasrec 1")
    begun = running(0, "sasrec 1", device="cuda:0")
    assert shared.next(["ipsrec-s 1"], begun, "cuda:0", memory) is None
    assert shared.next(["sasrec 2"], begun, "cuda:0", memory | {"cuda:0": Memory(78 * GB, 1 * GB)}) is None
    assert shared.next(["sasrec 2"], begun, "cuda:0", memory | {"cuda:0": Memory(90 * GB, 1 * GB)}) == Begin("sasrec 2")


def test_bounds_grow_with_their_cells_and_unknown_models_have_none(cells, world, tiny_suite):
    cell, _ = cells["sasrec 1"]
    large = dataclasses.replace(world, num_items=10_000 * world.num_items)
    assert least_memory(cell, world) < most_memory(cell, world) < most_memory(cell, large)
    assert least_memory(cell, large) > least_memory(cell, world)
    few = dataclasses.replace(
        cell, training=cell.training.model_copy(update={"objective": "gbce", "negatives": 8, "batch_size": 4096})
    )
    exact = dataclasses.replace(few, training=few.training.model_copy(update={"objective": "softmax"}))
    assert most_memory(few, large) < most_memory(exact, large)
    counting = next(cell for cell in cells_of(load_suite(tiny_suite)) if cell.counts)
    assert most_memory(counting, world) is None
    assert most_memory(dataclasses.replace(cell, code="of somebody else"), world) is None


def test_cells_without_a_measurement_need_their_lower_bound(cells):
    known = {kind_of(*cells["sasrec 1"]): cost(3 * GB)}
    asked = [cells["sasrec 2"], cells["ipsrec-s 1"]]
    assert known_needs(asked, known) == [3 * GB, least_memory(*cells["ipsrec-s 1"])]


@pytest.mark.parametrize(
    ("devices", "threads", "needs", "jobs"),
    [
        (["cpu"], None, [1 * GB] * 100, 8),
        (["cpu"], 2, [1 * GB] * 100, 4),
        (["cpu"], 16, [1 * GB] * 100, 1),
        (["cpu"], None, [3 * GB] * 100, 3),
        (["cpu"], None, [1 * GB, 1 * GB], 2),
        (["cpu"], None, [20 * GB], 1),
        (["cpu"], None, [], 1),
        (["cuda:0", "cuda:1"], None, [1 * GB] * 100, 2),
        (["cuda:0"], 4, [1 * GB] * 100, 1),
    ],
)
def test_by_default_there_is_a_job_for_each_core_or_gpu_that_memory_and_cells_allow(devices, threads, needs, jobs):
    assert default_jobs(devices, threads, needs, 8, LAPTOP) == jobs


def test_cells_end_when_jobs_and_memory_let_them():
    assert finishing_time([], 2, 10) == 0
    assert finishing_time([(4, 1), (2, 1), (2, 1), (3, 1)], 1, 10) == 11
    assert finishing_time([(4, 1), (2, 1), (2, 1), (3, 1)], 2, 10) == 7
    assert finishing_time([(4, 6), (2, 6), (1, 4)], 2, 10) == 6  # the third beside the first, the second after it
    assert finishing_time([(4, 60), (2, 60)], 2, 10) == 6  # more than there is: alone


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")


MEMINFO = (
    "MemTotal:       16000000 kB\nMemFree:         2000000 kB\nMemAvailable:   12000000 kB\nHugePages_Total:       0\n"
)


def test_the_memory_of_a_machine_is_what_linux_reports_as_available(tmp_path):
    write(tmp_path, {"proc/meminfo": MEMINFO})
    assert machine_memory(tmp_path) == Memory(16_000_000 << 10, 12_000_000 << 10)


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used", "cached"),
    [
        ("0::/job/step", "job", "memory.max", "memory.current", "inactive_file"),
        ("0::/", "", "memory.max", "memory.current", "inactive_file"),
        (
            "4:memory,hugetlb:/job",
            "memory/job",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
        ("4:memory:/docker/abc", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
    ids=["a parent's limit", "a container's root", "version 1", "version 1 in a container"],
)
def test_a_limit_of_the_control_group_counts_and_its_file_cache_does_not(tmp_path, line, folder, limit, used, cached):
    group = f"sys/fs/cgroup/{folder}"
    write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": f"1:name=systemd:/x\n{line}\n",
            f"{group}/{limit}": "8000000000\n",
            f"{group}/{used}": "5000000000\n",
            f"{group}/memory.stat": f"anon 4000000000\n{cached} 1000000000\n",
        },
    )
    assert machine_memory(tmp_path) == Memory(8 * GB, 4 * GB)


def test_a_control_group_without_a_limit_limits_nothing(tmp_path):
    write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": "max\n",
            "sys/fs/cgroup/job/memory.current": "5\n",
            "sys/fs/cgroup/job/memory.stat": "inactive_file 1\n",
        },
    )
    assert machine_memory(tmp_path) == Memory(16_000_000 << 10, 12_000_000 << 10)
