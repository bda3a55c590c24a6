"""Shares of a suite: each cell is in exactly one share and stays there."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsrec_bench.errors import BenchError
from ipsrec_bench.run import plan
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.suite.shards import Shard, parse_shard

MODELS = {
    "pop": "",
    "sasrec": "",
    "twin": 'type = "sasrec"',
    "small": 'type = "sasrec"\nembedding_size = 8',
    "ipsrec-s": 'variants."w/o CL" = { lambda = 0 }',
    "gru4rec": "training = { epochs = 3 }",
}
FINGERPRINTS = {"world": "f1", "same": "f1", "other": "f2"}
"""Two labels of one dataset, and another dataset."""

models = st.sets(st.sampled_from(sorted(MODELS)), min_size=1)
datasets = st.sets(st.sampled_from(sorted(FINGERPRINTS)), min_size=1)
seeds = st.sets(st.integers(0, 2**31 - 1) | st.integers(0, 9), min_size=1, max_size=6)
counts = st.integers(1, 20)


def keyed(models=tuple(MODELS), datasets=("world",), seeds=(1, 2, 3)):
    """Return key and cell of all cells of a suite."""
    text = f"title = 'Shares'\nseeds = {sorted(seeds)}\n"
    text += "".join(f"[datasets.{name}]\nsource = 'synthetic'\n" for name in sorted(datasets))
    text += "".join(f"[models.{name}]\n{MODELS[name]}\n" for name in sorted(models))
    return [(cell.key(FINGERPRINTS[cell.dataset]), cell) for cell in cells_of(parse_suite(Path("shares.toml"), text))]


def shares(cells, count):
    return [Shard(number, count).keys(cells, FINGERPRINTS) for number in range(1, count + 1)]


@settings(deadline=None, max_examples=30)
@given(models, datasets, seeds, counts)
def test_every_key_is_in_exactly_one_share(models, datasets, seeds, count):
    cells = keyed(models, datasets, seeds)
    found = shares(cells, count)
    assert sorted(key for share in found for key in share) == sorted({key for key, _ in cells})


@settings(deadline=None, max_examples=30)
@given(st.tuples(models, datasets, seeds), st.tuples(models, datasets, seeds), counts)
def test_additions_to_a_suite_move_no_cell(before, added, count):
    old = shares(keyed(*before), count)
    new = shares(keyed(*(a | b for a, b in zip(before, added, strict=True))), count)
    assert all(share <= larger for share, larger in zip(old, new, strict=True))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_seeds_of_a_row_are_dealt_evenly(count):
    cells = keyed(seeds=range(1, 7))
    rows = {cell.label for _, cell in cells if not cell.deterministic}
    assert len(rows) == 6
    for share in shares(cells, count):
        for row in rows:
            assert len({key for key, cell in cells if cell.label == row and key in share}) == 6 / count


def test_a_machine_that_multiplies_in_another_precision_has_the_same_shares(monkeypatch):
    found = []
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(plan, "default_precision", lambda _, precision=precision: precision)
        cells = keyed()
        found.append([{(c.label, c.seed) for key, c in cells if key in share} for share in shares(cells, 3)])
        assert {c.training.precision for _, c in cells} == {precision}
    assert found[0] == found[1]


@pytest.mark.parametrize(("text", "number", "count"), [("1/1", 1, 1), ("3/16", 3, 16), ("16/16", 16, 16)])
def test_a_share_is_written_as_number_and_count(text, number, count):
    assert parse_shard(text) == Shard(number, count)
    assert str(Shard(number, count)) == text


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "3/0", "a/b", "3", "", "1/3/5", "-1/3", "1.0/3", " 1/3", "٣/٤", "1/3\n"]
)
def test_an_invalid_share_is_refused_in_a_sentence(text):
    with pytest.raises(BenchError, match=r"^--shard (.|\n)*: (expected NUMBER/COUNT|shares are numbered from 1)"):
        parse_shard(text)


@pytest.mark.usefixtures("finished")
def test_a_dry_run_of_a_share_lists_its_cells_alone(bench):
    listed = []
    for share in ((), ("--shard", "1/2"), ("--shard", "2/2")):
        done = bench("run", "tiny.toml", "--dry-run", "--json", *share)
        listed.append({cell["key"] for cell in json.loads(done.stdout)})
    suite, first, second = listed
    assert first | second == suite
    assert first
    assert second
    assert not first & second


def test_a_dry_run_of_a_share_needs_prepared_data(tiny_suite, bench):
    done = bench("run", tiny_suite, "--dry-run", "--shard", "1/2")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --shard 1/2: its cells depend on the data, and world is not prepared yet; prepare it with"
        " run --collect\n"
    )
