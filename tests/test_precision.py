"""What `precision = "auto"` means is part of a key, and is found without torch."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ipsrec_bench import precision
from ipsrec_bench.precision import default_precision
from ipsrec_bench.run import plan
from ipsrec_bench.run.environment import pick_device
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.training.catalogue import product_dtype

from .conftest import TINY_SUITE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
INFO = "processor\t: 0\nflags\t\t: fpu avx512f{} avx2\nbugs\t\t:\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.fixture(autouse=True)
def _asked_anew():
    default_precision.cache_clear()
    yield
    default_precision.cache_clear()


@pytest.mark.parametrize("device", ["auto", "cpu", *(["cuda", "cuda:0"] if torch.cuda.is_available() else [])])
def test_the_default_equals_torchs_answer_on_this_machine(device):
    assert DTYPES[default_precision(device)] == product_dtype("auto", pick_device(device))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("", "float32"), (" avx512_bf16", "bfloat16"), (" amx_bf16", "bfloat16"), (" avx512_bf16x", "float32")],
)
def test_processors_are_recognised_by_the_flags_that_torch_uses(tmp_path, monkeypatch, flag, expected):
    (tmp_path / "cpuinfo").write_text(INFO.format(flag))
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag.strip(): True})
    assert default_precision("cpu") == expected
    assert DTYPES[expected] == product_dtype("auto", torch.device("cpu"))


def test_a_system_without_cpuinfo_gets_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "none")
    assert default_precision("cpu") == default_precision("mps") == "float32"


class Driver:
    """CUDA's driver on a machine with GPUs of these compute capabilities."""

    def __init__(self, *capabilities):
        self.capabilities = capabilities

    def cuInit(self, _flags):  # noqa: N802 (as the driver has it)
        return 0 if self.capabilities else 100

    def cuDeviceGet(self, device, number):  # noqa: N802
        device._obj.value = number
        return 0 if number < len(self.capabilities) else 101

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.capabilities[device.value][attribute - 75]
        return 0

    def cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        size._obj.value = (device.value + 1) << 30
        return 0


@pytest.mark.parametrize(
    ("capabilities", "device", "expected"),
    [
        (((9, 0),), "auto", "bfloat16"),
        (((8, 0),), "cuda", "bfloat16"),
        (((7, 5),), "auto", "float32"),
        (((7, 5), (8, 6)), "cuda:1", "bfloat16"),
        (((8, 6), (7, 5)), "cuda:1", "float32"),
        (((9, 0),), "cpu", "float32"),
        ((), "auto", "float32"),
    ],
)
def test_gpus_are_recognised_through_their_driver(tmp_path, monkeypatch, capabilities, device, expected):
    (tmp_path / "cpuinfo").write_text(INFO.format(""))
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(*capabilities))
    assert default_precision(device) == expected


def test_a_gpu_that_torch_was_not_built_for_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(INFO.format(""))
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver((9, 0)))
    assert precision._torch_has_cuda() == (torch.version.cuda is not None)
    monkeypatch.setattr(precision, "_torch_has_cuda", lambda: False)
    assert default_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda: Optional[str] = None\nhip = 'x'\n", False),
        ("cuda: Optional[str] = '12.8'\n", True),
        ("cuda = '13'", True),
    ],
)
def test_torchs_build_is_read_from_its_version_file(tmp_path, monkeypatch, text, expected):
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "version.py").write_text(f"__all__ = ['cuda']\n{text}")
    spec = type("Spec", (), {"origin": str(folder / "__init__.py")})
    monkeypatch.setattr(precision, "find_spec", lambda _: spec)
    assert precision._torch_has_cuda() == expected


def test_two_kinds_of_machine_share_no_cell_that_is_trained(monkeypatch):
    def keys(default, *overrides):
        monkeypatch.setattr(plan, "default_precision", lambda _: default)
        cells = cells_of(parse_suite(Path("tiny.toml"), TINY_SUITE, overrides))
        return {(cell.label, cell.seed, cell.counts): cell.key("f") for cell in cells}

    fast, slow = keys("bfloat16"), keys("float32")
    for cell, key in fast.items():
        assert (slow[cell] == key) == cell[2]  # counting has no products
    for name, kind in (("float32", slow), ("bfloat16", fast)):
        for default in DTYPES:
            assert keys(default, f"training.precision={name}") == kind  # said or found, it is the same


def test_the_default_is_found_without_torch():
    program = """
        import sys
        from ipsrec_bench.precision import default_precision
        default_precision("auto")
        sys.exit("torch" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", "\n".join(line.strip() for line in program.splitlines())], check=True)


def test_the_number_and_the_memory_of_gpus_come_from_their_driver(monkeypatch):
    monkeypatch.setattr(precision, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver((9, 0), (8, 0)))
    assert precision.cuda_devices() == 2
    assert [precision.cuda_memory.__wrapped__(number) for number in range(3)] == [1 << 30, 2 << 30, None]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())
    assert (precision.cuda_devices(), precision.cuda_memory.__wrapped__(0)) == (0, None)
