"""Statistics: false alarms, power and time of each test.

    python benchmarks/inference.py false-alarms
    python benchmarks/inference.py crossed
    python benchmarks/inference.py power
    python benchmarks/inference.py speed

Ranks are drawn as they look in practice: a user's log rank is the sum of the user's difficulty, a shift of the model
for this user, a shift of the training (seed), and noise of this user and training. Few users are hits, and most
differences of a metric with a cutoff are exactly 0. Under the null two models have the same distribution.

- `same trainings`: one training each, and both have the same shift, so that the null of tests over users holds: these
  two trained models are equally good.
- `other seeds`: every training has another shift, so that only the null of the methods holds. A test over users of
  such trainings answers another question, and its rate says how often its answer would be misread.
- `unlike shapes`: two models with the same mean NDCG@10, one with more hits, the other with better ones.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.report.build import build_report
from ipsrec_bench.report.material import read_material
from ipsrec_bench.report.render import FORMATS, write_report
from ipsrec_bench.report.runs import read_run, shown_otherwise
from ipsrec_bench.stats.crossed import crossed_test
from ipsrec_bench.stats.paired import paired_t_test, wilcoxon_p
from ipsrec_bench.stats.resampling import bootstrap_intervals, sign_flip_p
from ipsrec_bench.store.connect import reading, writing
from ipsrec_bench.store.ingest import begin_run
from ipsrec_bench.store.records import PlannedCell
from ipsrec_bench.suite.load import parse_suite

ITEMS = 20_000
ALPHA = 0.05
RESAMPLES = 1_000
DIFFICULTY, OF_MODEL, OF_TRAINING = 2.2, 0.5, 1.0
"""Standard deviations of a log rank: of users, of users within a model, of users within a training."""
OF_SEED = 0.02
"""Standard deviation of trainings: one moves the NDCG@10 of its seed by about 2%. One user in 15 is a hit at 10."""

Draw = Callable[[np.random.Generator, int, int, float], tuple[NDArray[np.float64], NDArray[np.float64]]]


def log_ranks(
    rng: np.random.Generator, difficulty: NDArray[np.float64], shifts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the log ranks of one model, `[users, seeds]`."""
    users, seeds = len(difficulty), len(shifts)
    own = rng.normal(0, OF_MODEL, (users, 1))
    return 6.0 + difficulty[:, None] + own + shifts + rng.normal(0, OF_TRAINING, (users, seeds))


