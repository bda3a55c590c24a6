"""A killed training resumes from its state and ends with the same bits; its best weights identify their cell."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ipsrec_bench.data.batches import ResidentSequences
from ipsrec_bench.data.split import split_dataset
from ipsrec_bench.errors import ModelError, StoreError
from ipsrec_bench.events import CellStarted, EpochDone, StepDone
from ipsrec_bench.models.api import SequentialModel, Views
from ipsrec_bench.models.configs import NeuralConfig
from ipsrec_bench.ranking import rank
from ipsrec_bench.ranking.metrics import metric
from ipsrec_bench.ranking.rank import rank_targets
from ipsrec_bench.run.cell import run_cell
from ipsrec_bench.run.environment import start_threads
from ipsrec_bench.run.executors.api import Place
from ipsrec_bench.run.plan import make_plan
from ipsrec_bench.run.workplace import STATE
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.training import softmax, state
from ipsrec_bench.training.tasks import api
from ipsrec_bench.training.weights import load_model

SUITE = """
title = "Resumed"
seeds = [1]
[datasets.world]
source = "synthetic"
users = 60
items = 40
providers = 6
mean_length = 9
max_length = 6
seed = 3
[models.sasrec]
embedding_size = 8
inner_size = 16
variants.prefix = { training = { samples = "prefix" } }
variants.gbce = { training = { objective = "gbce", negatives = 8 } }
variants.lazy = { training = { optimiser = "lazy-adam", objective = "gbce", negatives = 8 } }
variants.patient = { training = { epochs = 30, patience = 2, learning_rate = 0.1 } }
variants.refit = { training = { epochs = 30, patience = 2, learning_rate = 0.1, refit = true } }
[models.gru4rec]
embedding_size = 8
hidden_size = 8
[models.ipsrec-c]
embedding_size = 8
inner_size = 16
[models.s3rec]
embedding_size = 8
inner_size = 16
pretrain_epochs = 2
variants.refit = { training = { refit = true } }
[models."tests.test_resume:Noisy"]
embedding_size = 8
[training]
epochs = 4
batch_size = 128
learning_rate = 0.03
"""
WRITTEN = 2
"""The epoch after which trainings are killed."""


class Noisy(SequentialModel):
    """An external model, which draws from torch's generator in training and elsewhere."""

    config_type = NeuralConfig
    causal = True

    def __init__(self, config, sizes):
        super().__init__()
        self.items = nn.Embedding(sizes.items + 1, config.embedding_size)
        self.dropout = nn.Dropout(0.3)

    def encode(self, histories, *, every_position):
        vectors = self.dropout(self.items(histories.items))
        torch.rand(3)
        return Views(vectors if every_position else histories.last(vectors))

    def item_vectors(self):
        return self.items.weight


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Cells and data by precision."""
    folder = tmp_path_factory.mktemp("resumed")
    return {
        precision: make_plan(
            parse_suite(Path("resumed.toml"), SUITE, [f"training.precision={precision}"]),
            folder / "data",
            folder / "s.duckdb",
            lambda _: None,
            device="cpu",
        )
        for precision in ("float32", "bfloat16")
    }


@pytest.fixture(autouse=True)
def _written_after_every_epoch(monkeypatch):
    monkeypatch.setattr(state, "SECONDS", 0.0)
    monkeypatch.setattr(state, "SHARE", 0.0)


@pytest.fixture
def train(plans, tmp_path, monkeypatch):
    """Train a cell of the suite in a folder of the test; the events come with the record."""

    monkeypatch.setattr(api, "CASTING_PAYS", 1)  # for batches of tests, too

    def run(label, folder, precision="float32", until=lambda _: False, threads=1):
        plan = plans[precision]
        key, cell = next((key, cell) for key, cell in plan.cells if cell.label == label)
        (tmp_path / folder).mkdir(exist_ok=True)
        start_threads(threads)
        place = Place("here", "cpu", threads, tmp_path / folder)
        events = []

        def emit(event):
            events.append(event)
            if until(event):
                raise KeyboardInterrupt

        record = None
        try:
            record = run_cell(key, cell, place, plan.datasets["world"], emit)
        except KeyboardInterrupt:
            assert until(events[-1])
        return record, events

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def after(epoch):
    return lambda event: isinstance(event, EpochDone) and event.epoch == epoch


def resumed(events) -> int:
    (started,) = (event for event in events if isinstance(event, CellStarted))
    return started.resumed


def epochs(events) -> list[int]:
    return [event.epoch for event in events if isinstance(event, EpochDone)]


def outcome(record, folder):
    """Return the results of a cell's training, except for times."""
    assert record.error is None, record.error
    curve = [dataclasses.replace(epoch, train_seconds=0.0, valid_seconds=0.0) for epoch in record.epochs]
    ranks = [array.tolist() for split in ("valid", "test") for array in vars(record.ranks[split]).values()]
    weights = {
        name: one.view(torch.int32).tolist() for name, one in load_file(folder / f"{record.key}.safetensors").items()
    }
    found = float(metric(record.stop_metric, record.ranks["valid"].realistic).mean())
    assert found == record.best_valid
    return curve, record.best_epoch, ranks, weights


