"""A GPU's measurements: loss and ranking against plain PyTorch and the floor, training, ranks against the CPU's.

    python benchmarks/gpu/measure.py --device cuda --out reports/gpu

Times are medians of interleaved rounds. A floor is the multiplications that the work cannot do without, at the rate of
a plain matrix product of the same type in the same rounds. What is done and found goes to gpu.json and gpu.md; a rank
that differs although the vectors are the same, or a model that fails, makes the exit code 1.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import softmax as loss_benchmark

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import leave_one_out
from ipsrec_bench.kernels.support import runs_kernels
from ipsrec_bench.models.api import Model, SequentialModel, Sizes
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.registry import REGISTRY, build_model, model_entry
from ipsrec_bench.ranking import rank
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import count_ranks, rank_targets
from ipsrec_bench.ranking.ranks import Ranks
from ipsrec_bench.run.environment import describe_environment, keep_freed_memory
from ipsrec_bench.suite.schema import SyntheticSource, Training
from ipsrec_bench.training.catalogue import catalogue_loss, product_dtype
from ipsrec_bench.training.fit import Loop, TrainingData, Validation, fit
from ipsrec_bench.training.objective import batch_losses
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.samples import Batch, packed_windows, prefix_windows

D = 64
CATALOGUES = (12_101, 96_564, 1_144_124)
"""Items of Amazon Beauty, of KuaiSAR and of WeChat's largest table."""
LENGTH = 50

WRONG = "ranks that differ from the CPU's, of 64"


