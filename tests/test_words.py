"""Text from elsewhere: shown as it is, except characters that would act on the reader's screen."""

from pathlib import Path

import numpy as np
import pytest

from ipsrec_bench.data.target_facts import TargetFacts
from ipsrec_bench.report.protocols import _changed
from ipsrec_bench.report.slices import slices_of
from ipsrec_bench.suite.load import parse_suite
from ipsrec_bench.words import counted, visible


@pytest.mark.parametrize(
    "text", ["", "sasrec w/o CL", "数据 🎲 é", "a\u00a0b\u3000c", "👩\u200d👧", "\u0915\u200d\u0937", "<script>&\\"]
)
def test_letters_of_all_scripts_stay_as_they_are(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("gnp.\u202egpj", r"gnp.\u202egpj"),
        ("\u2066a\u2069\u200f\u061c", r"\u2066a\u2069\u200f\u061c"),
        ("a\u200bb\ufeff\u00ad", r"a\u200bb\ufeff\xad"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\udcff\ufffe\U000e0041", r"\udcff\ufffe\U000e0041"),
    ],
)
def test_hidden_and_acting_characters_are_escaped(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_text_of_several_lines_keeps_them():
    assert visible("a\n\tb\x1b\r\n", lines=True) == "a\n\tb\\x1b\\r\n"


def test_counts_have_their_plural():
    assert [counted(count, "search", "searches") for count in (0, 1, 2)] == ["0 searches", "1 search", "2 searches"]
    assert [counted(count, "trial") for count in (1, 1000)] == ["1 trial", "1,000 trials"]


def test_slices_of_one_time_are_singular():
    columns = dict.fromkeys(("history", "item_count", "provider_count", "candidates"), np.ones(4, np.int32))
    seen = np.zeros(4, bool)
    facts = TargetFacts(users=np.arange(4, dtype=np.int32), item_seen=seen, provider_seen=seen, **columns)
    names = " ".join(name for _, name, _ in slices_of(facts))
    assert "1 time" in names
    assert "1 times" not in names


def test_the_table_of_protocols_says_which_test_period_each_is():
    suite = parse_suite(
        Path("s.toml"),
        'title = "S"\ndatasets = ["world"]\n[protocols.later]\nsplit = "temporal"\nfolds = 2\n'
        "[protocols.masked]\nmask_history = true\n",
    ).suite
    names = ("later", "later, fold 1 of 2", "masked", "fold 1 of 3")
    assert [_changed(suite, name) for name in names] == [
        "split = temporal, test period 2 of 2 in order of time",
        "split = temporal, test period 1 of 2 in order of time",
        "mask_history = true",
        "test period 1 of 3 in order of time",
    ]