CASES = [
    *((label, "float32") for label in ("sasrec", "sasrec prefix", "sasrec gbce", "sasrec lazy", "gru4rec", "ipsrec-c")),
    ("tests.test_resume:Noisy", "float32"),
    *((label, "bfloat16") for label in ("gru4rec", "ipsrec-c")),
]


@pytest.mark.parametrize(("label", "precision"), CASES)
def test_a_killed_cell_resumes_and_ends_with_the_same_bits(train, tmp_path, label, precision):
    whole, _ = train(label, "whole", precision)
    nothing, _ = train(label, "killed", precision, until=after(WRITTEN))
    assert nothing is None
    ended, events = train(label, "killed", precision)
    assert resumed(events) == WRITTEN
    assert epochs(events) == [3, 4]
    assert outcome(ended, tmp_path / "killed") == outcome(whole, tmp_path / "whole")
    assert ended.seconds > ended.train_seconds > sum(epoch.train_seconds for epoch in ended.epochs[WRITTEN:])


@pytest.mark.parametrize("trained", [1, 2])
def test_a_cell_killed_in_pretraining_or_right_after_it_ends_with_the_same_bits(train, tmp_path, trained):
    whole, _ = train("s3rec", "whole")
    assert [epoch.stage for epoch in whole.epochs] == ["pretrain"] * 2 + ["main"] * 4
    ends = []

    def in_the_next_epoch(event):
        """The last step of an epoch comes before its state is written."""
        if isinstance(event, StepDone) and event.step == event.steps:
            ends.append(event)
        return len(ends) > trained

    nothing, _ = train("s3rec", "killed", until=in_the_next_epoch)
    assert nothing is None
    ended, events = train("s3rec", "killed")
    assert resumed(events) == trained
    assert outcome(ended, tmp_path / "killed") == outcome(whole, tmp_path / "whole")


def test_training_that_stops_early_stops_at_the_same_epoch_wherever_it_was_killed(train, tmp_path):
    whole, _ = train("sasrec patient", "whole")
    last, best = len(whole.epochs), whole.best_epoch
    assert best + 2 == last < 30
    for killed in (best, last - 1, last):
        folder = f"killed-{killed}"
        train("sasrec patient", folder, until=after(killed))
        ended, events = train("sasrec patient", folder)
        assert resumed(events) == killed
        assert epochs(events) == list(range(killed + 1, last + 1))
        assert outcome(ended, tmp_path / folder) == outcome(whole, tmp_path / "whole")


def test_a_state_is_resumed_although_later_weights_were_better(train, tmp_path):
    """Weights were written after epochs that the state does not have, and the process died before the next state."""
    whole, _ = train("sasrec patient", "whole")
    folder = tmp_path / "killed"
    old = tmp_path / "old.safetensors"

    def until(event):
        if after(1)(event):
            shutil.copy(folder / STATE, old)
        return isinstance(event, StepDone) and event.epoch == whole.best_epoch + 1

    assert whole.best_epoch > 1
    train("sasrec patient", "killed", until=until)
    shutil.copy(old, folder / STATE)
    ended, events = train("sasrec patient", "killed")
    assert resumed(events) == 1
    assert outcome(ended, folder) == outcome(whole, tmp_path / "whole")


