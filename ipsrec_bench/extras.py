"""The package's extras: optional libraries that only some commands need."""

from importlib.util import find_spec

from ipsrec_bench.errors import BenchError

MODULES = {
    "download": ("pooch", "requests", "urllib3"),
    "postgresql": ("psycopg2",),
    "ray": ("ray",),
    "report": ("altair", "vl_convert"),
    "tune": ("optuna", "cmaes", "sqlalchemy"),
    "ui": ("textual",),
}
"""The modules that each extra installs, by their import names."""


def missing(extra: str) -> str:
    """Return a clause that names the modules of `extra` that are not installed, and the remedy; empty if all are."""
    lacking = [module for module in MODULES[extra] if find_spec(module) is None]
    if not lacking:
        return ""
    is_or_are = "is" if len(lacking) == 1 else "are"
    return f"{' and '.join(lacking)} {is_or_are} not installed: pip install 'ipsrec-bench[{extra}]'"


def require(extra: str, what: str) -> None:
    """Check that the modules of `extra` are installed.

    Args:
        extra: its name.
        what: the command or option that needs it; begins the error's sentence.

    Raises:
        BenchError: a module is missing.
    """
    if clause := missing(extra):
        raise BenchError(f"{what}: {clause}")
