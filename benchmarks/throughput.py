"""Training and ranking beside the arithmetic that they cannot avoid, measured in the same run.

Floors: a target costs 6 d V floating-point operations in the full softmax (forward and backward), a ranked user
2 d V; both divided by the rate of a plain float32 matrix product of the same shape. Measurements are interleaved and
repeated; medians are printed as a Markdown table.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.suite.schema import SyntheticSource
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.samples import packed_windows

MODELS = ("sasrec", "ipsrec-s", "ipsrec-c")
MAX_LENGTH = 20
BATCH_SIZE = 1024


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)

    with tempfile.TemporaryDirectory() as folder:
        source = SyntheticSource(users=arguments.users, items=arguments.items, providers=200)
        data = prepare("bench", source, Path(folder))
        run(data, arguments.repeats)


def run(data, repeats: int) -> None:  # noqa: ANN001 (a prepared dataset, which lives as long as its folder)
    """Measure on `data`, every contender once per repeat."""
    split, sequences = leave_one_out(data), ResidentSequences(data, torch.device("cpu"))
    windows = packed_windows(data, split, MAX_LENGTH)
    batches = windows.batches(BATCH_SIZE, np.random.default_rng(0))[:8]
    targets = sum(int(windows.fresh[batch].sum()) for batch in batches)
    contenders = {}
    for name in MODELS:
        config = model_entry(name).config()
        torch.manual_seed(0)
        model = build_model(name, config, Sizes(data.num_users, data.num_items, data.num_providers, MAX_LENGTH))
        contenders[name] = (model, config, torch.optim.Adam(model.parameters(), fused=True))
    d = contenders[MODELS[0]][1].embedding_size
    left, right = torch.randn(BATCH_SIZE, d), torch.randn(d, data.num_items)

    def train(name: str) -> None:
        model, config, optimiser = contenders[name]
        model.train()
        for chosen in batches:
            losses = batch_losses(model, config, windows.gather(sequences, chosen), packed=True)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()

    def product() -> None:
        for _ in range(8):
            left @ right

    times: dict[str, list[float]] = {}
    for _ in range(repeats + 1):  # the first round warms up
        times.setdefault("product", []).append(seconds(product))
        for name in MODELS:
            times.setdefault(name, []).append(seconds(lambda name=name: train(name)))
            model = contenders[name][0]
            ranking = seconds(lambda model=model: rank_targets(model, data, sequences, split.test, MAX_LENGTH))
            times.setdefault(f"rank {name}", []).append(ranking)
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    rate = 8 * 2 * BATCH_SIZE * d * data.num_items / median["product"]

    print(f"{data.num_items:,} items, d = {d}, {torch.get_num_threads()} threads")
    print(f"matrix product: {rate / 1e9:.0f} GFLOP/s\n")
    print("| model | training targets/s | share of the softmax floor | ranked users/s | share of the product floor |")
    print("|---|---:|---:|---:|---:|")
    for name in MODELS:
        trained = targets / median[name]
        ranked = len(split.test.users) / median[f"rank {name}"]
        train_floor, rank_floor = rate / (6 * d * data.num_items), rate / (2 * d * data.num_items)
        print(f"| {name} | {trained:,.0f} | {trained / train_floor:.0%} | {ranked:,.0f} | {ranked / rank_floor:.0%} |")


if __name__ == "__main__":
    main()
