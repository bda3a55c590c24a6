"""Check whether torch and this project's kernels run on each device: a program that prints one JSON line per part.

It runs in a separate process, so that a crash of a broken installation is only a finding.
"""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ipsrec_bench.kernels.support import runs_kernels
from ipsrec_bench.ranking.rank import count_ranks
from ipsrec_bench.training.catalogue import product_dtype
from ipsrec_bench.training.softmax import full_cross_entropy

SEED = 1
TARGETS, ITEMS, WIDTH = 48, 200, 16
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
"""Maximum relative error of loss and gradients against float64."""


def parts() -> Iterator[dict[str, Any]]:
    """Yield facts about torch, then about each device after a small training and ranking step."""
    yield {
        "part": "torch",
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
    }
    yield _checked(torch.device("cpu"))
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield _checked(torch.device("cuda", number))


def _checked(device: torch.device) -> dict[str, Any]:
    part: dict[str, Any] = {"part": str(device), "error": "", "kernels": False, "warning": ""}
    try:
        if device.type == "cuda":
            part["name"] = torch.cuda.get_device_name(device)
            part["free"], part["total"] = torch.cuda.mem_get_info(device)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                part["kernels"] = runs_kernels(device)
            part["warning"] = "; ".join(str(warning.message) for warning in said)
        part["fast_in_bfloat16"] = product_dtype("auto", device) == torch.bfloat16
        for dtype in (torch.float32, torch.bfloat16):
            _try_loss(device, dtype)
        _try_ranks(device)
    except Exception as error:  # noqa: BLE001 (any error of a driver or a compiler is a finding)
        part["error"] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return part


def _drawn() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    users, items = (torch.randn(rows, WIDTH, generator=generator) for rows in (TARGETS, ITEMS))
    return users, items, torch.randint(1, ITEMS, (TARGETS,), generator=generator)


def _try_loss(device: torch.device, dtype: torch.dtype) -> None:
    """Compare the loss over all items and its gradients with a plain computation in float64 on the CPU."""
    users, items, targets = _drawn()
    u, v = (table.double().requires_grad_() for table in (users, items))
    plain = cross_entropy(u @ v[1:].T, targets - 1)
    exact = (plain.detach(), *torch.autograd.grad(plain, (u, v)))
    u, v = (table.to(device).requires_grad_() for table in (users, items))
    loss = full_cross_entropy(u, v, targets.to(device), first=1, dtype=dtype)
    found = (loss.detach(), *torch.autograd.grad(loss, (u, v)))
    kind = str(dtype).removeprefix("torch.")
    for name, ours, theirs in zip(("loss", "gradient of users", "gradient of items"), found, exact, strict=True):
        distance = float((ours.cpu().double() - theirs).norm() / theirs.norm())
        if not distance <= TOLERANCE[kind]:
            raise ArithmeticError(f"the {name} in {kind} has a relative error of {distance:.2g} against float64")


def _try_ranks(device: torch.device) -> None:
    """Compare how many items score above each target with a plain count in float64 on the CPU."""
    users, items, targets = _drawn()
    higher, _ = count_ranks(users.to(device), items.to(device), targets.to(device))
    scores = (users.double() @ items.double().T).float()
    above = (scores[:, 1:] > scores.gather(1, targets[:, None])).sum(dim=1)
    wrong = int((higher.cpu() != above).sum())
    if wrong:
        raise ArithmeticError(f"{wrong} of {TARGETS} ranks are wrong")


if __name__ == "__main__":
    for part in parts():
        print(json.dumps(part), flush=True)  # noqa: T201