def ndcg(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return NDCG@10 of log ranks."""
    return metric("ndcg@10", np.clip(np.ceil(np.exp(logs)), 1, ITEMS).astype(np.int64))


def pair(
    rng: np.random.Generator, users: int, seeds: int, effect: float = 0.0, of_seed: float = OF_SEED
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return NDCG@10 of two models, `[users, seeds]`; `effect` lowers the first one's log ranks."""
    difficulty = rng.normal(0, DIFFICULTY, users)
    shifts = rng.normal(0, of_seed, (2, seeds))
    return ndcg(log_ranks(rng, difficulty, shifts[0] - effect)), ndcg(log_ranks(rng, difficulty, shifts[1]))


def unlike_pair(rng: np.random.Generator, users: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two models of equal mean: the first hits twice as often, at gains half as high."""
    hit_a, hit_b = rng.random(users) < 0.16, rng.random(users) < 0.08
    return np.where(hit_a, 0.4, 0.0)[:, None], np.where(hit_b, 0.8, 0.0)[:, None]


def rejections(d: NDArray[np.float64]) -> list[bool]:
    """Return which tests reject, for differences `[users, seeds]`."""
    over_users = d.mean(axis=1)
    low, high = bootstrap_intervals(over_users[None], 1 - ALPHA, RESAMPLES)[0]
    return [
        paired_t_test(over_users).p < ALPHA,
        sign_flip_p(over_users[None], RESAMPLES)[0] < ALPHA,
        not low <= 0 <= high,
        wilcoxon_p(over_users) < ALPHA,
        d.shape[1] > 1 and crossed_test(d).test.p < ALPHA,
    ]


TESTS = ("paired t", "sign flips", "bootstrap", "Wilcoxon", "users x seeds")


def false_alarms(draws: int) -> None:
    """Print the rate at which every test rejects a true null."""
    low, high = stats.binom.interval(0.95, draws, ALPHA)
    print(f"{draws:,} nulls, rejected at {ALPHA}; a rate of {ALPHA} lies in {low / draws:.3f} to {high / draws:.3f}\n")
    print("| null | users | seeds | " + " | ".join(TESTS) + " |")
    print("|---|---:|---:|" + "---:|" * len(TESTS))
    designs = [
        ("same trainings", 500, 1, lambda rng, u, s: pair(rng, u, s, of_seed=0)),
        ("same trainings", 5_000, 1, lambda rng, u, s: pair(rng, u, s, of_seed=0)),
        ("unlike shapes", 5_000, 1, lambda rng, u, _: unlike_pair(rng, u)),
        ("other seeds", 5_000, 3, pair),
        ("other seeds", 5_000, 5, pair),
        ("other seeds", 50_000, 5, pair),
        ("other seeds", 5_000, 10, pair),
    ]
    for name, users, seeds, draw in designs:
        rng = np.random.default_rng([users, seeds])
        found = []
        for _ in range(draws if users <= 5_000 else draws // 2):
            a, b = draw(rng, users, seeds)
            found.append(rejections(a - b))
        rates = [
            "–" if seeds == 1 and test == "users x seeds" else f"{rate:.3f}"
            for test, rate in zip(TESTS, np.mean(found, axis=0), strict=True)
        ]
        print(f"| {name} | {users:,} | {seeds} | " + " | ".join(rates) + " |", flush=True)


def crossed(draws: int) -> None:
    """Print how often users x seeds rejects a true null, over shares of users and seeds in the variance."""
    users = 1_000
    shares = (0.0, 0.3, 1.0, 4.0, 20.0)
    print("| seeds | users' variance | rejected at 5% | at 1% |")
    print("|---:|---:|---:|---:|")
    for seeds in (3, 5, 10):
        for of_users in (0.0, 0.25, 1.0):  # times the residual's
            rates = []
            for share in shares:  # of the seeds' part of the variance of the mean, times the residual's
                rng = np.random.default_rng([seeds, round(100 * of_users), round(10 * share)])
                of_seed = (share / users) ** 0.5
                p = []
                for _ in range(draws):
                    d = rng.normal(0, 1, (seeds, users))
                    d += rng.normal(0, of_users**0.5, users) + rng.normal(0, of_seed, (seeds, 1))
                    p.append(crossed_test(d.T).test.p)
                rates.append([np.mean(np.array(p) < alpha) for alpha in (0.05, 0.01)])
            least, most = np.min(rates, axis=0), np.max(rates, axis=0)
            spans = (f"{100 * low:.1f} to {100 * high:.1f}%" for low, high in zip(least, most, strict=True))
            print(f"| {seeds} | {of_users:g} | " + " | ".join(spans) + " |", flush=True)


def power(draws: int) -> None:
    """Print how often every test finds a true difference."""
    print("| effect | gain in NDCG@10 | users | seeds | " + " | ".join(TESTS) + " |")
    print("|---:|---:|---:|---:|" + "---:|" * len(TESTS))
    for users, seeds in ((1_000, 5), (5_000, 5), (20_000, 5)):
        for effect in (0.02, 0.05, 0.1, 0.2):
            rng = np.random.default_rng([users, seeds, round(1000 * effect)])
            found, means = [], []
            for _ in range(draws):
                a, b = pair(rng, users, seeds, effect)
                means.append((a.mean(), b.mean()))
                found.append(rejections(a - b))
            gain = np.mean(means, axis=0)
            rates = " | ".join(f"{rate:.2f}" for rate in np.mean(found, axis=0))
            print(f"| {effect} | {gain[0] / gain[1] - 1:+.1%} | {users:,} | {seeds} | {rates} |", flush=True)


SUITE = """
title = "Large"
seeds = {seeds}
datasets = {datasets}
models = {models}
"""


def fill(path: Path, datasets: int, models: int, seeds: int, users: int, protocols: int = 1) -> None:
    """Write a store of that size, the last two models proposed; each further protocol has ranks of its own."""
    names = [f"model-{i}" for i in range(models - 2)] + ["ipsrec-s", "ipsrec-c"]
    labels = [f"data-{i}" for i in range(datasets)]
    conditions = [(label, label, "") for label in labels]
    conditions += [(f"{label}, p{i}", label, f"p{i}") for i in range(1, protocols) for label in labels]
    text = SUITE.format(seeds=list(range(1, seeds + 1)), datasets=["positive-control"], models=names)
    cells = [
        PlannedCell(f"{label}-{name}-{seed}", label, name, name, name, "", seed, base, protocol=protocol)
        for label, base, protocol in conditions
        for seed in range(1, seeds + 1)
        for name in names
    ]
    rng = np.random.default_rng(0)
    settings = '{"config": {}, "training": {}, "protocol": {"max_length": 50}}'
    with writing(path) as connection:
        begin_run(connection, parse_suite(Path("large.toml"), text), [], cells)
        connection.execute("INSERT INTO environments VALUES ('e', '0', '3', '2', '2', '2', 'x', 'x', 2, 2, 'cpu', '')")
        for label in labels:
            connection.execute(
                f"INSERT INTO datasets VALUES ('{label}', '{label}', {users}, {ITEMS}, 9, 9, 9, 9, 0.1, 0, 0.5, NULL,"
                " false, 1, 'none')"
            )
            facts = {
                "users": np.arange(users, dtype=np.int32),
                "counts": rng.geometric(0.05, users).astype(np.int32),
                "seen": rng.random(users) < 0.3,
            }
            connection.register("facts", facts)
            connection.execute(
                f"INSERT INTO targets SELECT '{label}', 'leave-one-out', users, counts, counts, counts, seen, seen"
                " FROM facts"
            )
            difficulty = rng.normal(0, DIFFICULTY, users)
            for number, cell in enumerate(cell for cell in cells if cell.base == label):
                shift = rng.normal(0, OF_SEED, 1) - 0.03 * (number % models)
                logs = log_ranks(rng, difficulty, shift)[:, 0]
                drawn = {
                    "users": np.arange(users, dtype=np.int32),
                    "higher": np.clip(np.ceil(np.exp(logs)), 1, ITEMS).astype(np.int32) - 1,
                }
                row = connection.execute(
                    "INSERT INTO cells (key, status, fingerprint, type, seed, settings, environment, started, seconds,"
                    " train_seconds, peak_memory, parameters, stop_metric, best_epoch, best_valid)"
                    " VALUES (?, 'complete', ?, ?, ?, ?, 'e', '2026-01-01', 9, 9, 10000000, 1000, 'mrr@10', 40, 0.1)"
                    " RETURNING cell",
                    [cell.key, label, cell.type, cell.seed, settings],
                ).fetchone()
                assert row is not None
                connection.register("drawn", drawn)
                for split in ("valid", "test"):
                    connection.execute("INSERT INTO ranks SELECT ?, ?, users, higher, 0 FROM drawn", [row[0], split])
                connection.execute(
                    "INSERT INTO epochs SELECT ?, 'main', i, 1 / i, 0.1 * i / (i + 5), 1, 1, 99 FROM range(1, 51) t(i)",
                    [row[0]],
                )


def speed() -> None:
    """Print how long the statistics of a large store take, and the report of a wide one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.duckdb"
        fill(path, datasets=1, models=8, seeds=5, users=886_000)
        print("886,000 users x 8 models x 5 seeds, 42 comparisons (6 metrics), slices for two models, from DuckDB:\n")
        print("| statistics | seconds |")
        print("|---|---:|")
        ways = {
            "t over users, users x seeds, effect, gain, power": [],
            "with sign flips, 2,000": ["statistics.test=randomisation", "statistics.resamples=2000"],
            "with the bootstrap, 2,000": [
                "statistics.test=paired-t",
                "statistics.interval=bootstrap",
                "statistics.resamples=2000",
            ],
        }
        for name, overrides in ways.items():
            times = [_timed(path, overrides) for _ in range(3)]
            print(f"| {name} | {np.median(times):.1f} |", flush=True)
        wide = Path(folder) / "wide.duckdb"
        fill(wide, datasets=6, models=10, seeds=5, users=20_000, protocols=2)
        began = time.perf_counter()
        with reading(wide) as connection:
            content = build_report(read_material(connection, read_run(connection)))
        written = write_report(content, Path(folder) / "out", FORMATS)
        size = written.pages["html"].stat().st_size / 1e6
        seconds = time.perf_counter() - began
        print(
            f"\nReport of 6 datasets x 10 models x 5 seeds x 2 protocols, 20,000 users, all formats: {seconds:.1f} s,"
            f" HTML {size:.1f} MB, {len(written.charts)} chart files"
        )


def _timed(path: Path, overrides: list[str]) -> float:
    began = time.perf_counter()
    with reading(path) as connection:
        build_report(read_material(connection, shown_otherwise(read_run(connection), overrides)))
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["false-alarms", "crossed", "power", "speed"])
    parser.add_argument("--draws", type=int, default=1_000)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if arguments.what == "speed":
        speed()
    else:
        {"false-alarms": false_alarms, "crossed": crossed, "power": power}[arguments.what](arguments.draws)
