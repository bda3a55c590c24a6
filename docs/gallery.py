# ruff: noqa: INP001 (a script, not a module of a package)
"""Make the reports of the gallery: `python docs/gallery.py [SUITE ...]`.

It runs the suites of the gallery and those that are named, then writes the pages. The store is reports/gallery.duckdb,
so complete cells are not trained again.
"""

import subprocess
import sys
from pathlib import Path

GALLERY = Path(__file__).parent / "gallery"
STORE = Path("reports") / "gallery.duckdb"
SUITES = ["quick", "controls", str(GALLERY / "beauty.toml")]


def main() -> None:
    """Run the suites and write the pages."""
    for suite in dict.fromkeys([*SUITES, *sys.argv[1:]]):
        bench("run", suite, "--jobs", "2", "--threads", "1")
    bench("report", "--format", "site", "--output", GALLERY)


def bench(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ipsrec_bench", *map(str, arguments), "--store", STORE], check=True)  # noqa: S603 (our own)


if __name__ == "__main__":
    main()
