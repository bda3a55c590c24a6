"""Text to display: numbers with nouns, and text from suites, data and errors made safe."""

import unicodedata
from collections.abc import Sequence

_JOINERS = {"\u200c", "\u200d"}
"""Invisible, but needed in Persian, in Indic scripts and in emoji."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, whose plural has an s if it is not given: "1 seed", "2 seeds"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def joined(names: Sequence[str]) -> str:
    """Return at least one name as a list in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with every invisible character, and every one that would act on a terminal, escaped.

    Control characters, marks that change the direction of writing, other invisible marks, and characters that UTF-8 or
    XML forbids become Python escapes: `\x1b`, `\u202e`.

    Args:
        text: any text.
        lines: keep line breaks and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(_written_out(c) if c not in kept and _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    forbidden_in_xml = character in "\ufffe\uffff"
    return category in {"Cc", "Cs", "Zl", "Zp"} or forbidden_in_xml or (category == "Cf" and character not in _JOINERS)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
