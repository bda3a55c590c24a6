"""Development sessions: `nox` runs tests and lint, `nox -s bench` the benchmarks.

The sessions run in the environment of nox itself, which the README's command has just made: torch is too large to
install once per session. Sessions that test an installation make their own environment, below .nox.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "none"

NOT_OLD = {"all", "dev", "ray"}
"""Extras whose oldest versions are not installed: bundles, tools, and Ray, which has its own session."""
TOOLS = ("hatchling", "hypothesis", "pytest", "pyyaml", "statsmodels")
OLD_TESTS = tuple(
    f"tests/test_{part}.py"
    for part in ("shipped", "suite", "download", "training", "ranking", "store", "stats", "charts", "tuning")
)
ONE_COUNT = ("--set", "models=['pop']", "--set", "seeds=[1]", "--set", "statistics.baseline=best")
"""Options that leave one cell of a suite, of a counting model."""


SITE = "build/site"


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, files side by side in two processes; arguments after `--` go to pytest instead.

    Waiting threads sleep, because there are more threads than cores. Files come in the order of tests/conftest.py:
    xdist would start those with few tests last, and among these are the planted worlds, which train for minutes.
    """
    side_by_side = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    session.run(sys.executable, "-m", "pytest", *(session.posargs or side_by_side), env={"OMP_WAIT_POLICY": "passive"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and the contracts on imports, and that the site builds without a warning."""
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")
    session.run(sys.executable, "-m", "mypy", "-n", "2")
    session.run(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    build_site(session)


@nox.session
def links(session: nox.Session) -> None:
    """Build the site and ask every host that its pages link to; needs the network."""
    session.run(sys.executable, "-m", "pip", "install", "-q", "LinkChecker")
    build_site(session)
    session.run("linkchecker", "--check-extern", "--no-warnings", f"{SITE}/index.html")


@nox.session
def pictures(session: nox.Session) -> None:
    """Redraw the README's pictures from a run of the quick suite."""
    session.run(sys.executable, "docs/pictures.py", *session.posargs)


def build_site(session: nox.Session) -> None:
    """Build the site; a warning, for example about a broken link, fails the session."""
    session.run(
        sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", SITE, env={"NO_MKDOCS_2_WARNING": "1"}
    )


@nox.session
def ray(session: nox.Session) -> None:
    """Install Ray, which takes 240 MB, and run the tests that start a Ray cluster on this machine."""
    session.run(sys.executable, "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", ".[dev,ray]")
    session.run(sys.executable, "-m", "pytest", "tests/test_ray.py", *session.posargs)


@nox.session(venv_backend="venv")
def oldest(session: nox.Session) -> None:
    """Run tests with the oldest versions that pyproject.toml declares; arguments after `--` go to pytest instead.

    Run by hand: the oldest torch comes with CUDA, a download of 3 GB.
    """
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in NOT_OLD}
    bounds = Path(session.create_tmp()).resolve() / "oldest.txt"
    declared = [*project["dependencies"], *itertools.chain(*extras.values())]
    bounds.write_text("\n".join(line.replace(">=", "==") for line in declared), encoding="utf-8")
    session.install("-c", str(bounds), "-e", f".[{','.join(extras)}]", *TOOLS)
    session.run("python", "-m", "pytest", *(session.posargs or OLD_TESTS))


@nox.session(venv_backend="venv")
def wheel(session: nox.Session) -> None:
    """Build the wheel and the source archive, install the wheel without its extras, and use it outside of the clone."""
    pins = Path("constraints.txt").resolve()
    with tempfile.TemporaryDirectory() as folder:
        session.run(sys.executable, "-m", "hatchling", "build", "-d", folder, external=True)
        (path,) = Path(folder).glob("*.whl")
        session.install("-c", str(pins), str(path))
        session.chdir(folder)
        session.run("ipsrec-bench", "suites")
        session.run("ipsrec-bench", "validate", "quick")
        session.run("ipsrec-bench", "run", "quick", *ONE_COUNT)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside other toolkits, which are installed below .bench on the first run; see benchmarks/README.md.

    Arguments after `--` go to benchmarks/speed.py; without any, benchmarks/scale.py and prepare.py run, too.
    """
    session.run(sys.executable, "benchmarks/speed.py", *session.posargs)
    if not session.posargs:
        session.run(sys.executable, "benchmarks/scale.py")
        session.run(sys.executable, "benchmarks/prepare.py")
