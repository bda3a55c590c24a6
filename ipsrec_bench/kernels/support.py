"""Whether Triton kernels can run on this machine."""

import warnings
from functools import cache
from importlib.util import find_spec

import torch

from ipsrec_bench.precision import FIRST_CAPABILITY


@cache
def runs_kernels(device: torch.device) -> bool:
    """Return whether `device` is a GPU on which Triton kernels can run; their torch counterparts run anywhere.

    Triton comes with torch for CUDA on Linux, and needs a C compiler and Python's headers. Warns if these are missing.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FIRST_CAPABILITY or not find_spec("triton"):
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()  # compiles Triton's binding to the driver
    except Exception as error:  # noqa: BLE001 - anything that Triton or its compiler raises
        warnings.warn(
            f"Triton kernels cannot run here, so slower ones of torch are used instead: {error}", stacklevel=2
        )
        return False
    return True
