"""Texts for users avoid words that read as if translated."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ipsrec_bench"
AVOIDED = re.compile(
    r"\b(told|tells\s+of|bears?\s+the\s+name|of\s+one's\s+own|what\s+has|is\s+there\s+no|no\s+more\s+than\s+once\s+does"
    r"|foresaw|nobody\s+has|stands\s+for)\b",
    re.IGNORECASE,
)


def text_files() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield from (ROOT / "docs").rglob("*.md")
    yield from (ROOT / "suites").glob("*.toml")
    for pattern in ("*.j2", "*.js", "*.sql", "*.toml"):
        yield from PACKAGE.rglob(pattern)


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string, among them errors, help texts and docstrings, which the reference shows."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def avoided(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and words of every phrase in a text that begins on `line`; a phrase may go over the end of a line."""
    for found in AVOIDED.finditer(text):
        yield line + text.count("\n", 0, found.start()), " ".join(found[0].split())


def test_texts_of_docs_suites_reports_and_the_schema_avoid_them():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for path in text_files()
        for line, words in avoided(1, path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_errors_help_texts_and_docstrings_avoid_them():
    found = {
        f"{path.relative_to(ROOT)}:{place}: {words}"
        for path in PACKAGE.rglob("*.py")
        for line, text in literals(path.read_text(encoding="utf-8"))
        for place, words in avoided(line, text)
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ('"""A docstring.\n\nThe run is told."""', (3, "told")),
        ('raise ValueError(f"{name} is a file that nobody "\n    "has")', (1, "nobody has")),
        ('help="What it stands\\nfor."', (1, "stands for")),
    ],
)
def test_a_phrase_is_found_wherever_its_words_are_split(source, place):
    assert {one for line, text in literals(source) for one in avoided(line, text)} == {place}
