"""The documentation site: reference pages cover all that they describe, and links lead somewhere.

`python -m mkdocs build --strict`, which lint runs, builds the site and checks the links between its pages.
"""

import re
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "hooks"))  # as MkDocs does for the hook

from reference import changelog, cli, metrics, models, python, settings, store, suite, tasks  # noqa: E402

from ipsrec_bench.models.registry import REGISTRY, model_entry  # noqa: E402
from ipsrec_bench.settings import Settings  # noqa: E402
from ipsrec_bench.store.database import build  # noqa: E402
from ipsrec_bench.suite import schema  # noqa: E402
from ipsrec_bench.suite.load import parse_suite  # noqa: E402
from ipsrec_bench.training.tasks.registry import REGISTRY as TASKS  # noqa: E402

COMMANDS = dict(cli.commands())
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^]\[]|\[[^]]*\])*\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^]]+\]:\s+(\S+)", re.MULTILINE)
ANCHOR = re.compile(r"<\w+[^>]*\b(?:id|name)=[\"']([^\"']+)")


def block(page: str, language: str) -> str:
    """Return the first block of code of a language."""
    return re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1]


class Undescribed(Settings):
    """A table with a key that has no description."""

    key: int = 1


class Redefined(schema.Bounds):
    """A table that changes the default of a key and leaves its description."""

    min: int = 2


# The suite file


def test_the_suite_page_has_a_section_for_every_table_of_a_suite():
    assert set(suite.SECTIONS) == suite.documented()


@pytest.mark.parametrize("table", suite.SECTIONS, ids=lambda table: table.__name__)
def test_every_key_of_a_suite_is_described(table):
    silent = [one.key for one in suite.keys(table) if not one.description]
    assert silent == []


def test_a_key_without_a_description_is_noticed():
    assert [one.description for one in settings.described(Undescribed, str)] == [""]


def test_a_key_with_another_default_keeps_its_description():
    first = next(settings.described(Redefined, str))
    assert (first.default, first.description) == ("2", "Smallest number of interactions.")


def test_every_key_of_a_suite_can_be_linked_to():
    page = suite.page()
    for table in suite.SECTIONS:
        for one in suite.keys(table):
            assert page.count(f"{{#{suite.anchor(table, one.key)}}}") == 1
    anchors = re.findall(r"\{ ?#([^ }]+) ?\}", page)
    assert len(anchors) == len(set(anchors))


def test_the_suite_page_gives_type_bounds_and_default():
    said = {one.key: one.said for one in suite.keys(schema.Training)}
    assert "whole number, at least 1 and at most 1,000,000 · default `50`" in said["epochs"]
    assert '`"softmax"`, `"sampled-softmax"`, `"bce"`, `"gbce"` · default `"softmax"`' in said["objective"]
    assert "required" in {one.key: one.said for one in suite.keys(schema.Suite)}["title"]


def test_the_suite_page_names_every_known_dataset():
    named = tomllib.loads((ROOT / "ipsrec_bench" / "data" / "datasets.toml").read_text(encoding="utf-8"))
    page = suite.page()
    assert [name for name in named if f"| `{name}` |" not in page] == []


def test_the_suite_of_the_page_is_valid():
    parse_suite(Path("page.toml"), block(suite.page(), "toml"))


# The command line


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_argument_and_option_has_a_help_text(command):
    assert [one.name for one in cli.parameters(command) if not one.info.help] == []


def test_the_command_line_page_has_what_help_prints(bench):
    page = cli.page()
    for name, command in COMMANDS.items():
        printed = bench(*name.split(), "--help").stdout
        assert f"## `ipsrec-bench {name}`" in page
        names = {name for one in cli.parameters(command) for name in re.findall(r"(?<!\S)--?[a-z-]+", one.written)}
        shown = re.findall(r"^  (-[a-z-]+(?:, *-[a-z-]+)*)(?= )", printed, re.MULTILINE)
        assert names | {"--help"} == {name for line in shown for name in re.split(", *", line)}


def test_the_command_line_page_gives_defaults_and_environment_variables():
    page = cli.page()
    assert "default `reports/ipsrec-bench.duckdb` · environment variable `IPSREC_BENCH_STORE`" in page
    assert "`--executor pool|inline|ray`{ #run.executor }" in page


def test_examples_in_a_help_text_become_a_block_of_code():
    paragraphs = list(cli.paragraphs("Do it.\n\n\b\nExamples:\n  ipsrec-bench run quick\n  ipsrec-bench ls"))
    assert paragraphs == ["Do it.", "Examples:\n\n```console\nipsrec-bench run quick\nipsrec-bench ls\n```"]


# Models


@pytest.mark.parametrize("name", REGISTRY)
def test_every_setting_of_a_model_is_described(name):
    assert [one.key for one in models.settings_of(model_entry(name).config) if not one.description] == []


def test_the_models_page_has_every_model_with_every_setting():
    page = models.page()
    for name, entry in REGISTRY.items():
        assert f"## {entry.title} {{#{name}}}" in page
        for key in (one.key for one in models.settings_of(entry.config)):
            assert f"`{key}`{{ #{name}.{key} }}" in page


