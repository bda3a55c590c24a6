"""The full-catalogue loss with its gradients alone: ours, the plain one, and torch's own, on a GPU or the CPU.

    python benchmarks/softmax.py --threads 1

Rounds are interleaved, medians of microseconds per target are shown; the floor is 6 d V operations over the rate of a
plain matrix product in the same rounds. On CUDA, ours is the kernels, beside the tiles of other devices. The plain
loss is left out where it would need more than `MEMORY` for scores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ipsrec_bench.run.environment import keep_freed_memory
from ipsrec_bench.training import softmax
from ipsrec_bench.training.catalogue import product_dtype

D = 64
SMALL = ((256, 1_683), (1_600, 1_683), (256, 12_102), (1_024, 12_102), (1_024, 49_014))
LARGE = ((256, 1_144_125), (2_048, 1_144_125))
MEMORY = 4 << 30
"""Maximum bytes of the plain loss's scores, their logarithms and their gradients."""
CHUNK = 256
"""Targets per chunk of `linear_cross_entropy`, whose own choice falls to one at a million items."""


def ours(users: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the loss of training."""
    return softmax.full_cross_entropy(users, items, targets, first=1, dtype=dtype)


def with_setting(name: str, value: object, loss: Callable[..., Tensor], *factors: object) -> Tensor:
    """Return `loss` while `softmax` has another `value` under `name`."""
    kept = getattr(softmax, name)
    setattr(softmax, name, value)
    try:
        return loss(*factors)
    finally:
        setattr(softmax, name, kept)


def plain(users: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the loss that holds all scores."""
    return functional.cross_entropy((users.to(dtype) @ items[1:].to(dtype).T).float(), targets - 1)


def of_torch(users: Tensor, items: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the loss by `linear_cross_entropy`."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK)
    return functional.linear_cross_entropy(users.to(dtype), items[1:].to(dtype), targets - 1, options=options).float()


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds of one `work`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def case(device: torch.device, dtype: torch.dtype, size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Return the median microseconds per target of every contender, and of the floor, for one `size`."""
    count, rows = size
    torch.manual_seed(0)
    users = torch.randn(count, D, device=device).requires_grad_()
    items = (torch.randn(rows, D, device=device) * 0.3).requires_grad_()
    targets = torch.randint(1, rows, (count,), device=device)
    losses: dict[str, Callable[..., Tensor]] = {"ours": ours}
    if device.type == "cuda" and dtype == torch.bfloat16:
        losses["ours, tiles"] = partial(with_setting, "WIDEST", 0, ours)
    if device.type == "cpu":
        losses["ours, scores made twice"] = partial(with_setting, "KEPT", 0, ours)
    if 3 * count * rows * 4 <= MEMORY:
        losses["plain"] = plain
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        losses["linear_cross_entropy"] = of_torch
    wide = 8192 if device.type == "cuda" else 1024
    left, right = torch.randn(wide, wide, device=device).to(dtype), torch.randn(wide, wide, device=device).to(dtype)

    def step(loss: Callable[..., Tensor]) -> None:
        users.grad = items.grad = None
        loss(users, items, targets, dtype).backward()

    works = {name: partial(step, loss) for name, loss in losses.items()} | {"floor": lambda: left @ right}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            taken[name].append(timed(device, work))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    medians["floor"] *= 6 * D * rows * count / (2 * wide**3)
    return {name: seconds / count * 1e6 for name, seconds in medians.items()}


def main() -> None:
    """Print a line for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    dtype = product_dtype(arguments.precision, device)
    print(f"{device.type}, {dtype}, {arguments.threads} threads; us a target\n")
    for number, size in enumerate((*SMALL, *(LARGE if device.type == "cuda" else ()))):
        medians = case(device, dtype, size, arguments.rounds)
        if not number:
            names = list(medians)
            print(f"| targets x items | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
        cells = (f"{medians[name]:.2f}" if name in medians else "–" for name in names)
        print(f"| {size[0]:,} x {size[1] - 1:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
