"""Peers in separate environments, which answer requests line by line."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
PEERS = {
    "recbole": ["torch==2.13.0", "numpy==1.26.4", "pandas<3", "setuptools<81", "recbole==1.2.1"],
    "rectools": ["torch==2.13.0", "rectools[torch]==0.19.0"],
}
"""Packages of each peer, from PyPI. RecBole needs a NumPy below 2 and a pandas below 3."""


def install(name: str, folder: Path) -> Path:
    """Return the Python of `name`'s environment below `folder`, which is created if it is missing."""
    python = folder / name / "bin" / "python"
    done = folder / name / "installed"
    if not done.exists():
        print(f"installing {name} into {folder / name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        for package in (["torch==2.13.0"], PEERS[name]):
            subprocess.run([python, "-m", "pip", "install", "-q", *package], check=True)
        done.touch()
    return python


class Peer:
    """A peer's process, which works only on request."""

    def __init__(self, python: Path, script: str, arguments: Sequence[object], folder: Path) -> None:
        """Start it in `folder`, where it may leave files, and wait until it has loaded its data."""
        self._process = subprocess.Popen(
            [python, HERE / script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        self.ready = self._answer()

    def ask(self, line: str) -> dict:
        """Send `line` and return the answer."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError("the peer ended without an answer; run its script by hand to see why")
