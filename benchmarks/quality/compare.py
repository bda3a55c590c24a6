"""The cost of packing and bfloat16 in quality, and the time to reach a quality, from a store.

    ipsrec-bench run benchmarks/quality/beauty.toml --store beauty.duckdb
    python benchmarks/quality/compare.py beauty.duckdb --threshold 0.0363

Equivalence: two one-sided paired t-tests (TOST) over users of the test NDCG@10, averaged over seeds, against a margin
of 5% of the reference's mean. `lower` and `upper` are the ends of the 90% interval of the difference; it is
equivalent if both lie within the margin, and not worse if the lower end does. Time to quality: seconds of training,
validation not counted, until the validation MRR@10 first reaches a threshold.
"""

import argparse
from pathlib import Path

import duckdb
import numpy as np
from scipy import stats

MARGIN = 0.05


def main() -> None:
    """Print both tables of every store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--threshold", type=float, nargs="*", default=[])
    arguments = parser.parse_args()
    for store in arguments.stores:
        with duckdb.connect(str(store), read_only=True) as connection:
            equivalence(connection, store.stem)
            time_to_quality(connection, store.stem, arguments.threshold)


def equivalence(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Compare every row with the one trained on prefixes, and with the one in float32."""
    rows = connection.execute(
        'SELECT variant, seed, "user", ndcg(rank, 10) AS ndcg FROM user_ranks'
        " WHERE split = 'test' ORDER BY variant, seed, \"user\""
    ).fetchnumpy()
    variants = {}
    for variant in dict.fromkeys(rows["variant"]):
        chosen = rows["variant"] == variant
        seeds = len(set(rows["seed"][chosen]))
        variants[str(variant)] = rows["ndcg"][chosen].reshape(seeds, -1)
    print(f"\n**{name}**, {variants[''].shape[1]:,} users\n")
    print("| row | against | seeds | NDCG@10 | against | difference | lower | upper | TOST p | verdict |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for one, other in (("", "prefix"), ("", "float32")):
        if other not in variants:
            continue
        seeds = min(len(variants[one]), len(variants[other]))
        a, b = variants[one][:seeds].mean(axis=0), variants[other][:seeds].mean(axis=0)
        difference, margin = a - b, MARGIN * b.mean()
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        quantile, mean = stats.t.ppf(0.95, len(difference) - 1), difference.mean()
        lower, upper = mean - quantile * error, mean + quantile * error
        p = max(stats.t.sf((mean + margin) / error, len(a) - 1), stats.t.sf((margin - mean) / error, len(a) - 1))
        verdict = (
            "equivalent" if -margin < lower and upper < margin else "not worse" if -margin < lower else "not shown"
        )
        shares = (f"{value / b.mean():+.1%}" for value in (mean, lower, upper))
        means = f"{a.mean():.4f} | {b.mean():.4f}"
        print(f"| packed | {other} | {seeds} | {means} | {' | '.join(shares)} | {p:.3f} | {verdict} |")


def time_to_quality(connection: duckdb.DuckDBPyConnection, name: str, thresholds: list[float]) -> None:
    """Print when each cell first reaches each threshold."""
    rows = connection.execute(
        "SELECT variant, seed, list(train_seconds ORDER BY epoch), list(valid ORDER BY epoch)"
        " FROM current_cells JOIN epochs USING (cell) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    print(f"\n| {name} | seed | best | seconds per epoch |" + "".join(f" s to {t} |" for t in thresholds))
    print("|---|---:|---:|---:|" + "---:|" * len(thresholds))
    for variant, seed, seconds, valid in rows:
        reached = np.maximum.accumulate(valid)
        times = [f"{np.cumsum(seconds)[np.argmax(reached >= t)]:.0f}" if reached[-1] >= t else "–" for t in thresholds]
        print(f"| {variant or 'packed'} | {seed} | {max(valid):.4f} | {np.mean(seconds):.1f} | {' | '.join(times)} |")


if __name__ == "__main__":
    main()