def test_a_refit_trains_anew_for_the_best_number_of_epochs(train, plans, tmp_path):
    """Its ranks are those of a training on training and validation interactions that never validates."""
    plain, _ = train("sasrec patient", "plain")
    record, events = train("sasrec refit", "refit")
    curve, best, ranks, _ = outcome(record, tmp_path / "refit")
    plain_curve, plain_best, plain_ranks, _ = outcome(plain, tmp_path / "plain")
    assert (curve[: len(plain_curve)], best) == (plain_curve, plain_best)
    assert [(epoch.stage, epoch.epoch, epoch.valid) for epoch in curve[len(plain_curve) :]] == [
        ("refit", number, None) for number in range(1, best + 1)
    ]
    data = plans["float32"].datasets["world"]
    (cell,) = (cell for key, cell in plans["float32"].cells if key == record.key)
    split = split_dataset(data, cell.protocol)
    targets = int(np.maximum(split.refit_ends - data.offsets[:-1] - 1, 0).sum())
    assert {epoch.targets for epoch in curve[len(plain_curve) :]} == {targets}
    assert targets == plain_curve[0].targets + len(split.valid.users)
    assert ranks[:3] == plain_ranks[:3]
    assert ranks[3:] != plain_ranks[3:]
    model = load_model(tmp_path / "refit" / f"{record.key}.safetensors")  # the weights that ranked the test targets
    sequences = ResidentSequences(data, torch.device("cpu"))
    again = rank_targets(model, data, sequences, split.test, cell.protocol.max_length)
    assert again.higher.tolist() == record.ranks["test"].higher.tolist()
    (started,) = (event for event in events if isinstance(event, CellStarted))
    assert started.stages == (("main", 30), ("refit", 30))
    refits = [(event.epoch, event.of) for event in events if isinstance(event, EpochDone) and event.stage == "refit"]
    assert refits == [(number, best) for number in range(1, best + 1)]
    assert record.train_seconds == pytest.approx(sum(epoch.train_seconds for epoch in record.epochs))


@pytest.mark.parametrize("label", ["sasrec refit", "s3rec refit"])
def test_a_refit_that_was_killed_in_either_training_ends_with_the_same_bits(train, tmp_path, label):
    whole, all_events = train(label, "whole")
    stages = list(dict.fromkeys(epoch.stage for epoch in whole.epochs))
    assert stages == (["main", "refit"] if label == "sasrec refit" else ["pretrain", "main", "refit pretrain", "refit"])
    epochs_done = [(event.stage, event.epoch) for event in all_events if isinstance(event, EpochDone)]
    bounds = [max(n for n, (stage, _) in enumerate(epochs_done) if stage == one) for one in stages]
    kills = {1, *(n for bound in bounds for n in (bound, bound + 1) if n < len(epochs_done))}
    maximum = dict(next(event for event in all_events if isinstance(event, CellStarted)).stages)
    for number in sorted(kills):
        stage, epoch = epochs_done[number]
        folder = f"killed-{number}"
        nothing, _ = train(
            label, folder, until=lambda e, at=(stage, epoch): isinstance(e, EpochDone) and (e.stage, e.epoch) == at
        )
        assert nothing is None
        ended, events = train(label, folder)
        before = sum(maximum[one] for one in stages[: stages.index(stage)])
        assert resumed(events) == before + epoch
        assert [(e.stage, e.epoch) for e in events if isinstance(e, EpochDone)] == epochs_done[number + 1 :]
        assert outcome(ended, tmp_path / folder) == outcome(whole, tmp_path / "whole")
        assert ended.seconds > ended.train_seconds


def test_the_first_training_of_a_refit_is_not_repeated_although_states_are_rare(train, tmp_path, monkeypatch):
    whole, _ = train("sasrec refit", "whole")
    monkeypatch.setattr(state, "SECONDS", 3600.0)
    train("sasrec refit", "killed", until=lambda e: isinstance(e, EpochDone) and e.stage == "refit")
    ended, events = train("sasrec refit", "killed")
    assert {event.stage for event in events if isinstance(event, EpochDone)} == {"refit"}
    assert outcome(ended, tmp_path / "killed") == outcome(whole, tmp_path / "whole")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def _of_another(key):
    def change(path):
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["state"])
        about["identity"][key] = "other"
        save_file(load_file(path), path, metadata={"state": json.dumps(about)})

    return change


@pytest.mark.parametrize(
    "change",
    [_cut, lambda path: path.write_bytes(b""), *map(_of_another, ("key", "format", "device", "torch"))],
    ids=["cut", "empty", "key", "format", "device", "torch"],
)
def test_a_damaged_or_foreign_state_is_ignored(train, tmp_path, change):
    train("gru4rec", "killed", until=after(1))
    change(tmp_path / "killed" / STATE)
    _, events = train("gru4rec", "killed", until=after(1))
    assert (resumed(events), epochs(events)) == (0, [1])


def test_a_state_of_another_number_of_threads_is_ignored(train):
    train("gru4rec", "killed", until=after(1), threads=2)
    _, events = train("gru4rec", "killed", until=after(1), threads=1)
    assert (resumed(events), epochs(events)) == (0, [1])


