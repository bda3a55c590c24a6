"""Help texts and shell completion."""

import re

import pytest
import typer
from typer.main import get_command

from ipsrec_bench.cli import completion
from ipsrec_bench.cli.main import PANELS, app
from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.run.journal import Journal


def commands(group=None, *path):
    group = group or get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


EVERY = dict(commands())


def test_the_overview_has_every_command_once_in_a_panel(bench):
    printed = bench("--help").stdout
    assert [line[:-1] for line in printed.splitlines() if line.rstrip(":") in PANELS] == list(PANELS)
    for name in get_command(app).commands:
        assert len(re.findall(rf"^  {name}  ", printed, re.MULTILINE)) == 1, name
    assert "..." not in printed.split("Options:")[1]


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_has_a_sentence_and_examples_that_name_it(path):
    command = EVERY[path]
    sentence = command.help.split("\n\n")[0]
    assert sentence.endswith((".", ";"))
    lines = command.epilog.splitlines()
    assert lines[:2] == ["\b", "Examples:"]
    assert lines[2].startswith(("  ipsrec-bench " + " ".join(path), "  ipsrec-bench suites"))
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", "\n".join(lines))) <= options
    assert all(getattr(parameter, "help", None) for parameter in command.params if parameter.name != "help")


def test_the_help_of_a_command_fits_eighty_columns(bench):
    for path in (("run",), ("tune",), ("data", "list")):
        printed = bench(*path, "--help", COLUMNS="80").stdout
        assert "Examples:" in printed
        assert max(map(len, printed.splitlines())) <= 80


def test_suites_datasets_and_models_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.toml").touch()
    (tmp_path / "log.csv").touch()
    store = tmp_path / "s.duckdb"
    with Journal(store, "my-suite"):
        pass
    context = typer.Context(get_command(app))
    context.params["store"] = store
    assert completion.suite_files("m") == ["mine.toml", "more/"]
    assert completion.suite_files("more/") == ["more/other.toml"]
    assert "quick" in completion.suite_files("qu")
    assert completion.suites(context, "my") == ["my-suite"]
    assert completion.datasets("negative-c")[0] == "negative-control"
    assert completion.datasets_or_files("lo")[-1] == "log.csv"
    assert completion.models("pop,sas") == [f"pop,{name}" for name in REGISTRY if name.startswith("sas")]


def test_the_shell_is_answered(bench):
    completed = bench(_IPSREC_BENCH_COMPLETE="complete_bash", COMP_WORDS="ipsrec-bench compa", COMP_CWORD="1")
    assert completed.stdout.split() == ["compare"]
