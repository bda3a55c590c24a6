"""Whether kernels in Triton can be run here."""

import warnings
from functools import cache
from importlib.util import find_spec

import torch

from ipsrec_bench.precision import FIRST_CAPABILITY


@cache
def runs_kernels(device: torch.device) -> bool:
    """Return whether `device` is a GPU that Triton's kernels can be run on; what stands in for them runs anywhere.

    Triton comes with torch for CUDA on Linux, and needs a C compiler and Python's headers. Where these are missing a
    warning says so.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FIRST_CAPABILITY or not find_spec("triton"):
        return False
    try:
        from triton.runtime import driver

        driver.active.get_current_target()  # builds what binds Triton to the driver
    except Exception as error:  # noqa: BLE001 - whatever Triton, or the compiler that it calls, raises
        warnings.warn(
            f"Triton's kernels cannot be run here, and slower ones of torch stand in for them: {error}", stacklevel=2
        )
        return False
    return True
