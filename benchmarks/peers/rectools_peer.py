"""RecTools' SASRec behind a line protocol; run with the Python of an environment that has it.

    python rectools_peer.py FOLDER DATASET MAX_LENGTH

loads `FOLDER/DATASET/DATASET.inter` and answers `train STEPS` on standard input with one line of JSON: the targets
that the batches of 32 sequences really held (it keeps only a user's newest items) and the seconds they took.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import pandas as pd  # noqa: E402
from pytorch_lightning import Callback, Trainer  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402


class OnDemand(Callback):
    """Let the trainer run only the requested steps."""

    def __init__(self) -> None:
        """Begin without a request."""
        self.left = 0
        self.targets = 0
        self.began = time.perf_counter()

    def on_train_batch_start(self, trainer, _module, batch, _index) -> None:
        """Count the targets, or report and wait for the next line."""
        if self.left == 0:
            if trainer.global_step:
                answer = {"targets": self.targets, "seconds": time.perf_counter() - self.began}
            else:
                answer = {"ready": True}
            print(json.dumps(answer), flush=True)
            line = sys.stdin.readline()
            if not line:
                sys.exit()
            self.left, self.targets = int(line.split()[1]), 0
            self.began = time.perf_counter()
        self.left -= 1
        self.targets += int((batch["y"] != 0).sum())


def main() -> None:
    """Train without end, one request after the other."""
    folder, name, max_length = sys.argv[1:]
    table = pd.read_csv(Path(folder) / name / f"{name}.inter", sep="\t", usecols=[0, 1, 2])
    table.columns = [Columns.User, Columns.Item, Columns.Datetime]
    # What leave-one-out trains on: all but each user's newest two.
    table = table.sort_values([Columns.User, Columns.Datetime], kind="stable")
    table = table[table.groupby(Columns.User).cumcount(ascending=False) >= 2]
    table[Columns.Datetime] = pd.to_datetime(table[Columns.Datetime], unit="s")
    table[Columns.Weight] = 1

    def trainer():
        return Trainer(
            max_epochs=10_000,
            accelerator="cpu",
            callbacks=[OnDemand()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        dropout_rate=0.5,
        session_max_len=int(max_length),
        loss="softmax",
        batch_size=32,
        lr=1e-3,
        dataloader_num_workers=0,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(table))


if __name__ == "__main__":
    main()
