"""The same settings give the same ranks as before, or `RANKS_FORMAT` says that they do not."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.suite.cells import RANKS_FORMAT

from .conftest import ROOT
from .golden import KEPT, PRECISIONS, digests

WHAT_TO_DO = (
    "the same settings give other ranks than before. If that is meant, raise RANKS_FORMAT in"
    " ipsrec_bench/suite/cells.py, so that stores do not take old cells for new ones, and keep the new digests with"
    " python -m tests.golden --write. If it is not, find out why"
)
AS_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"),
    reason="the digests are of x86 processors; others are untested",
)


@pytest.fixture(scope="module")
def kept() -> dict:
    return json.loads(KEPT.read_text(encoding="utf-8"))


def changed(kept, found) -> list[str]:
    assert found.keys() == kept["digests"].keys() == set(PRECISIONS)
    return [
        f"{label} in {precision}"
        for precision, rows in kept["digests"].items()
        for label in rows.keys() | found[precision].keys()
        if rows.get(label) != found[precision].get(label)
    ]


def failure(kept, rows) -> str:
    return f"{', '.join(sorted(rows))}: {WHAT_TO_DO} (kept with torch {kept['torch']}, here {torch.__version__})"


def test_ranks_are_those_of_their_format(kept):
    threads = torch.get_num_threads()
    try:
        rows = changed(kept, digests(2))
    finally:
        torch.set_num_threads(threads)
    assert not rows, failure(kept, rows)
    assert kept["format"] == RANKS_FORMAT, "keep the digests of this format: python -m tests.golden --write"


def test_ranks_are_the_same_on_a_processor_without_avx512_and_with_one_thread(kept):
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden"],
        cwd=ROOT,
        env={**os.environ, **AS_AVX2},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = changed(kept, json.loads(done.stdout))
    assert not rows, failure(kept, rows)


def test_every_model_has_a_golden_cell(kept):
    for rows in kept["digests"].values():
        assert set(REGISTRY) <= set(rows)
