"""The wheel, the extras, and the files that describe the package to other tools."""

import email
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from ipsrec_bench import __version__, extras
from tests.conftest import ROOT, clean_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUNDLES = {"all", "dev"}
"""Extras that are made of others."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked: what an installation has of this project."""
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_every_file_of_the_package_and_the_shipped_suites(wheel):
    package = ROOT / "ipsrec_bench"
    wanted = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted |= {f"suites/{path.name}" for path in (ROOT / "suites").glob("*.toml")}
    found = {
        str(path.relative_to(wheel / "ipsrec_bench")) for path in (wheel / "ipsrec_bench").rglob("*") if path.is_file()
    }
    assert found == wanted
    assert found >= {"py.typed", "suites/quick.toml", "store/schema.sql", "report/templates/style.css"}
    assert [path.name for path in wheel.iterdir() if path.suffix != ".dist-info"] == ["ipsrec_bench"]


def test_an_installed_wheel_finds_its_suites_far_from_the_clone(wheel, tmp_path):
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "ipsrec_bench", "suites", "show", "quick"],
        cwd=tmp_path,
        env={**clean_environment(), "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown == (wheel / "ipsrec_bench/suites/quick.toml").read_text(encoding="utf-8")


def test_the_core_needs_no_library_of_an_extra(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    required = email.message_from_string(metadata.read_text(encoding="utf-8")).get_all("Requires-Dist")
    core = {name(line) for line in required if "extra ==" not in line}
    optional = {name(line) for line in required if "extra ==" in line}
    assert optional >= {"optuna", "altair", "pooch", "ray", "textual", "psycopg2-binary"}
    assert not core & optional


def test_the_code_knows_the_modules_of_every_declared_extra():
    declared = {extra: lines for extra, lines in PROJECT["optional-dependencies"].items() if extra not in BUNDLES}
    assert {extra: len(lines) for extra, lines in declared.items()} == {
        extra: len(modules) for extra, modules in extras.MODULES.items()
    }
    (bundle,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"\w+", bundle.partition("[")[2])) == set(declared)


def test_the_core_alone_runs_a_suite_and_reports_it_without_charts(tiny_suite, tmp_path):
    absent = [module for modules in extras.MODULES.values() for module in modules]
    words = ["run", tiny_suite.name, "--executor", "inline", "--set", "models=['pop']", "--set", "seeds=[1]"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.argv[1:] = {words};"
        "from ipsrec_bench.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    sentence = "Charts are left out: altair and vl_convert are not installed: pip install 'ipsrec-bench[report]'."
    assert (done.returncode, done.stderr) == (0, f"{sentence}\n")
    page = (tmp_path / "reports/tiny/tiny.html").read_text(encoding="utf-8")
    assert "pip install &#39;ipsrec-bench[report]&#39;" in page
    assert not [*tmp_path.glob("reports/tiny/chart-*")]


@pytest.mark.parametrize(
    ("command", "module", "words"),
    [
        (
            ["tune", "--dataset", "positive-control"],
            "cmaes",
            "tune: cmaes is not installed: pip install 'ipsrec-bench[tune]'",
        ),
        (
            ["run", "quick", "--executor", "ray"],
            "ray",
            "--executor ray: ray is not installed: pip install 'ipsrec-bench[ray]'",
        ),
        (
            ["data", "download", "steam"],
            "pooch",
            "data download: pooch is not installed: pip install 'ipsrec-bench[download]'",
        ),
        (
            ["tune", "--dataset", "positive-control", "--storage", "postgresql://localhost/none"],
            "psycopg2",
            "--storage: psycopg2 is not installed: pip install 'ipsrec-bench[postgresql]'",
        ),
    ],
)
def test_a_command_whose_library_is_missing_says_what_to_install(command, module, words, bench, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    refused = bench(*command)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", f"error: {words}\n")


def test_a_report_without_the_library_of_studies_names_it_and_is_made_anew_once_it_is_there(
    finished, bench, monkeypatch
):
    (finished / "reports/studies").mkdir()
    (finished / "reports/studies/new.journal").touch()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "optuna", None)
        done = bench("run", "tiny.toml")
    said = "reports/studies: optuna is not installed: pip install 'ipsrec-bench[tune]'"
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, f"The report lacks a tuning study: {said}")
    page = finished / "reports/tiny/tiny.md"
    assert "optuna is not installed" in page.read_text(encoding="utf-8")
    assert bench("run", "tiny.toml").returncode == 0
    assert "optuna is not installed" not in page.read_text(encoding="utf-8")


def test_the_dockerfile_copies_what_is_there_and_all_that_a_build_needs():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {source for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for source in line.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    build = PROJECT["license-files"] + [
        PROJECT["readme"],
        "pyproject.toml",
        "ipsrec_bench",
        "suites",
        "constraints.txt",
    ]
    assert copied >= {*build}


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    published = tomllib.loads((ROOT / "ipsrec_bench/published/ipsrec-sigir22.toml").read_text(encoding="utf-8"))
    assert [(one["title"], one["doi"]) for one in citation["references"]] == [(published["title"], published["doi"])]


def name(requirement: str) -> str:
    """Return the project that a requirement names."""
    return re.split(r"[ \[<>=!~;]", requirement, maxsplit=1)[0].lower()
