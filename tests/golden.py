"""Digests of the ranks of tiny cells, to notice when the same settings give other ranks than before.

    python -m tests.golden          # prints them
    python -m tests.golden --write  # keeps them in tests/golden.json; refused if a row has changed, unless
                                    # RANKS_FORMAT was raised

Two epochs on 80 users and 40 items: scores then differ by far more than what sums in another order leave in their last
bits, so that processors with AVX2 and with AVX-512 agree, with one thread or two.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch

from ipsrec_bench.run.cell import run_cell
from ipsrec_bench.run.environment import start_threads
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.suite.cells import RANKS_FORMAT
from ipsrec_bench.suite.load import parse_suite

KEPT = Path(__file__).parent / "golden.json"
PRECISIONS = ("float32", "bfloat16")
SUITE = """
title = "Golden"
seeds = [1]
[datasets.world]
source = "synthetic"
users = 80
items = 40
providers = 6
mean_length = 7
max_length = 8
seed = 3
[models]
pop = {}
recent-pop = {}
repeat = {}
markov = {}
item-knn = {}
provider-pop = {}
gru4rec = {}
caser = {}
sr-gnn = {}
gru4rec-f = {}
sasrec-f = {}
fdsa = {}
nova = {}
dif-sr = {}
v-sknn = {}
stan = {}
sequential-rules = {}
bert4rec = { copies = 2 }
nextitnet = { block_num = 1 }
gc-san = {}
cl4srec = {}
duorec = {}
sgl = {}
skiprec = { n_layers = 2 }
hstu = { embedding_size = 64 }
lrurec = {}
tisasrec = {}
diff = {}
# In bfloat16, their ranks differ between processors in a few bits.
esasrec = { embedding_size = 64, inner_size = 128, training = { precision = "float32" } }
liverec = { training = { precision = "float32" } }
mssr = { training = { precision = "float32" } }
s3rec = { pretrain_epochs = 1, training = { precision = "float32" } }
[models.sasrec.variants]
prefix = { training = { samples = "prefix" } }
sampled = { training = { objective = "sampled-softmax", negatives = 8 } }
gbce = { training = { objective = "gbce", negatives = 8 } }
lazy = { training = { optimiser = "lazy-adam" } }
[models.ipsrec-s.variants]
released = { preset = "released" }
[models.ipsrec-c.variants]
released = { preset = "released" }
[training]
epochs = 2
batch_size = 128
learning_rate = 0.01
"""


def digests(threads: int) -> dict[str, dict[str, str]]:
    """Return, by precision and row, the digest of the validation and test ranks."""
    found: dict[str, dict[str, str]] = {}
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "s.duckdb"
            file = parse_suite(Path("golden.toml"), SUITE, [f"training.precision={precision}"])
            plan = make_plan(file, Path(folder) / "data", store, lambda _: None, device="cpu")
            start_threads(threads)
            place = Place("here", "cpu", threads, Path(folder))
            for key, cell in plan.cells:
                record = run_cell(key, cell, place, plan.datasets[cell.dataset], lambda _: None)
                assert record.error is None, record.error
                ranks = [record.ranks[split].realistic.tolist() for split in ("valid", "test")]
                digest = hashlib.sha256(json.dumps(ranks).encode()).hexdigest()
                found.setdefault(precision, {})[cell.label] = digest[:16]
    return found


def _has_all(made: dict[str, dict[str, str]], kept: dict[str, dict[str, str]]) -> bool:
    return all(made[precision].items() >= rows.items() for precision, rows in kept.items())


def main() -> None:
    made = digests(1)
    if "--write" not in sys.argv:
        sys.stdout.write(json.dumps(made))
        return
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else None
    if kept is not None and not _has_all(made, kept["digests"]) and kept["format"] >= RANKS_FORMAT:
        sys.exit("ranks have changed: raise RANKS_FORMAT in ipsrec_bench/suite/cells.py first")
    content = {"format": RANKS_FORMAT, "torch": torch.__version__, "digests": made}
    KEPT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
