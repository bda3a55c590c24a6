"""Pieces of Markdown."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Examples?):$", re.MULTILINE)


def code(text: object) -> str:
    """Return `text` as inline code."""
    written = str(text)
    return f"`` {written} ``" if "`" in written else f"`{written}`"


def block(text: str, language: str) -> str:
    """Return `text` as a block of code."""
    return f"```{language}\n{textwrap.dedent(text).strip()}\n```"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a `|` within a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def entry(text: str, facts: Iterable[str]) -> str:
    """Return the description of a setting or an option: a paragraph of text, then a line of those facts that it has."""
    line = " · ".join(filter(None, facts))
    return "\n\n".join(filter(None, [text, f"{line}\n{{: .facts }}" if line else ""]))


def term(name: str, anchor: str, said: str) -> str:
    """Return one entry of a definition list, which can be linked to by `anchor`.

    Args:
        name: shown as code.
        anchor: as HTML has it, without `#`.
        said: Markdown, from `entry`.
    """
    return f"{code(name)}{{ #{anchor} }}\n:   {textwrap.indent(said, ' ' * 4).strip()}"


def description(documented: object) -> str:
    """Return the docstring of a module, class or function up to its sections on arguments and errors."""
    return _SECTION.split(inspect.getdoc(documented) or "")[0].strip()


def toml(value: object) -> str:
    """Return a value as a suite writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if "\\" not in value else f"'{value}'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml(one)}' for key, one in value.items())} }}" if value else "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sentence(text: str) -> str:
    """Return `text` with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":", "?", "!")) else ".") if text else ""


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|")


def module_docstring(module: str) -> str:
    """Return the docstring of a module without importing it, and torch with it."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return inspect.cleandoc(docstring or "")