def test_the_models_page_shows_presets_and_search_ranges():
    section = models.page().partition("{#ipsrec-s}")[2].partition("\n## ")[0]
    assert '| `attention` | `"concat-causal"` |' in section
    assert "tuning searches 0.001 to 1, on a logarithmic scale" in section
    assert "Chen et al., SIGIR 2022" in section


# Tasks


@pytest.mark.parametrize("name", TASKS)
def test_every_setting_of_a_task_is_described(name):
    assert [one.key for one in tasks.settings_of(TASKS[name].config) if not one.description] == []


def test_the_tasks_page_has_every_task_with_every_setting_and_the_models_that_have_it():
    page = tasks.page()
    for name, entry in TASKS.items():
        section = page.partition(f"## `{name}` {{#{name}}}")[2].partition("\n## ")[0]
        for key in (one.key for one in tasks.settings_of(entry.config)):
            assert f"`{key}`{{ #{name}.{key} }}" in section
    contrast = page.partition("{#provider-contrast}")[2].partition("\n## ")[0]
    assert "By default a task of [IPSRec-S](models.md#ipsrec-s), [IPSRec-C](models.md#ipsrec-c)" in contrast
    assert "[`provider-contrast`](tasks.md#provider-contrast)" in models.page().partition("{#ipsrec-s}")[2]


# Metrics and tests


def test_the_metrics_page_defines_every_metric():
    page = metrics.page()
    assert [name for name in metrics.NAMES if f"- {name.upper()}@N (" not in page] == []
    assert "| 3 | 1 | 0.3333 | 0.5 |" in page
    assert "| 11 | 0 | 0 | 0 |" in page


def test_the_metrics_page_describes_every_test_and_names_its_function():
    page = metrics.page()
    for name in ("method", "paired-t", "randomisation", "wilcoxon"):
        assert f"{{#test-{name}}}" in page
    linked = set(re.findall(r"python\.md#([\w.]+)", page))
    assert linked <= {name for _, objects in python.SECTIONS.values() for name in objects}


# The result store


def test_every_object_of_the_store_is_described():
    silent = [one.name for one in store.objects() if not one.comment]
    silent += [f"{one.name}.{column.name}" for one in store.objects() for column in one.columns if not column.comment]
    assert silent == []


def test_the_store_page_has_tables_views_and_macros_with_their_columns():
    page = store.page()
    for heading in ("`cells`", "`metrics`", "`ndcg(rank, n)`", "`metrics_at(n)`"):
        assert f"### {heading}" in page
    assert "| `best_epoch` | `INTEGER` Epoch of the main stage with the best stop_metric, from 1. |" in page


def test_the_query_of_the_store_page_runs():
    with duckdb.connect() as connection:
        build(connection)
        assert connection.execute(block(store.page(), "sql")).fetchall() == []


# Links


def test_the_changelog_keeps_links_to_the_site_and_drops_others(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("[a](docs/how-to/gpu.md#x), [b](benchmarks/README.md), [c](https://d.org)\n")
    assert changelog.page(tmp_path) == "[a](how-to/gpu.md#x), b, [c](https://d.org)\n"


def repository_pages() -> list[Path]:
    """Return the Markdown files of the repository that are not pages of the site."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]
    return sorted(path for path in found if not path.relative_to(ROOT).parts[0].startswith("."))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file, as GitHub names them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found = set(ANCHOR.findall(text))
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken_links(path: Path) -> list[str]:
    """Return the links of a Markdown file to files or headings that do not exist; other hosts are not checked."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
    broken = []
    for link in (inline or reference for inline, reference in LINK.findall(text)):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", repository_pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_the_repositorys_pages_lead_somewhere(path):
    assert broken_links(path) == []


def test_broken_links_are_found(tmp_path):
    text = "# A heading, with `code`\n\n## Twice\n\n## Twice\n\n```\n# none\n```\n<a id='own'></a>\n"
    (tmp_path / "there.md").write_text(text)
    page = tmp_path / "page.md"
    good = "[a](there.md#a-heading-with-code) [b](there.md#twice-1) [c](there.md#own) [d](https://e.org/x)"
    page.write_text(f"{good} `[e](none.md)`\n\n# Here\n\n[f](#here)\n")
    assert broken_links(page) == []
    page.write_text("[a](there.md#none) [b](none.md) [c](#nowhere)\n\n[d]: also-none.md\n")
    assert broken_links(page) == ["there.md#none", "none.md", "#nowhere", "also-none.md"]


def test_a_page_that_loads_from_another_host_is_reported(caplog):
    import hook

    class File:
        src_path = "index.md"

    class Page:
        file = File()

    clean = '<a href="https://a.org">a</a><link rel="canonical" href="https://a.org/"><script src="../b.js"></script>'
    hook.on_post_page(clean, Page(), None)
    assert caplog.messages == []
    hook.on_post_page('<script src="https://cdn.org/x.js"></script><img alt="" src=//a.org/b.png>', Page(), None)
    assert [message.rpartition("//")[2] for message in caplog.messages] == ["cdn.org/x.js", "a.org/b.png"]
