"""Downloads and archives: a file is complete or absent, whatever a server or an archive does."""

import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ipsrec_bench.data import download as module
from ipsrec_bench.data.download import download, unpack
from ipsrec_bench.errors import DataError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A file server on loopback that can be set to misbehave."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    cut: int | None = None
    """Bytes after which each connection is cut."""
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    """The `Range` of each request."""
    url: str = ""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    settings = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            settings.asked.append(wanted)
            begin = 0
            if wanted and settings.ranges and self.headers.get("If-Range") == settings.tag:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            body = settings.content[begin:]
            beyond = begin >= len(settings.content)
            self.send_response(416 if beyond else 206 if begin else settings.status)
            if beyond:
                self.send_header("Content-Range", f"bytes */{len(settings.content)}")
            elif begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(settings.content) - 1}/{len(settings.content)}")
            if settings.length:
                self.send_header("Content-Length", str(len(body)))
            if settings.tag:
                self.send_header("ETag", settings.tag)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client that asks for the rest does not wait for all
                self.wfile.write(body[: settings.cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        settings.url = f"http://127.0.0.1:{http.server_port}/file.gz"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield settings
        http.shutdown()


def fetched(server: Server, folder, sha256: str = SHA) -> list[tuple[int, int | None]]:
    seen: list[tuple[int, int | None]] = []
    download(server.url, folder / "raw" / "file.gz", sha256, lambda *progress: seen.append(progress))
    return seen


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "raw").iterdir())


def test_a_file_arrives_complete_and_reports_its_progress(server, tmp_path):
    seen = fetched(server, tmp_path)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.gz"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    requests = len(server.asked)
    assert fetched(server, tmp_path) == []
    assert len(server.asked) == requests


@pytest.mark.parametrize("sha256", [SHA, ""])
def test_a_download_resumes_after_a_cut_connection(server, tmp_path, sha256):
    server.cut = 1_100_000
    fetched(server, tmp_path, sha256)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT
    assert [asked for asked in server.asked if asked] == ["bytes=1100000-", "bytes=2200000-"]


def test_an_interrupted_download_resumes_in_the_next_call(server, tmp_path):
    def stop(received: int, _: int | None) -> None:
        if received > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "raw/file.gz", "", stop)
    (part,) = names(tmp_path)
    assert part.startswith(".file.gz.")
    assert part.endswith(".part")
    kept = (tmp_path / "raw" / part).stat().st_size
    assert 1_500_000 < kept < len(CONTENT)
    seen = fetched(server, tmp_path, "")
    assert server.asked[-1] == f"bytes={kept}-"
    assert seen[0][0] > kept
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.gz"]


def test_a_server_that_ignores_range_is_read_from_the_beginning(server, tmp_path):
    server.cut = 2_000_000
    server.ranges = False
    with pytest.raises(DataError, match=r"was cut \(2,000,000 bytes are kept; the same"):
        fetched(server, tmp_path)
    assert not (tmp_path / "raw/file.gz").exists()
    server.cut = None
    fetched(server, tmp_path)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT


def test_parts_of_different_contents_are_never_joined(server, tmp_path):
    server.cut = 2_000_000
    server.ranges = False
    with pytest.raises(DataError):
        fetched(server, tmp_path, "")
    server.ranges, server.cut = True, None
    server.tag, server.content = '"two"', CONTENT[::-1]
    fetched(server, tmp_path, "")
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT[::-1]
    assert names(tmp_path) == ["file.gz"]


def test_a_server_without_validator_is_read_from_the_beginning(server, tmp_path):
    server.tag = None
    server.cut = 2_000_000
    with pytest.raises(DataError):
        fetched(server, tmp_path, "")
    server.cut = None
    fetched(server, tmp_path, "")
    assert set(server.asked) == {None}
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=f"does not have the checksum {'0' * 64}"):
        fetched(server, tmp_path, "0" * 64)
    assert names(tmp_path) == []


def test_without_length_and_checksum_no_file_counts_as_complete(server, tmp_path):
    server.length = False
    server.cut = 1_000_000
    with pytest.raises(DataError, match="it cannot be verified that the file is complete"):
        fetched(server, tmp_path, "")
    with pytest.raises(DataError, match="checksum"):
        fetched(server, tmp_path)
    assert not (tmp_path / "raw/file.gz").exists()
    server.cut = None
    fetched(server, tmp_path)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT


def test_refusals_and_dead_servers_are_named(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match="cannot be downloaded: 404 Client Error"):
        fetched(server, tmp_path)
    server.url = "http://127.0.0.1:1/file.gz"
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/file\.gz: cannot be downloaded"):
        fetched(server, tmp_path)
    assert names(tmp_path) == []


def test_a_complete_part_that_was_never_moved_is_used(server, tmp_path):
    server.length = False  # so that only the refused range shows that the part is complete

    def stop(received: int, _: int | None) -> None:
        if received == len(CONTENT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "raw/file.gz", SHA, stop)
    (part,) = (tmp_path / "raw").iterdir()
    part.write_bytes(CONTENT)
    fetched(server, tmp_path)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT
    (tmp_path / "raw/file.gz").unlink()
    part.write_bytes(CONTENT + b"more")
    fetched(server, tmp_path)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT


def test_an_invalid_address_is_named(tmp_path):
    for url in ("example.org/file.gz", "gopher://example.org/file.gz"):
        for sha256 in (SHA, ""):
            with pytest.raises(DataError, match=f"{url}: cannot be downloaded"):
                download(url, tmp_path / "raw/file.gz", sha256, lambda *_: None)


def test_two_processes_do_not_write_one_part(server, tmp_path):
    def again(*_: object) -> None:
        with pytest.raises(DataError, match="another process is downloading it"):
            fetched(server, tmp_path)

    download(server.url, tmp_path / "raw/file.gz", SHA, again)
    assert (tmp_path / "raw/file.gz").read_bytes() == CONTENT


# Archives


def archive(path, entries: dict[str, bytes]):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in entries.items():
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_two_processes_may_unpack_the_same_archive(tmp_path):
    path = archive(tmp_path / "a.zip", {"log.csv": CONTENT})
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(unpack, path, tmp_path / "out", ("log.csv",), 10**9) for _ in range(4)]:
            done.result()
    assert (tmp_path / "out/log.csv").read_bytes() == CONTENT
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["log.csv"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_no_entry_leaves_the_folder(tmp_path, name):
    evil = {"../evil.csv": b"1", "/tmp/evil2.csv": b"2", "deep/../../x/log.csv": b"3", "other.csv": b"4"}  # noqa: S108
    folder = tmp_path / "in" / "folder"
    unpack(archive(tmp_path / name, evil), folder, ("evil.csv", "log.csv"), 10**9)
    assert sorted(path.name for path in folder.iterdir()) == ["evil.csv", "log.csv"]
    assert (folder / "log.csv").read_bytes() == b"3"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [name, "evil.csv", "log.csv"]


def test_links_in_a_tar_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("log.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"the archive has no 'log\.csv'"):
        unpack(tmp_path / "a.tar", tmp_path / "out", ("log.csv",), 10**9)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:2000] + b"\0" * 500 + b[2500:]])
def test_a_broken_archive_leaves_no_file_that_looks_complete(tmp_path, name, damage):
    path = archive(tmp_path / name, {"log.csv": CONTENT[:100_000]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out", ("log.csv",), 10**9)
    assert not (tmp_path / "out/log.csv").exists()
