"""Files for people are replaced atomically: a file is old or new, never partial."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ipsrec_bench.files import replace_files

OLD = {"a.html": "old page", "b.svg": "old chart"}
NEW = {"b.svg": "new chart" * 1000, "a.html": "new page" * 1000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    replace_files(tmp_path / "made" / "here", OLD)
    return tmp_path / "made" / "here"


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def test_files_are_replaced_and_nothing_else_is_left(folder):
    assert content(folder) == OLD
    (folder / "a.html").chmod(0o640)
    replace_files(folder, NEW | {"c.pdf": b"%PDF"})
    assert content(folder) == NEW | {"c.pdf": "%PDF"}
    assert (folder / "a.html").stat().st_mode & 0o777 == 0o640


def test_an_error_in_the_middle_leaves_every_old_file(folder, monkeypatch):
    write = Path.write_bytes

    def broken(path: Path, data: bytes) -> int:
        if path.name == "a.html":
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="No space"):
        replace_files(folder, NEW)
    assert content(folder) == OLD


def test_a_file_that_does_not_fit_leaves_every_old_file(folder):
    """The limit of a file's size simulates a full disk: the system refuses the rest of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_files(folder, NEW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(folder) == OLD


KILLED = """
import os, pathlib, signal, sys
from ipsrec_bench.files import replace_files
calls = 0
def patched(name):
    original = getattr(pathlib.Path, name)
    def counted(*arguments):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)
    setattr(pathlib.Path, name, counted)
patched("write_bytes"), patched("replace")
replace_files(pathlib.Path(sys.argv[1]), {"b.svg": "new chart" * 1000, "a.html": "new page" * 1000})
"""


@pytest.mark.parametrize("call", range(1, 5))
def test_a_kill_leaves_files_old_or_new_and_the_next_write_sweeps(folder, call):
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(call)], check=False, timeout=60)
    assert done.returncode == -9
    left = [path for path in folder.iterdir() if path.is_dir()]
    assert len(left) == 1
    for name, text in OLD.items():
        assert (folder / name).read_text("utf-8") in (text, NEW[name])
    replace_files(folder, NEW)
    assert content(folder) == NEW


def test_the_temporary_folder_of_a_running_writer_is_not_swept(folder, monkeypatch):
    write = Path.write_bytes

    def meanwhile(path: Path, data: bytes) -> int:
        monkeypatch.setattr(Path, "write_bytes", write)
        replace_files(folder, {"c.tex": "other"})
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", meanwhile)
    replace_files(folder, NEW)
    assert content(folder) == NEW | {"c.tex": "other"}
