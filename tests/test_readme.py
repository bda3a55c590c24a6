"""The README: short, with pictures that exist, and an example that prints what it shows."""

import importlib.util
import re
from pathlib import Path

from ipsrec_bench.events import CellFinished, CellStarted, EpochDone, RunOpened, RunPlanned, RunStarted, WorkerStarted

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LONGEST = 150
HEAVIEST = 300_000


def block(mark: str, language: str) -> str:
    """Return the code block of the README below the comment `mark`."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block {mark}"
    return found[1]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= LONGEST


def test_the_pictures_of_the_readme_exist_and_load_fast():
    pictures = set(re.findall(r"docs/pictures/[\w-]+\.\w+", README))
    assert {Path(name).suffix for name in pictures} == {".png", ".svg"}
    for name in pictures:
        assert 0 < (ROOT / name).stat().st_size < HEAVIEST


def test_the_example_of_the_readme_prints_what_the_readme_shows(tmp_path, bench):
    (tmp_path / "mine.toml").write_text(block("mine.toml", "toml"), encoding="utf-8")
    commands = re.search(r"```sh\n(ipsrec-bench run mine.toml\n.*?)```", README, re.DOTALL)
    assert commands
    run, compare = (line.split()[1:] for line in commands[1].splitlines())
    assert bench("validate", "mine.toml").returncode == 0
    assert bench(*run, "--executor", "inline").returncode == 0
    printed = bench(*compare).stdout
    assert "".join(f"{line.rstrip()}\n" for line in printed.splitlines()) == block("example output", "text")


def test_the_picture_of_the_dashboard_shows_the_run_and_nothing_of_its_machine():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    cells = [("a", "world", "sasrec", 1), ("b", "world", "sasrec", 2)]

    def drawn(seconds: float) -> str:
        """The picture of a run whose epochs take so long."""
        events = [
            RunOpened("s", "/secret/store", "my-host", 77, "m", "1", "run /secret/suite", "0"),
            RunStarted("s", "My suite", cells=2, skipped=0),
            RunPlanned(tuple((*cell, "queued") for cell in cells)),
            WorkerStarted("cpu", "my-host", 77, 3, worker="9"),
        ]
        for cell in cells:
            events.append(CellStarted(*cell, epochs=4, stop_metric="mrr@10", time=seconds, worker="9"))
            events += [EpochDone(*cell, e, 1.0 / e, 0.1 * e, 100 / seconds, time=seconds * e) for e in range(1, 5)]
            events.append(CellFinished(*cell, {"ndcg@10": 0.25}, 4, seconds, time=5 * seconds))
        return pictures.terminal(events)

    picture = drawn(1.0)
    assert "My&#160;suite" in picture
    assert "secret" not in picture
    assert "my-host" not in picture
    assert picture == drawn(7.0)
