"""This toolkit behind the same line protocol as its peers.

    python ours.py FOLDER DATASET MODEL MAX_LENGTH SAMPLES [SETTING=VALUE ...]

with `SAMPLES` `packed` or `prefix` and settings of training, such as `precision=float32`, or of the model, such as
`model.preset=recbole`; `stage=NAME` trains that stage instead of the main one. It answers

- `train STEPS`: train this many batches; targets (or histories, or interactions, by the stage's samples), seconds,
  tokens (padded positions that went through the encoder).
- `rank [USERS]`: rank every user's validation target, or those of the first USERS; users, seconds.
- `flops`: operations of one token in the encoder, forward and backward, and of one ranked user.
- `memory`: peak resident bytes of the process.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.split import Targets, leave_one_out
from ipsrec_bench.models.api import Sizes
from ipsrec_bench.models.registry import build_model, model_entry
from ipsrec_bench.models.stages import MAIN
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.run.environment import keep_freed_memory, peak_memory
from ipsrec_bench.suite.schema import TableSource, Training
from ipsrec_bench.training.catalogue import catalogue_loss, product_dtype
from ipsrec_bench.training.index import TrainingIndex
from ipsrec_bench.training.objective import Objective
from ipsrec_bench.training.optimiser import Optimiser
from ipsrec_bench.training.samples import prefix_windows, windows_of
from ipsrec_bench.training.tasks.api import TrainingStep


def main() -> None:
    """Load the data, report that, and answer requests."""
    folder, name, model_name, max_length, samples, *settings = sys.argv[1:]
    length, packed = int(max_length), samples == "packed"
    chosen_settings = dict(setting.split("=") for setting in settings)
    stage_name = chosen_settings.pop("stage", MAIN)
    own = {name: chosen_settings.pop(name) for name in list(chosen_settings) if name.startswith("model.")}
    training = Training.model_validate(chosen_settings, strict=False)
    keep_freed_memory()
    torch.set_flush_denormal(True)
    began = time.perf_counter()
    data = prepare(name, TableSource(path=f"{folder}/{name}/{name}.inter"), Path(folder) / "prepared")
    times = model_entry(model_name).uses_times
    sequences, split = ResidentSequences(data, torch.device("cpu"), times=times), leave_one_out(data)
    built = time.perf_counter() - began
    config = model_entry(model_name).config.model_validate(
        {name.removeprefix("model."): value for name, value in own.items()}, strict=False
    )
    stage = next(stage for stage in config.stages() if stage.name == stage_name)
    objective, index = Objective(config, stage), TrainingIndex(data, sequences, split, length)
    packed = packed and stage.samples == "targets"
    torch.manual_seed(0)
    model = build_model(model_name, config, Sizes(data.num_users, data.num_items, data.num_providers, length))
    model.prepare(index.log)
    optimiser = Optimiser(model, training.learning_rate, lazy=training.optimiser == "lazy-adam")
    rng = np.random.default_rng(0)
    dtype = product_dtype(training.precision, sequences.device)
    loss_over = catalogue_loss(training, dtype, lambda: index.item_counts, rng)
    windows, batches = None, iter(())

    def train(steps: int) -> dict:
        nonlocal windows, batches
        model.train()
        targets = tokens = 0
        began = time.perf_counter()
        for _ in range(steps):
            chosen = next(batches, None)
            if chosen is None:  # what an epoch begins with counts
                windows = windows_of(stage.samples, data, split, length, packing=rng if packed else None)
                for _, _, task in objective.tasks:
                    task.begin_epoch(model, index, rng)
                batches = iter(windows.batches(training.batch_size, rng))
                chosen = next(batches)
            batch = windows.gather(sequences, chosen)
            step = TrainingStep(model, batch, packed, objective.first, loss_over, dtype, index, rng)
            optimiser.step(objective.losses(step).total)
            targets += int(windows.fresh[chosen].sum())
            tokens += batch.histories.items.numel()
        return {"targets": targets, "tokens": tokens, "seconds": time.perf_counter() - began}

    def rank(users: int = data.num_users) -> dict:
        targets = Targets(split.valid.users[:users], split.valid.positions[:users])
        began = time.perf_counter()
        ranks = rank_targets(model, data, sequences, targets, length)
        return {"users": len(ranks.users), "seconds": time.perf_counter() - began}

    def flops() -> dict:
        from torch.utils.flop_counter import FlopCounterMode  # 70 MB that neither training nor ranking needs

        model.eval()
        windows = prefix_windows(data, split, length)
        histories = windows.gather(sequences, np.arange(64)).histories
        counted = {}
        for what, every in (("train", packed), ("rank", False)):
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
                model.encode(histories, every_position=every)
            counted[what] = counter.get_total_flops() / histories.items.numel()
        return {"token": 3 * counted["train"], "ranked_token": counted["rank"]}

    ready = {"ready": True, "items": data.num_items, "users": data.num_users, "seconds": built}
    print(json.dumps(ready), flush=True)
    answers = {"train": train, "rank": rank, "flops": flops, "memory": lambda: {"bytes": peak_memory()}}
    for line in sys.stdin:
        verb, *arguments = line.split()
        print(json.dumps(answers[verb](*map(int, arguments))), flush=True)


if __name__ == "__main__":
    main()
