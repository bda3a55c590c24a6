"""Text from suites, data and errors, made safe to show."""

import unicodedata

_JOINERS = {"\u200c", "\u200d"}
"""Invisible, but letters of Persian and of Indic scripts, and parts of emoji."""


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return `text` with every character written out that a reader would not see, or that would act on a terminal.

    Control characters, marks that turn the direction of writing, other invisible marks, and what no UTF-8 file may hold
    appear as Python writes them: `\x1b`, `\u202e`.

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
