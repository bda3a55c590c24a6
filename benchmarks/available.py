"""Ranking among available candidates beside ranking among all: processor seconds and peak memory.

    python benchmarks/available.py --threads 2

Made-up vectors, histories and lifetimes at the size of Twitch-100k: 739,991 items in 64 dimensions, and targets at
different times. `short`: an item exists for about two hours of 43 days, as a live stream. `long`: for a third of the
time. `always`: all of the time, so that nothing can be left out. Rounds of all are interleaved; medians of the
processor time of all threads are shown, which other processes on the machine disturb least. Each kind is ranked once
more in a process of its own, for the memory that it adds.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from ipsrec_bench.data.batches import Histories, ResidentSequences
from ipsrec_bench.data.lifetimes import Lifetimes
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.prepared import PreparedDataset
from ipsrec_bench.data.split import Targets
from ipsrec_bench.models.api import CountingModel, Model, PickedScores, SequentialModel, Sizes, TrainingLog, Views
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.run.environment import peak_memory, reset_peak_memory, resident_memory
from ipsrec_bench.suite.schema import SyntheticSource

ITEMS, D, LENGTH = 739_991, 64, 50
DAY = 144
SPAN = 43 * DAY
"""Steps of ten minutes."""
LIFESPANS = {"all": None, "short": 12, "long": SPAN // 3, "always": 2 * SPAN}
"""Mean number of steps for which an item exists; `all` is the plain ranking."""


class Vectors(SequentialModel):
    """The mean of random item vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS + 1, D)

    def encode(self, histories: Histories, *, every_position: bool) -> Views:
        assert not every_position
        return Views(self.items(histories.items).mean(dim=1))

    def item_vectors(self) -> Tensor:
        return self.items.weight


class Counts(CountingModel):
    """Random counts as the background, and a few picked items."""

    def fit(self, log: TrainingLog) -> None:
        del log
        self.background[1:] = torch.randint(0, 1000, (ITEMS,)).double()

    def pick(self, histories: Histories) -> PickedScores:
        rows = torch.arange(len(histories.items))
        return PickedScores(rows, histories.items[:, 0], torch.ones(len(rows), dtype=torch.float64))


def world(users: int, folder: Path) -> tuple[PreparedDataset, Targets]:
    """Return histories of `LENGTH` items each and the last item of each as a target."""
    rng = np.random.default_rng(0)
    small = prepare("world", SyntheticSource(users=20, items=20, providers=2, providers_per_item=1), folder)
    offsets = np.arange(users + 1) * (LENGTH + 1)
    data = replace(
        small,
        items=rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32),
        providers=np.ones(offsets[-1], dtype=np.int32),
        times=rng.integers(0, SPAN, offsets[-1]),
        offsets=offsets,
        num_items=ITEMS,
    )
    return data, Targets(np.arange(users), offsets[1:] - 1)


def lifetimes(lifespan: int | None) -> Lifetimes | None:
    """Return random lifetimes of about so many steps."""
    if lifespan is None:
        return None
    rng = np.random.default_rng(1)
    first = rng.integers(0, SPAN, ITEMS) if lifespan < SPAN else np.zeros(ITEMS, dtype=np.int64)
    return Lifetimes(first, first + (rng.geometric(1 / lifespan, ITEMS) if lifespan < SPAN else SPAN), given=True)


def main() -> None:
    """Print the tables of both kinds of models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs=2, metavar=("MODEL", "LIFESPAN"), help="rank once and print the peak memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models: dict[str, Model] = {"vectors": Vectors()}
    models["counts"] = Counts(Sizes(arguments.users, ITEMS, 2, LENGTH))
    models["counts"].fit(None)  # type: ignore[arg-type] (it reads no log)
    device = torch.device("cpu")
    with TemporaryDirectory() as folder:
        data, targets = world(arguments.users, Path(folder))
        sequences = ResidentSequences(data, device)

        def rank(model: str, lifespan: str) -> float:
            wanted = replace(targets, lifetimes=lifetimes(LIFESPANS[lifespan]))
            began = time.process_time()
            rank_targets(models[model], data, sequences, wanted, LENGTH)
            return time.process_time() - began

        if arguments.only:
            reset_peak_memory()
            before = resident_memory()
            rank(*arguments.only)
            print((peak_memory() - before) >> 20)
            return
        print(f"{arguments.users:,} users, {ITEMS:,} items, {arguments.threads} threads")
        for model in models:
            seconds: dict[str, list[float]] = {name: [] for name in LIFESPANS}
            for _ in range(arguments.rounds):
                for name, found in seconds.items():
                    found.append(rank(model, name))
            plain = statistics.median(seconds["all"])
            for name, found in seconds.items():
                command = [sys.executable, __file__, "--only", model, name, "--users", str(arguments.users)]
                command += ["--threads", str(arguments.threads)]
                peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
                median = statistics.median(found)
                print(f"| {model} | {name} | {median:.2f} s | {median / plain:.2f} | {peak} MB |", flush=True)


if __name__ == "__main__":
    main()