def median_seconds(device: torch.device, works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of every work over interleaved rounds, the first of which does not count."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            taken[name].append(loss_benchmark.timed(device, work))
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def losses(device: torch.device, *, small: bool) -> list[dict[str, Any]]:
    """Time the full-catalogue loss with its gradients, in microseconds a target."""
    dtype = product_dtype("auto", device)
    rows = []
    for items in CATALOGUES[: 1 if small else None]:
        for targets in (64,) if small else (256, 2_048, 8_192):
            found = loss_benchmark.case(device, dtype, (targets, items + 1), 2 if small else 8)
            rows.append({"targets": targets, "items": items} | found)
            print("loss", rows[-1])
    return rows


def plain_ranks(users: Tensor, items: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Count as one would in PyTorch: with the scores of 512 users at a time in memory."""
    found = []
    for user, target in zip(users.split(512), targets.split(512), strict=True):
        scores = user @ items[1:].T
        own = scores.gather(1, target[:, None] - 1)
        found.append(((scores > own).sum(dim=1), (scores == own).sum(dim=1) - 1))
    higher, ties = zip(*found, strict=True)
    return torch.cat(higher), torch.cat(ties)


def rankings(device: torch.device, *, small: bool) -> list[dict[str, Any]]:
    """Time the ranking of users, in microseconds a user, and compare ranks with those of the CPU."""
    rows = []
    count = 128 if small else 4_096
    for items in CATALOGUES[: 1 if small else None]:
        torch.manual_seed(0)
        users, table = torch.randn(count, D), torch.randn(items + 1, D) * 0.3
        table[1::1000] = table[1].clone()  # ties
        targets = torch.randint(1, items + 1, (count,))
        here = users.to(device), table.to(device), targets.to(device)
        wide = 1024 if small else 8192
        left, right = torch.randn(wide, wide, device=device), torch.randn(wide, wide, device=device)

        def ours(here: tuple[Tensor, ...] = here) -> tuple[Tensor, Tensor]:
            return count_ranks(*here)

        def tiles() -> tuple[Tensor, Tensor]:
            rank.runs_kernels = lambda _: False
            try:
                return ours()
            finally:
                rank.runs_kernels = runs_kernels

        def plain(here: tuple[Tensor, ...] = here) -> tuple[Tensor, Tensor]:
            return plain_ranks(*here)

        works = {"ours": ours, "plain": plain, "floor": lambda a=left, b=right: a @ b}
        if runs_kernels(device):
            works["ours, tiles"] = tiles
        found = median_seconds(device, works, 2 if small else 5)
        found["floor"] *= count * items * D / wide**3
        some = slice(0, 64)  # the CPU takes longer
        expected = count_ranks(users[some], table, targets[some])
        got = ours()
        wrong = sum(int((one[some].cpu() != other).sum()) for one, other in zip(got, expected, strict=True))
        by_plain = plain()
        rows.append(
            {"users": count, "items": items}
            | {name: seconds / count * 1e6 for name, seconds in found.items()}
            | {
                WRONG: wrong,
                "ranks that differ from plain's": int(((got[0] != by_plain[0]) | (got[1] != by_plain[1])).sum()),
            }
        )
        print("ranking", rows[-1])
    return rows


def world(folder: Path, *, small: bool) -> PreparedDataset:
    """Return the synthetic dataset that models are trained on."""
    size = {"users": 500, "items": 300} if small else {"users": 5_000, "items": 12_101, "providers": 1_000}
    return prepare("gpu" + "-small" * small, SyntheticSource(**size), folder)


def train(
    name: str, config: ModelConfig, data: PreparedDataset, device: torch.device, training: Training, folder: Path
) -> tuple[Model, float, float]:
    """Return a trained model, its targets a second without the first epoch, and the seconds of its validations."""
    torch.manual_seed(1)
    model = build_model(name, config, Sizes(data.num_users, data.num_items, data.num_providers, LENGTH)).to(device)
    sequences, split = ResidentSequences(data, device), leave_one_out(data)

    def validate() -> Validation:
        ranks = rank_targets(model, data, sequences, split.valid, LENGTH)
        return Validation(float(metric("mrr@10", ranks.realistic).mean()))

    fitted = fit(
        model,
        config,
        TrainingData(data, sequences, split),
        training,
        Loop(
            packed=model_entry(name).packs(config),
            max_length=LENGTH,
            seed=1,
            validate=validate,
            checkpoint=folder / f"{name}.safetensors",
        ),
    )
    later = fitted.epochs[1:]
    rate = sum(epoch.targets for epoch in later) / sum(epoch.train_seconds for epoch in later) if later else 0.0
    return model, rate, sum(epoch.valid_seconds for epoch in later)


def ranks_on(model: Model, data: PreparedDataset, device: torch.device) -> Ranks:
    """Rank the test targets on `device`."""
    model = model.to(device)
    return rank_targets(model, data, ResidentSequences(data, device), leave_one_out(data).test, LENGTH)


def trainings(device: torch.device, folder: Path, *, small: bool) -> list[dict[str, Any]]:
    """Train two models on `device` and on the CPU, and compare ranks."""
    data = world(folder, small=small)
    cpu = torch.device("cpu")
    rows = []
    for name, batch in (("sasrec", 256), ("sasrec", 2048), ("ipsrec-c", 256), ("ipsrec-c", 2048)):
        config = model_entry(name).config()
        training = Training(epochs=2 if small else 4, batch_size=batch, patience=9)
        model, rate, valid_seconds = train(name, config, data, device, training, folder)
        by_device, by_cpu = ranks_on(model, data, device), ranks_on(model, data, cpu)
        row = {
            "model": name,
            "batch": batch,
            "targets a second": rate,
            "validation, us a user": valid_seconds / (training.epochs - 1) / data.num_users * 1e6,
            "MRR@10": float(metric("mrr@10", by_device.realistic).mean()),
            "MRR@10 of the same weights on the CPU": float(metric("mrr@10", by_cpu.realistic).mean()),
            "share of equal ranks": float((by_device.realistic == by_cpu.realistic).mean()),
        } | steps(model.to(device), name, data, training)
        if batch == 2048:
            other, row["targets a second on the CPU"], _ = train(name, config, data, cpu, training, folder)
            row["MRR@10 trained on the CPU"] = float(metric("mrr@10", ranks_on(other, data, cpu).realistic).mean())
        rows.append(row)
        print("training", row)
    return rows


def steps(model: Model, name: str, data: PreparedDataset, training: Training, count: int = 20) -> dict[str, float]:
    """Return milliseconds of a training step on a GPU: as it is, of its kernels, and captured in a graph and replayed.

    The graph repeats one batch: it shows what capture could win, for training does not capture its steps.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return {}
    assert isinstance(model, SequentialModel)
    model.train()
    config, split, rng = model_entry(name).config(), leave_one_out(data), np.random.default_rng(0)
    packed = model_entry(name).packs(config)
    windows = (
        packed_windows(data, split, LENGTH, training.min_context, rng)
        if packed
        else prefix_windows(data, split, LENGTH)
    )
    dtype = product_dtype("auto", device)
    sequences = ResidentSequences(data, device)
    loss_over = catalogue_loss(training, dtype, lambda: np.ones(data.num_items + 1, dtype=np.int64), rng)
    optimiser = Optimiser(model, training.learning_rate, lazy=False)
    batches = list(windows.batches(training.batch_size, rng))[:count]

    def step(batch: Batch) -> None:
        optimiser.step(batch_losses(model, config, batch, packed=packed, catalogue_loss=loss_over, dtype=dtype).total)

    def epoch() -> None:
        for chosen in batches:
            step(windows.gather(sequences, chosen))

    epoch()
    seconds = loss_benchmark.timed(device, epoch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        epoch()
        torch.cuda.synchronize(device)
    working = sum(event.device_time_total for event in profile.events()) * 1e-6
    batch = windows.gather(sequences, batches[0])
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(batch)
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(batch)
    replayed = statistics.median(loss_benchmark.timed(device, graph.replay) for _ in range(count))
    return {
        "a step, ms": seconds / len(batches) * 1e3,
        "its kernels, ms": working / len(batches) * 1e3,
        "captured and replayed, ms": replayed * 1e3,
    }


def every_model(device: torch.device, folder: Path) -> list[dict[str, Any]]:
    """Train every model for two epochs on `device`, and rank with the same weights there and on the CPU."""
    data = world(folder, small=True)
    rows = []
    for name in REGISTRY:
        entry = model_entry(name)
        try:
            model, _, _ = train(name, entry.config(), data, device, Training(epochs=2, batch_size=256), folder)
            by_device, by_cpu = (ranks_on(model, data, place).realistic for place in (device, torch.device("cpu")))
        except Exception:  # noqa: BLE001 (whatever a model raises is what is asked here)
            rows.append({"model": name, "error": traceback.format_exc()})
            print("model", name, rows[-1]["error"])
            continue
        rows.append(
            {
                "model": name,
                "share of equal ranks": float((by_device == by_cpu).mean()),
                "largest difference of MRR": float(abs((1 / by_device).mean() - (1 / by_cpu).mean())),
            }
        )
        print("model", rows[-1])
    return rows


def markdown(title: str, rows: list[dict[str, Any]]) -> str:
    """Return a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def shown(value: object) -> str:
        if value is None:
            return "–"
        if isinstance(value, float):
            return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        return f"{value:,}" if isinstance(value, int) else str(value).strip().splitlines()[-1]

    lines = [f"| {' | '.join(shown(row.get(name)) for name in names)} |" for row in rows]
    return "\n".join([f"## {title}\n", f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines, ""])


def main() -> None:
    """Measure, and write what was found after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    small = device.type == "cpu"
    arguments.out.mkdir(parents=True, exist_ok=True)
    environment = describe_environment(device, torch.get_num_threads())
    found: dict[str, Any] = {"environment": vars(environment) | {"kernels": runs_kernels(device)}}
    print(found["environment"])
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "Every model": lambda: every_model(device, folder),
            "Loss and gradients, us a target": lambda: losses(device, small=small),
            "Ranking, us a user": lambda: rankings(device, small=small),
            "Training": lambda: trainings(device, folder, small=small),
        }
        for title, part in parts.items():
            began = time.perf_counter()
            try:
                found[title] = part()
            except Exception:  # noqa: BLE001 (the other parts still tell something)
                found[title] = [{"error": traceback.format_exc()}]
                print(title, found[title][0]["error"])
            print(f"{title}: {time.perf_counter() - began:.0f} s")
            failed |= any(
                row.get("error") or row.get("ranks that differ from the CPU's, of 64") for row in found[title]
            )
            (arguments.out / "gpu.json").write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")
            tables = [markdown("Environment", [found["environment"]])]
            tables += [markdown(title, found[title]) for title in parts if title in found]
            (arguments.out / "gpu.md").write_text("\n".join(tables), encoding="utf-8")
    sys.exit(failed)


if __name__ == "__main__":
    main()
