"""Make the reports of the gallery: `python docs/gallery.py [SUITE ...]`.

It runs the suites of the gallery and those that are named, then writes the pages. Its store is reports/gallery.duckdb, so
that cells are trained once.
"""

import subprocess
import sys
from pathlib import Path

GALLERY = Path(__file__).parent / "gallery"
STORE = Path("reports") / "gallery.duckdb"
SUITES = ["quick", str(GALLERY / "beauty.toml")]


def main() -> None:
    for suite in dict.fromkeys([*SUITES, *sys.argv[1:]]):
        bench("run", suite, "--jobs", "2", "--threads", "1")
    bench("report", "--format", "site", "--output", GALLERY)


def bench(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ipsrec_bench", *map(str, arguments), "--store", STORE], check=True)


if __name__ == "__main__":
    main()
