"""The documentation's blocks: files are written, commands, code and SQL are run, and outputs are compared.

Each page has a folder of its own, in which its blocks are run from top to bottom. What a block is, its fence says:

    ```toml title="shop.toml"     a file, here a suite, which is validated
    ```toml                       part of a suite: validated together with what it lacks
    ```sh                         commands; `ipsrec-bench` and `python FILE` are run in this process
    ```python                     code; the blocks of a page share their names
    ```sql                        a statement on the page's store, as `ipsrec-bench query` runs it
    ```text                       after one of these: what it prints

A table after an HTML comment is an output, too. A comment on the line before a fence changes what is done:

    <!-- not run: REASON -->      commands are only parsed, code is only compiled
    <!-- excerpt -->              each line of the output is among those that are printed, whatever its blanks
    <!-- numbers vary -->         the output is compared without its digits (also: excerpt, numbers vary)

Commands that train do so for two epochs only: `FEW_EPOCHS`.
"""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from ipsrec_bench.cli.main import app
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.suite.load import SuiteFile, parse_suite
from ipsrec_bench.tuning.space import check_spaces

from .conftest import ROOT, run_bench

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FEW_EPOCHS = ("--set", "training.epochs=2")
FENCE = re.compile(
    r"""^(?:<!--\ (?P<note>[^\n]*?)\ -->\n)?
        (?:```(?P<language>\w*)(?:\ title="(?P<title>[^"\n]+)")?\n
        (?P<text>.*?)
        ^```$|(?P<table>(?:\|[^\n]*\n)+))""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
NOTE = re.compile(r"<!-- (?:not run|excerpt|numbers vary)")
NOT_RUN = ("", "mermaid", "json", "css", "html")
RUNS: dict[str, Path] = {}
"""By the text of a suite: a folder in which it was run."""
REST_OF_A_SUITE = {
    "title": 'title = "Part"\n',
    "datasets": '[datasets.world]\nsource = "synthetic"\n',
    "models": "[models.sasrec]\n[models.ipsrec-s]\n[models.ipsrec-c]\n",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    place: str
    language: str
    title: str
    note: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.note.startswith("not run: ")


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page; fail on fences and notes that are not written as expected."""
    content = page.read_text(encoding="utf-8")
    whole = [found for found in FENCE.finditer(content) if found["table"] is None or found["note"]]
    fences, notes = content.count("```"), len(NOTE.findall(content))
    closed = sum(found["table"] is None for found in whole)
    assert fences == 2 * closed, f"{page}: a fence is indented or not closed"
    assert notes == sum(found["note"] is not None for found in whole), f"{page}: a note is not right before a fence"
    for found in whole:
        line = content.count("\n", 0, found.end()) + 1
        yield Block(
            f"{page.relative_to(ROOT)}:{line}",
            found["language"] if found["table"] is None else "text",
            found["title"] or "",
            found["note"] or "",
            found["text"] or found["table"] or "",
        )


@pytest.fixture(autouse=True)
def _paths_of_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_of_a_page_does_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.setenv("IPSREC_BENCH_EXECUTOR", "inline")
    names: dict[str, object] = {"__name__": "docs"}
    printed: str | None = None
    for block in blocks(page):
        if block.language == "text":
            if block.title:
                write(block, tmp_path)
            elif printed is not None:
                compare(block, printed)
            printed = None
            continue
        assert block.note == "" or not block.is_run, f"{block.place}: {block.note}"
        printed = None
        if block.title:
            write(block, tmp_path)
        elif block.language == "toml":
            check_part(block)
        elif block.language in ("sh", "bash"):
            printed = run_commands(block, tmp_path)
        elif block.language == "python":
            printed = run_code(block, names, tmp_path)
        elif block.language == "sql":
            done = run_bench("query", block.text, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, ""), f"{block.place}: {done.stderr}"
            printed = done.stdout
        else:
            assert block.language in NOT_RUN, f"{block.place}: nothing is known here of blocks in {block.language}"


def write(block: Block, folder: Path) -> None:
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    if block.language == "python":
        compile(block.text, block.place, "exec")
    if block.language == "toml" and "models" in tomllib.loads(block.text) and block.is_run:
        with contextlib.chdir(folder):
            validate(parse_suite(path, block.text))


def check_part(block: Block) -> None:
    """Validate a part of a suite, completed by the sections that it lacks."""
    sections = tomllib.loads(block.text).keys()
    rest = {name: text for name, text in REST_OF_A_SUITE.items() if name not in sections}
    if block.is_run:
        validate(parse_suite(Path("part.toml"), rest.pop("title", "") + block.text + "".join(rest.values())))


def validate(file: SuiteFile) -> None:
    check_spaces(file, cells_of(file))


def run_code(block: Block, names: dict[str, object], folder: Path) -> str | None:
    code = compile(block.text, block.place, "exec")
    if not block.is_run:
        return None
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, names)  # noqa: S102 (our own pages)
    return output.getvalue()


