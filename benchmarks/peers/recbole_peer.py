"""RecBole, as installed, behind a line protocol; run with the Python of an environment that has it.

    python recbole_peer.py FOLDER DATASET MODEL MAX_LENGTH

loads `FOLDER/DATASET/DATASET.inter` (`ml-100k`: the file in RecBole's package). `MODEL` is RecBole's name of a model,
or `S3Rec:pretrain` or `S3Rec:finetune` for its stages, whose attribute is the column `class`. The script answers each
line on standard input with one line of JSON on standard output:

- `train STEPS`: train this many batches of 256 prefix samples; targets and seconds.
- `anomaly off`: as installed, importing RecBole turns autograd's anomaly detection on; this turns it off.
- `rank BATCH`: rank every user's validation target against all items at that `eval_batch_size`; users, seconds.
- `fit EPOCHS`: train this many epochs, ranking the validation targets after each; seconds of training and MRR@10 each.
- `memory`: peak resident bytes of the process.
"""

import json
import logging
import resource
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.dataloader import FullSortEvalDataLoader  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


def of_model(model, stage):
    """Return the settings that a model needs beyond those of all."""
    if model == "SGL":  # it draws one negative for each positive
        negative = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
        return {"train_neg_sample_args": negative, "loss_type": "BPR"}
    if model == "S3Rec":
        columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
        return {"load_col": columns, "item_attribute": "class", "train_stage": stage, "pre_model_path": "s3rec.pth"}
    return {}


def settings(folder, name, max_length):
    """Return the settings that differ from RecBole's defaults."""
    return {
        **({} if name == "ml-100k" else {"data_path": folder}),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": max_length,
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "train_batch_size": 256,
        "eval_batch_size": 256,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": None},
        "metrics": ["MRR", "Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "MRR@10",
        "seed": 2020,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def main() -> None:
    """Load the data, report that, and answer requests."""
    folder, name, model_name, max_length = sys.argv[1:]
    sys.argv = sys.argv[:1]  # RecBole reads the rest as settings
    model_name, _, stage = model_name.partition(":")
    chosen = settings(folder, name, int(max_length)) | of_model(model_name, stage)
    config = Config(model=model_name, dataset=name, config_dict=chosen)
    logging.disable(logging.CRITICAL)
    init_seed(config["seed"], reproducibility=True)
    began = time.perf_counter()
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    built = time.perf_counter() - began
    init_seed(config["seed"], reproducibility=True)
    model = get_model(model_name)(config, train_data.dataset)
    if stage == "pretrain":  # what the other stage begins with
        torch.save({"state_dict": model.state_dict(), "other_parameter": model.other_parameter()}, "s3rec.pth")
    trainer = get_trainer(config["MODEL_TYPE"], model_name)(config, model)
    batches = iter(())

    def train(steps):
        nonlocal batches
        model.train()
        targets, began = 0, time.perf_counter()
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = iter(train_data)
                batch = next(batches)
            trainer.optimizer.zero_grad()
            loss = model.calculate_loss(batch)
            loss.backward()
            trainer.optimizer.step()
            targets += len(batch)
        return {"targets": targets, "seconds": time.perf_counter() - began}

    def rank(batch_size):
        config["eval_batch_size"] = batch_size
        loader = FullSortEvalDataLoader(config, valid_data.dataset, valid_data._sampler, shuffle=False)  # noqa: SLF001
        began = time.perf_counter()
        trainer.evaluate(loader, load_best_model=False)
        return {"users": len(loader.dataset), "seconds": time.perf_counter() - began}

    def fit(epochs):
        curve, seconds = [], 0.0
        for _ in range(epochs):
            began = time.perf_counter()
            trainer._train_epoch(train_data, 0)  # noqa: SLF001
            seconds += time.perf_counter() - began
            score, _ = trainer._valid_epoch(valid_data)  # noqa: SLF001
            curve.append((seconds, float(score)))
        return {"curve": curve}

    print(json.dumps({"ready": True, "items": dataset.item_num - 1, "seconds": built}), flush=True)
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "train":
            answer = train(int(arguments[0]))
        elif verb == "rank":
            answer = rank(int(arguments[0]))
        elif verb == "fit":
            answer = fit(int(arguments[0]))
        elif verb == "anomaly":
            torch.autograd.set_detect_anomaly(arguments[0] == "on")
            answer = {}
        else:
            answer = {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
