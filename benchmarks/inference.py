"""Statistics: false alarms, power and time of each test.

    python benchmarks/inference.py false-alarms
    python benchmarks/inference.py methods
    python benchmarks/inference.py methods-power
    python benchmarks/inference.py few-users
    python benchmarks/inference.py all-pairs
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
from ipsrec_bench.stats import effect as effects
from ipsrec_bench.stats.all_pairs import max_t
from ipsrec_bench.stats.differences import mean_differences, over_seeds
from ipsrec_bench.stats.method import method_test
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


def rejections(a: NDArray[np.float64], b: NDArray[np.float64]) -> list[bool]:
    """Return which tests reject, for a metric of two rows, `[users, seeds]`."""
    over_users = mean_differences(a, b)
    low, high = bootstrap_intervals(over_users[None], 1 - ALPHA, RESAMPLES)[0]
    return [
        paired_t_test(over_users).p < ALPHA,
        sign_flip_p(over_users[None], RESAMPLES)[0] < ALPHA,
        not low <= 0 <= high,
        wilcoxon_p(over_users) < ALPHA,
        a.shape[1] > 1 and method_test(a, b).test.p < ALPHA,
    ]


TESTS = ("paired t", "sign flips", "bootstrap", "Wilcoxon", "method")


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
            found.append(rejections(a, b))
        rates = [
            "–" if seeds == 1 and test == "method" else f"{rate:.3f}"
            for test, rate in zip(TESTS, np.mean(found, axis=0), strict=True)
        ]
        print(f"| {name} | {users:,} | {seeds} | " + " | ".join(rates) + " |", flush=True)


DESIGNS = ((3, 3), (5, 5), (10, 10), (3, 5), (3, 10), (3, None), (5, None), (10, None))
"""Numbers of seeds of both rows; None is a row without randomness."""
SHIFTS = (0.0, 0.03, 0.15)
"""Standard deviations of trainings, in log ranks: they move the NDCG@10 of a seed by about 0, 3 and 15%."""


def method_pair(
    rng: np.random.Generator, users: int, seeds: tuple[int, int | None], of_seed: float, gain: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Return NDCG@10 of two methods of equal mean, `[users, seeds]`, and whether the second one is random.

    `gain` raises the first one's. A shift of a training multiplies the values of all of its users, so that it has no
    effect on the mean of the method, also beside a row that has none.
    """
    difficulty = rng.normal(0, DIFFICULTY, users)
    rows = []
    for number in seeds:
        values = ndcg(log_ranks(rng, difficulty, np.zeros(number or 1)))
        rows.append(values * (1 + rng.normal(0, of_seed, number)) if number else values)
    return rows[0] * (1 + gain), rows[1], seeds[1] is not None


def methods(draws: int) -> None:
    """Print how often the test of a method rejects a true null: equal, unequal and one-sided numbers of seeds."""
    users = 2_000
    spans = [[int(end) for end in stats.binom.interval(0.95, draws, alpha)] for alpha in (0.05, 0.01)]
    (low, high), (least, most) = [[f"{100 * end / draws:.1f}" for end in span] for span in spans]
    print(
        f"{draws:,} nulls a line, {users:,} users; a rate of 5% lies in {low} to {high}%, of 1% in {least} to {most}%"
    )
    print("\n| seeds | spread of trainings | rejected at 5% | at 1% | outside of the interval |")
    print("|---|---:|---:|---:|---|")
    for seeds in DESIGNS:
        for of_seed in SHIFTS:
            rng = np.random.default_rng([seeds[0], seeds[1] or 0, round(100 * of_seed)])
            p = []
            for _ in range(draws):
                a, b, random = method_pair(rng, users, seeds, of_seed)
                p.append(method_test(a, b, b_random=random).test.p)
            counts = [int((np.array(p) < alpha).sum()) for alpha in (0.05, 0.01)]
            outside = [
                f"{'above' if count > span[1] else 'below'} at {alpha}"
                for count, span, alpha in zip(counts, spans, ("5%", "1%"), strict=True)
                if not span[0] <= count <= span[1]
            ]
            rates = " | ".join(f"{100 * count / draws:.1f}%" for count in counts)
            print(f"| {_seeds(seeds)} | {of_seed:.0%} | {rates} | {', '.join(outside) or '–'} |")