def run_commands(block: Block, folder: Path) -> str | None:
    """Run the commands of a block, or only parse those of the toolkit; return what they print."""
    text = re.sub(r"\\\n", " ", block.text)
    output = ""
    for line in text.splitlines():
        if not block.is_run:
            for words in bench_commands(line):
                parse(words, block.place)
            continue
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] in ("cat", "head"):
            text_lines = (folder / words[-1]).read_text(encoding="utf-8").splitlines(keepends=True)
            output += "".join(text_lines[: int(words[2])] if words[0] == "head" else text_lines)
            continue
        if words[0] == "python":
            with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
                runpy.run_path(words[1], run_name="__main__")
            output += printed.getvalue()
            continue
        assert words[0] == "ipsrec-bench", f"{block.place}: {words[0]} cannot be run here; say so before the block"
        output += run_bench_cheaply(words[1:], folder, block.place)
    return output if block.is_run else None


def run_bench_cheaply(words: list[str], folder: Path, place: str) -> str:
    """Run a command of the toolkit and return what it prints.

    What a quiet run of a suite leaves behind is copied from the first page that has run the same suite.
    """
    key = (folder / words[1]).read_text(encoding="utf-8") if words[0] == "run" and words[2:] == ["--quiet"] else ""
    if key in RUNS:
        shutil.copytree(RUNS[key], folder, dirs_exist_ok=True)
        return ""
    done = run_bench(*words, *(FEW_EPOCHS if words[0] in ("run", "tune") else ()), cwd=folder)
    assert done.returncode == 0, f"{place}: ipsrec-bench {shlex.join(words)}: {done.stderr}"
    if key:
        RUNS[key] = folder.with_name(f"{folder.name}-run")
        shutil.copytree(folder, RUNS[key])
    return done.stdout


def bench_commands(line: str) -> Iterator[list[str]]:
    """Yield the arguments of every `ipsrec-bench` command in a line of a shell script."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += "$%@+:,{}^!"  # beside the ones that punctuation_chars adds
    words = list(lexer)
    while "ipsrec-bench" in words:
        words = words[words.index("ipsrec-bench") + 1 :]
        end = next((i for i, word in enumerate(words) if set(word) <= set(";&|<>()")), len(words))
        yield words[:end]


def parse(words: list[str], place: str) -> None:
    """Parse the arguments of a command without running it."""
    command = typer.main.get_command(app)
    context = None
    try:
        while True:
            context = command.make_context(command.name, list(words), parent=context)
            rest = [*context._protected_args, *context.args]  # as click's own groups do
            if not hasattr(command, "resolve_command"):
                return
            _, command, words = command.resolve_command(context, rest)
    except Exception as error:  # noqa: BLE001 (click's many)
        pytest.fail(f"{place}: ipsrec-bench {shlex.join(words)}: {getattr(error, 'message', error)}")


def compare(block: Block, printed: str) -> None:
    """Compare the output on a page with what was printed."""
    notes = block.note.split(", ") if block.note else []
    assert set(notes) <= {"excerpt", "numbers vary"}, f"{block.place}: {block.note}"
    shown, found = lines(block.text), lines(printed)
    if "numbers vary" in notes:
        shown, found = [without_digits(line) for line in shown], [without_digits(line) for line in found]
    if "excerpt" in notes:
        shown, found = [" ".join(line.split()) for line in shown], [" ".join(line.split()) for line in found]
        missing = [line for line in shown if line not in found]
        assert not missing, f"{block.place}: not printed:\n" + "\n".join(missing) + "\nbut:\n" + printed
    else:
        assert shown == found, f"{block.place}: printed:\n{printed}"


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def without_digits(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,]*", "#", line))
