"""Escapes plain text for HTML, Markdown and LaTeX, and typesets a few symbols as in a paper."""

import json
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from ipsrec_bench.words import visible

_TEX_SYMBOLS = re.compile(r"(\bd_z\b|\bp(?=, users|, method|, equivalent| <)|(?<=djusted )p\b|[*†°](?=:))")
"""Matches d_z, `p` as a p-value, and marks that a note explains."""
_TEX_NUMBERS = re.compile(r"([-+]\d[\d.,]*|[*†°])")
"""Matches numbers with a sign, and the marks after them."""
_TEX_MARKS = {"*": "^*", "†": r"^\dagger", "°": r"^\circ"}
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "√": r"$\surd$",
    "²": "$^2$",
    "χ": r"$\chi$",
    "†": r"$^\dagger$",
    "°": r"$^\circ$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
    **{mark: f"{{{mark}}}" for mark in "[]*"},  # special after the end of a row
}
_TEX_LETTERS = {*map(chr, range(0x20, 0x7F)), *map(chr, range(0xC0, 0x100))} - {*"\u00d0\u00d7\u00de\u00f0\u00f7\u00fe"}
"""Letters that pdfTeX can set with its default fonts."""


def html_words(text: str) -> Markup:
    """Return a sentence of ours, which may contain names, as HTML."""
    return Markup(re.sub(r"\bd_z\b", "d<sub>z</sub>", escape(visible(text))))  # noqa: S704 (escaped)


def markdown(text: object) -> str:
    """Return text with everything escaped that Markdown or HTML would interpret."""
    plain = " ".join(str(text).split())
    plain = re.sub("<(?! )", "&lt;", plain.replace("&", "&amp;")).replace(">", "&gt;")  # "p < 0.05" opens no tag
    escaped = re.sub(r"([\\`*_\[\]|~$]|(?<!\S)#)", r"\\\1", plain)
    return re.sub(r"^([-+=]+|\d+[.)])(?=\s|$)", lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def markdown_words(text: str) -> str:
    """Return a sentence of ours, which may contain names, as Markdown."""
    return re.sub(r"\bd\\_z\b", "d<sub>z</sub>", markdown(text))


def fenced(lines: Sequence[str]) -> str:
    """Return a Markdown code block within a list item; no line can end it."""
    fence = "`" * max([3, *(len(run) + 1 for line in lines for run in re.findall("`+", line))])
    return "\n".join(f"  {line}" for line in (f"{fence}text", *lines, fence))


def latex(text: object) -> str:
    """Return text escaped for LaTeX; a letter that pdfTeX lacks becomes its code point."""
    plain = " ".join(str(text).split())
    return _latex(plain)


def _latex(text: str) -> str:
    return "".join(_TEX.get(c) or (c if c in _TEX_LETTERS else f"{{[}}U+{ord(c):04X}{{]}}") for c in text)


def latex_words(text: str) -> str:
    """Return a sentence of ours, which may contain names, as LaTeX."""
    return _with_symbols(text, _TEX_SYMBOLS)


def latex_number(text: str) -> str:
    """Return an entry of a numeric column as LaTeX, with minus signs instead of hyphens."""
    return _with_symbols(text, _TEX_NUMBERS)


def _with_symbols(text: str, symbols: re.Pattern[str]) -> str:
    pieces = enumerate(symbols.split(text))
    return "".join(f"${_TEX_MARKS.get(piece, piece)}$" if place % 2 else _latex(piece) for place, piece in pieces)


def script_json(value: Mapping[str, object]) -> str:
    """Return JSON that is safe within a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