def methods_power(draws: int) -> None:
    """Print how often the test of a method finds a true gain at 1%, and how often that of trained models does."""
    print("| users | spread of trainings | gain | " + " | ".join(f"{_seeds(seeds)}" for seeds in DESIGNS[:6]) + " |")
    print("|---:|---:|---:|" + "---:|" * 6)
    for users, of_seed in ((2_000, 0.03), (20_000, 0.03)):
        for gain in (0.05, 0.1, 0.2):
            found = []
            for seeds in DESIGNS[:6]:
                rng = np.random.default_rng([users, seeds[0], seeds[1] or 0, round(100 * gain)])
                p = []
                for _ in range(draws):
                    a, b, random = method_pair(rng, users, seeds, of_seed, gain)
                    p.append((method_test(a, b, b_random=random).test.p, paired_t_test(mean_differences(a, b)).p))
                found.append(" / ".join(f"{rate:.2f}" for rate in (np.array(p) < 0.01).mean(axis=0)))
            print(f"| {users:,} | {of_seed:.0%} | {gain:+.0%} | " + " | ".join(found) + " |")


def _seeds(seeds: tuple[int, int | None]) -> str:
    return f"{seeds[0]}, {seeds[1] or 'not random'}"


def few_users(draws: int) -> None:
    """Print how often the interval of d_z excludes 0 for equal models, where few users have a difference."""
    print("| differing users | with an interval for any number | without one below 10 |")
    print("|---:|---:|---:|")
    least, hits = effects.MIN_DIFFERING, metric("ndcg@10", np.arange(1, 11))
    for differing in (2, 3, 5, 8, 9, 10, 15, 20, 40):
        rates = []
        for effects.MIN_DIFFERING in (0, least):  # type: ignore[misc]
            rng, excluded = np.random.default_rng(differing), 0
            for _ in range(draws):
                d = np.zeros(500)
                d[:differing] = hits[rng.integers(10, size=differing)] * rng.choice([-1, 1], differing)
                found = effects.effect_size(d)
                excluded += not (found.low <= 0 <= found.high or np.isnan(found.low))
            rates.append(f"{100 * excluded / draws:.1f}%")
        print(f"| {differing} | {rates[0]} | {rates[1]} |")


def all_pairs(draws: int) -> None:
    """Print the critical values of all pairs, and how often any of the pairs of equal models differs."""
    print("| rows | pairs | critical t at 5% | at 1% | Bonferroni's at 5% | any false alarm at 5% |")
    print("|---:|---:|---:|---:|---:|---:|")
    users, resamples = 1_000, 400
    for rows in (3, 6, 10):
        rng, alarms, critical = np.random.default_rng(rows), 0, []
        for _ in range(draws):
            difficulty = rng.normal(0, DIFFICULTY, users)
            values = np.stack([over_seeds(ndcg(log_ranks(rng, difficulty, np.zeros(3)))) for _ in range(rows)])
            found = max_t(values, resamples, int(rng.integers(1 << 31)))
            critical.append([found.critical(0.05), found.critical(0.01)])
            alarms += bool((found.p < ALPHA).any())
        at_5, at_1 = np.mean(critical, axis=0)
        pairs = rows * (rows - 1) // 2
        bonferroni = stats.t.isf(ALPHA / 2 / pairs, users - 1)
        print(f"| {rows} | {pairs} | {at_5:.2f} | {at_1:.2f} | {bonferroni:.2f} | {100 * alarms / draws:.1f}% |")


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
                found.append(rejections(a, b))
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
    text += "".join(f"[protocols.p{i}]\nmask_history = true\n" for i in range(1, protocols))
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
                f"INSERT INTO targets SELECT '{label}', 'leave-one-out', users, counts, counts, counts, seen,"
                " seen, NULL FROM facts"
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
            "t over users, methods, effect, gain, power": [],
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


MEASURED: dict[str, Callable[[int], None]] = {
    "false-alarms": false_alarms,
    "methods": methods,
    "methods-power": methods_power,
    "few-users": few_users,
    "all-pairs": all_pairs,
    "power": power,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", *MEASURED])
    parser.add_argument("--draws", type=int, default=1_000)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if arguments.what == "speed":
        speed()
    else:
        MEASURED[arguments.what](arguments.draws)