def test_states_are_written_no_more_often_than_their_time_allows(train, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "SECONDS", 3600.0)
    train("sasrec", "rare", until=after(1))
    assert not (tmp_path / "rare" / STATE).exists()
    monkeypatch.setattr(state, "SECONDS", 0.0)
    monkeypatch.setattr(state, "SHARE", 1e9)  # the first write alone seems to take years
    train("sasrec", "slow", until=after(1))
    assert not (tmp_path / "slow" / STATE).exists()


def test_a_state_that_cannot_be_written_is_reported(train, tmp_path):
    (tmp_path / "blocked" / STATE).mkdir(parents=True)
    with pytest.raises(StoreError, match="the state of the training cannot be written"):
        train("sasrec", "blocked")


def test_a_model_is_built_again_from_its_best_weights_alone(train, plans, tmp_path):
    record, _ = train("ipsrec-c", "whole")
    plan = plans["float32"]
    (cell,) = (cell for key, cell in plan.cells if key == record.key)
    data = plan.datasets["world"]
    path = tmp_path / "whole" / f"{record.key}.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert (about["type"], about["key"], about["fingerprint"]) == ("ipsrec-c", record.key, data.fingerprint)
    assert json.loads(about["settings"]) == json.loads(record.settings)
    before = torch.get_rng_state()
    model = load_model(path)
    assert torch.equal(before, torch.get_rng_state())
    sequences = ResidentSequences(data, torch.device("cpu"))
    again = rank_targets(model, data, sequences, split_dataset(data, cell.protocol).test, cell.protocol.max_length)
    assert np.array_equal(again.higher, record.ranks["test"].higher)


def test_weights_without_a_model_and_changed_code_are_refused(train, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(StoreError, match="does not state which model"):
        load_model(tmp_path / "bare.safetensors")
    with pytest.raises(StoreError, match="cannot be read"):
        load_model(tmp_path / "missing.safetensors")
    record, _ = train("tests.test_resume:Noisy", "whole")
    path = tmp_path / "whole" / f"{record.key}.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert load_model(path)
    settings = {**json.loads(about["settings"]), "code": "other"}
    save_file(load_file(path), path, metadata={**about, "settings": json.dumps(settings)})
    with pytest.raises(ModelError, match="has changed since"):
        load_model(path)


def _short_of(most, seen):
    """Return a replacement of a tiled function, which fails on purpose for tiles of more than `most` items."""

    def call(size, words):
        seen.append(size)
        if size > most:
            raise RuntimeError(f"DefaultCPUAllocator: {words}")

    return call


def test_a_cell_short_of_memory_is_trained_with_half_the_tile_and_records_it(train, monkeypatch):
    seen = []
    allocate, partitions = _short_of(softmax.TILE // 2, seen), softmax._partitions

    def failing(factors, items, begins, room):
        allocate(begins.step, "can't allocate memory: you tried to allocate 9 bytes")
        return partitions(factors, items, begins, room)

    monkeypatch.setattr(softmax, "_partitions", failing)
    record, events = train("sasrec", "short")
    assert record.error is None, record.error
    assert set(seen) == {softmax.TILE, softmax.TILE // 2}
    assert seen.count(softmax.TILE) == 1
    assert record.environment.device.endswith(", half the tile for want of memory")
    assert epochs(events) == [1, 2, 3, 4]


def test_ranking_short_of_memory_is_retried_without_another_training(train, monkeypatch):
    whole, _ = train("gru4rec", "whole")
    seen = []
    allocate, screened = _short_of(rank.ITEMS_PER_TILE // 2, seen), rank._screened
    trained = []

    def failing(users, items, targets, low, high, tile):
        if trained:
            allocate(tile, "not enough memory: you tried to allocate 9 bytes")
        return screened(users, items, targets, low, high, tile)

    monkeypatch.setattr(rank, "_screened", failing)
    record, events = train("gru4rec", "short", until=lambda event: after(4)(event) and trained.append(event))
    assert epochs(events) == [1, 2, 3, 4]
    assert set(seen) == {rank.ITEMS_PER_TILE, rank.ITEMS_PER_TILE // 2}
    assert "half the tile" in record.environment.device
    assert np.array_equal(record.ranks["test"].higher, whole.ranks["test"].higher)


def test_a_cell_that_is_still_short_of_memory_fails_with_what_was_tried(train, monkeypatch):
    def failing(*_):
        raise MemoryError

    monkeypatch.setattr(softmax, "_partitions", failing)
    record, _ = train("sasrec", "short")
    last = record.error.strip().splitlines()[-1]
    assert f"tiles of {softmax.ROWS} targets by {softmax.TILE} items" in last
    assert "half of each" in last
    assert "training.batch_size" in last
