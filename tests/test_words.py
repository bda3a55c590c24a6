"""Text from elsewhere: shown as it is, except characters that would act on the reader's screen."""

import pytest

from ipsrec_bench.words import visible


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
