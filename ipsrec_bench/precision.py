"""What `precision = "auto"` means on this machine, found without torch: it is part of a cell's key.

A run with nothing to do ends before torch would be loaded, so that the answer cannot be torch's. What a cell is trained
with follows from the answer, not from torch: where the two should ever differ, key and training still agree.
"""

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]
FIRST_CAPABILITY = (8, 0)
"""Compute capability (Ampere), the first with products in bfloat16."""
FAST_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Of processors that multiply bfloat16 faster than float32."""
CPU_INFO = Path("/proc/cpuinfo")
CUDA_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@cache
def default_precision(device: str) -> Precision:
    """Return in what precision `device` is fast: `auto`, `cpu`, `cuda` or `cuda:N`, as `--device` has it.

    `auto` is the first GPU that torch could use, else the processor. Of others float32 is said.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda"):
        capability = _capability(int(number) if number.isdigit() else 0)
        if capability is not None:
            return "bfloat16" if capability >= FIRST_CAPABILITY else "float32"
    return "bfloat16" if kind in ("auto", "cpu") and _flags() & FAST_FLAGS else "float32"


def _flags() -> set[str]:
    """Return the processor's features, as Linux names them; none elsewhere, where none has such products."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def cuda_devices() -> int:
    """Return how many GPUs there are that torch could use, found without torch."""
    number = 0
    while _capability(number) is not None:
        number += 1
    return number


@cache
def cuda_memory(number: int) -> int | None:
    """Return the bytes of memory of a GPU, found without torch; None if there is none that torch could use."""
    driver, device = _driver(), ctypes.c_int()
    size = ctypes.c_size_t()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number):
        return None
    return None if driver.cuDeviceTotalMem_v2(ctypes.byref(size), device) else size.value


def _capability(number: int) -> tuple[int, int] | None:
    """Return the compute capability of a GPU, asked of CUDA's driver; None if there is none that torch could use."""
    driver = _driver()
    if driver is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), number)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else (major.value, minor.value)


def _driver() -> ctypes.CDLL | None:
    """Return CUDA's driver, ready to be asked; None where torch could not use it."""
    if not _torch_has_cuda():
        return None
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def _torch_has_cuda() -> bool:
    """Return whether torch, as it is installed, was built for CUDA."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b[^=]*= *'", version.read_text("utf-8"), re.MULTILINE) is not None
