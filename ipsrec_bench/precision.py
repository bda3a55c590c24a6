"""What `precision = "auto"` means on this machine, found without torch because it is part of a cell's key.

A run with nothing to do ends before torch is loaded, so torch cannot give the answer. Cells are trained with this
answer, not torch's: even if the two differed, key and training would agree.
"""

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]
FIRST_CAPABILITY = (8, 0)
"""The first compute capability with matrix products in bfloat16 (Ampere)."""
FAST_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Flags of processors that multiply bfloat16 faster than float32."""
CPU_INFO = Path("/proc/cpuinfo")
CUDA_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@cache
def default_precision(device: str) -> Precision:
    """Return the fast precision of `device`: `auto`, `cpu`, `cuda` or `cuda:N`, as in `--device`.

    `auto` is the first GPU that torch could use, else the processor. For any other device, return float32.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda"):
        capability = _capability(int(number) if number.isdigit() else 0)
        if capability is not None:
            return "bfloat16" if capability >= FIRST_CAPABILITY else "float32"
    return "bfloat16" if kind in ("auto", "cpu") and _flags() & FAST_FLAGS else "float32"


def _flags() -> set[str]:
    """Return the processor's features, as Linux names them; none on other systems, where bfloat16 is not fast."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def cuda_devices() -> int:
    """Return the number of GPUs that torch could use, without importing torch."""
    number = 0
    while _capability(number) is not None:
        number += 1
    return number


@cache
def cuda_memory(number: int) -> int | None:
    """Return the memory of a GPU in bytes, without importing torch; None if torch could not use this GPU."""
    driver, device = _driver(), ctypes.c_int()
    size = ctypes.c_size_t()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), number):
        return None
    return None if driver.cuDeviceTotalMem_v2(ctypes.byref(size), device) else size.value


def _capability(number: int) -> tuple[int, int] | None:
    """Return the compute capability of a GPU from CUDA's driver; None if torch could not use this GPU."""
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
    """Return CUDA's driver, initialised; None if torch could not use it."""
    if not _torch_has_cuda():
        return None
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def _torch_has_cuda() -> bool:
    """Return whether the installed torch was built for CUDA."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b[^=]*= *'", version.read_text("utf-8"), re.MULTILINE) is not None
