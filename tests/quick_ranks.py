"""Test ranks of the suite `quick`, as trained: 1,467 users, 799 items, 6 rows, 3 seeds."""

from functools import cache
from pathlib import Path

import duckdb
import numpy as np

from ipsrec_bench.ranking.metrics import metric, realistic_rank

FIXTURE = Path(__file__).parent / "fixtures" / "quick-test-ranks.parquet"


@cache
def quick_ranks() -> dict[str, np.ndarray]:
    """Ranks of every row, `[users, seeds]`, by its label, like `ipsrec-c w/o CL`; not to be written to."""
    rows = duckdb.sql(f"SELECT model, variant, seed, \"user\", higher, ties FROM '{FIXTURE}' ORDER BY ALL").fetchnumpy()
    rank = realistic_rank(rows["higher"], rows["ties"])
    labels = np.array(
        [f"{model} {variant}".strip() for model, variant in zip(rows["model"], rows["variant"], strict=True)]
    )
    found = {
        label: np.ascontiguousarray(rank[labels == label].reshape(3, -1).T) for label in np.unique(labels).tolist()
    }
    for ranks in found.values():
        ranks.flags.writeable = False
    return found


def quick_ndcg(label: str) -> np.ndarray:
    """NDCG@10 of a row, `[users, seeds]`."""
    return metric("ndcg@10", quick_ranks()[label])
