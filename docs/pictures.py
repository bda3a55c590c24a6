# ruff: noqa: INP001 (a script, not a module of a package)
"""Draw the README's pictures from a real run of `suites/quick.toml`, and write the output of its example.

    python docs/pictures.py              # train the suite in a temporary folder, then draw
    python docs/pictures.py --run FOLDER # keep the run in FOLDER; a second call trains nothing

Writes to `docs/pictures/`: the dashboard as `dashboard.svg`, the top of the report's page as `report-light.png` and
`report-dark.png`. Runs the README's example and replaces its output there. Needs the extra `dev` and Chromium.

Models, losses and metrics are those of the run. Times, speeds and what workers take of the machine are set to round
figures, so that a second run on the same machine draws the same pictures.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from operator import attrgetter
from pathlib import Path
from typing import Literal

from rich.console import Console

from ipsrec_bench.events import (
    CellEvent,
    CellFinished,
    CellStarted,
    DatasetReady,
    EpochDone,
    Event,
    RunPlanned,
    RunStarted,
    StepDone,
    WorkerSeen,
    WorkerStarted,
)
from ipsrec_bench.run.journal import follow, newest
from ipsrec_bench.tui.dashboard import dashboard
from ipsrec_bench.tui.state import RunState, fold

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SUITE = ROOT / "suites" / "quick.toml"
README = ROOT / "README.md"
OUTPUT = r"(<!-- example output -->\n```text\n)(.*?)(```)"

COLUMNS, LINES = 104, 30
"""Size of the terminal that is drawn."""
SHARE = 0.66
"""Share of the run's time at which the dashboard is drawn."""
EPOCH_SECONDS = 0.5
SPEED = 20_000.0
"""Targets per second."""
MEMORY = 420 * 2**20
WIDTH, HEIGHT = 1280, 1260
"""Pixels of the page that are shown."""
MOMENT = "2026-01-01 12:00"
"""Stands in the page for the time at which the run began."""

SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's picture of a terminal with the reader's own fonts in place of one from the network."""


def draw(folder: Path) -> None:
    """Run the suite in `folder` and write all pictures.

    Raises:
        CalledProcessError: the run failed; it has printed why.
    """
    store = folder / "store.duckdb"
    bench("run", SUITE, "--store", store, "--data-dir", folder / "data", "--jobs", "2")
    journal = newest(store, SUITE.stem)
    if journal is None:
        sys.exit(f"{store} has no journal of a run that trained; remove {folder} and try again")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "dashboard.svg").write_text(terminal(follow(journal)), encoding="utf-8")
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        (PICTURES / f"report-{scheme}.png").write_bytes(page(folder / SUITE.stem / f"{SUITE.stem}.html", scheme))


def write_example() -> None:
    """Run the README's example and replace its output.

    Raises:
        CalledProcessError: a command failed; it has printed why.
    """
    text = README.read_text(encoding="utf-8")
    suite = re.search(r"<!-- mine.toml -->\n```toml\n(.*?)```", text, re.DOTALL)
    commands = re.search(r"```sh\n(ipsrec-bench run mine.toml\n.*?)```", text, re.DOTALL)
    if suite is None or commands is None:
        sys.exit("README.md has no example: a block below <!-- mine.toml --> and its commands")
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "mine.toml").write_text(suite[1], encoding="utf-8")
        run, compare = (line.split()[1:] for line in commands[1].splitlines())
        bench(*run, folder=Path(temporary))
        output = bench(*compare, folder=Path(temporary))
    block = "\n".join(line.rstrip() for line in output.splitlines())
    text = re.sub(OUTPUT, lambda found: f"{found[1]}{block}\n{found[3]}", text, flags=re.DOTALL)
    README.write_text(text, encoding="utf-8")


def bench(*arguments: object, folder: Path | None = None) -> str:
    """Return what a command of the toolkit prints on standard output when it works in `folder`."""
    command = [sys.executable, "-m", "ipsrec_bench", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, encoding="utf-8")  # noqa: S603 (ours)
    return done.stdout


def terminal(events: Iterable[Event]) -> str:
    """Return the dashboard in the middle of a run as SVG."""
    timed = staged(events)
    now = timed[0].time + SHARE * (timed[-1].time - timed[0].time)
    state = RunState()
    for event in timed:
        if event.time <= now:
            state = fold(state, event)
    console = Console(record=True, width=COLUMNS, height=LINES, file=StringIO(), force_terminal=True)
    console.print(dashboard(state, now, LINES))
    return console.export_svg(title="ipsrec-bench run quick", code_format=SVG, unique_id="dashboard")


def staged(events: Iterable[Event]) -> list[Event]:
    """Return the events of a run as two workers of equal and constant speed would have sent them."""
    kept = list(events)
    opening = [event for event in kept if isinstance(event, DatasetReady | RunStarted | RunPlanned)]
    made: list[Event] = [replace(event, time=0.0) for event in opening]
    free = {"1": 0.0, "2": 0.0}
    for worker in free:
        made.append(WorkerStarted("cpu", "localhost", 1, 1, time=0.0, worker=worker))
        made.append(WorkerSeen(MEMORY, 1.0, time=0.0, worker=worker))
    order = [key for event in opening if isinstance(event, RunPlanned) for key, *_ in event.grid]
    for key in order:
        worker = min(free, key=free.__getitem__)
        began = free[worker]
        for event in kept:
            if not isinstance(event, CellEvent) or event.key != key:
                continue
            if isinstance(event, EpochDone):
                half = (event.epoch, 1, 2, event.loss, SPEED)
                step = StepDone(key, event.dataset, event.label, event.seed, *half, worker=worker)
                made.append(replace(step, time=free[worker] + EPOCH_SECONDS / 2))
                free[worker] += EPOCH_SECONDS
                made.append(replace(event, targets_per_second=SPEED, time=free[worker], worker=worker))
            elif isinstance(event, CellFinished):
                made.append(replace(event, seconds=free[worker] - began, time=free[worker], worker=worker))
            elif isinstance(event, CellStarted):
                made.append(replace(event, time=began, worker=worker))
    return sorted(made, key=attrgetter("time"))


def page(report: Path, scheme: Literal["light", "dark"]) -> bytes:
    """Return the top of a report's page as PNG, in the colour scheme `light` or `dark`."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", MOMENT, report.read_text(encoding="utf-8"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
        shown.set_content(text, wait_until="networkidle")
        shown.wait_for_timeout(500)  # charts are drawn by scripts
        picture = shown.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="where the run is kept")
    options = parser.parse_args()
    write_example()
    if options.run is not None:
        draw(options.run.resolve())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            draw(Path(temporary))
