"""Reference of the command line, from the Typer app."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, CommandInfo, ParameterInfo

from ipsrec_bench.cli.main import app
from reference.markdown import block, code, entry, table, term

_INTRODUCTION = """\
# Command line

This page lists every command with its arguments, options, defaults and environment variables. It is generated from the
commands themselves; `ipsrec-bench COMMAND --help` prints the same.

The exit code is 0 on success, 1 if the command finished but part of its work failed (for example a cell), and 2 if the
command could not run; the error then gives the reason and the remedy. `--json` prints JSON for other programs.
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command."""

    name: str
    """Name of the function's parameter."""
    info: ParameterInfo
    """Its declaration to Typer."""
    kind: Any
    """Type of its value, without None."""
    default: Any

    @property
    def is_argument(self) -> bool:
        """Whether it is positional."""
        return isinstance(self.info, ArgumentInfo)

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def written(self) -> str:
        """Its names and the placeholder of its value."""
        if self.is_argument:
            return self.info.metavar or self.name.upper()
        # typer.Option takes the first name as its default.
        declared = (self.info.default, *(self.info.param_decls or ()))
        names = ", ".join(name for name in declared if isinstance(name, str))
        return names if self.kind is bool else f"{names} {self.info.metavar or self._placeholder}"

    @property
    def _placeholder(self) -> str:
        if get_origin(self.kind) is Literal:
            return "|".join(map(str, get_args(self.kind)))
        return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(self.kind, "TEXT")

    @property
    def said(self) -> str:
        """Its description, in Markdown."""
        limits = (("at least", self.info.min), ("at most", self.info.max))
        bounds = " and ".join(f"{words} {limit:,}" for words, limit in limits if limit is not None)
        default = "" if self.kind is bool or self.default in {None, ""} else f"default {code(self.default)}"
        variable = f"environment variable {code(self.info.envvar)}" if self.info.envvar else ""
        facts = [bounds, "required" if self.is_required else default, variable]
        return entry(self.info.help or "", facts)


def commands() -> Iterator[tuple[str, CommandInfo]]:
    """Yield every command with its full name, like `data list`."""
    yield from _within(app, "")


def parameters(command: CommandInfo) -> list[Parameter]:
    """Return the arguments and options of a command that its help shows."""
    function = command.callback
    assert function is not None
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        assert get_origin(hint) is Annotated, f"{function.__name__}: {name} has no typer.Option or typer.Argument"
        kind, info = get_args(hint)
        kinds = [part for part in get_args(kind) if part is not NoneType] if NoneType in get_args(kind) else [kind]
        if not info.hidden:
            found.append(Parameter(name, info, kinds[0], parameter.default))
    return found


def page() -> str:
    """Return the page."""
    found = list(commands())
    rows = [(f"[{code(name)}](#{_anchor(name)})", next(paragraphs(_help(command)), "")) for name, command in found]
    sections = (_section(name, command) for name, command in found)
    return "\n\n".join([_INTRODUCTION, table(("Command", "What it does"), rows), *sections])


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _help(command: CommandInfo) -> str:
    return command.help or inspect.getdoc(command.callback) or ""


def _within(group: typer.Typer, prefix: str) -> Iterator[tuple[str, CommandInfo]]:
    for command in group.registered_commands:
        assert command.callback is not None
        if not command.hidden:
            yield f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}".strip(), command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _within(inner.typer_instance, f"{prefix} {inner.name}".strip())


def _section(name: str, command: CommandInfo) -> str:
    anchor, found = _anchor(name), parameters(command)
    arguments = [one for one in found if one.is_argument]
    usage = " ".join(["ipsrec-bench", name, "[OPTIONS]", *(one.written for one in arguments)])
    options = [one for one in found if not one.is_argument]
    return "\n\n".join(
        [
            f"## {code(f'ipsrec-bench {name}')} {{#{anchor}}}",
            *paragraphs(_help(command)),
            block(usage, "console"),
            *paragraphs(command.epilog or ""),
            *(term(one.written, f"{anchor}.{one.name}", one.said) for one in (*arguments, *options)),
        ]
    )


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; one that must not be wrapped, which begins with a backspace, is code."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b"):
            yield _examples(paragraph.removeprefix("\b").strip("\n"))
        elif paragraph:
            yield paragraph


def _examples(text: str) -> str:
    """Return lines as a block of code, and a heading above them, like `Examples:`, as text."""
    first, _, rest = text.partition("\n")
    return f"{first}\n\n{block(rest, 'console')}" if first.endswith(":") and rest else block(text, "console")
