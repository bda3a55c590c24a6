"""Downloads of raw files from plain URLs, and extraction from archives; both are atomic."""

import fcntl
import hashlib
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from ipsrec_bench.data.staging import alone
from ipsrec_bench.errors import DataError, listed

if TYPE_CHECKING:
    from requests import Response, Session

CHUNK = 1 << 20
ENCRYPTED = 1
"""Flag of an encrypted file in a zip archive."""
ATTEMPTS = 5
"""Consecutive attempts without new bytes after which a download fails."""
PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = (10, 60)
"""Timeouts for connecting, and between received bytes."""

DownloadProgress = Callable[[int, int | None], None]
"""Callback that receives the number of bytes so far and in total; the total is None if the server does not state it."""


def download(url: str, target: Path, sha256: str, on_progress: DownloadProgress) -> None:
    """Download `url` to the file `target`, resuming an earlier attempt.

    Partial content is kept in a hidden file beside `target`, named by the server's validator of the content
    (ETag or modification date), so parts of different contents are never joined. `target` appears once it is complete
    and its checksum, if given, matches. An existing `target` (with the right checksum) is left as it is.

    Raises:
        DataError: the server refuses, keeps closing the connection, or sends something else; or the file cannot be
            written.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}" if sha256 else None,
            fname=target.name,
            path=target.parent,
            downloader=_Resuming(target, on_progress, checked=bool(sha256)),
        )
    except requests.RequestException as error:  # some of which are ValueErrors
        raise DataError(f"{url}: cannot be downloaded: {_sentence(error)}") from None
    except ValueError:
        if not sha256:
            raise
        raise DataError(
            f"{url}: the downloaded file does not have the checksum {sha256} and was deleted; try again later,"
            " or correct this dataset's entry"
        ) from None
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from None


def unpack(archive: Path, folder: Path, members: Sequence[str], most_bytes: int) -> None:
    """Extract the files `members` from a zip or tar archive into `folder`.

    Members are found by their base name and written under it, so no entry can leave `folder`, whatever its path. They
    appear once all of the archive has been read.

    Args:
        archive: a zip or tar file.
        folder: where the members go.
        members: base names of files.
        most_bytes: upper bound on their total size, whatever sizes the archive states.

    Raises:
        DataError: the archive is broken, encrypted, too large, or lacks a member.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            if all((folder / name).is_file() for name in members):
                return  # another process was first
            _take(archive, folder, members, most_bytes)
    except NotImplementedError as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}; unpack it by other means into {folder}") from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError) as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}; get it again") from None
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from None


def _take(archive: Path, folder: Path, members: Sequence[str], most_bytes: int) -> None:
    wanted = set(members)
    left = most_bytes
    try:
        for name, content in _entries(archive, wanted):
            with content, (folder / f".{name}.part").open("wb") as file:
                while chunk := content.read(CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise DataError(
                            f"{archive}: its files exceed {most_bytes:,} bytes unpacked, the limit of"
                            " this dataset (unpacked_bytes); nothing was kept. If it is the right archive, raise"
                            " the limit or unpack it by other means"
                        )
                    file.write(chunk)
            wanted.discard(name)
        if wanted:
            raise DataError(f"{archive}: the archive has no {listed(sorted(wanted))}; is it the right one?")
        for name in members:
            (folder / f".{name}.part").replace(folder / name)
    finally:
        for name in members:
            (folder / f".{name}.part").unlink(missing_ok=True)


def _entries(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the base name and the open content of each regular file of `archive` that is still wanted."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                name = PurePosixPath(info.filename).name
                if name in wanted and not info.is_dir():
                    if info.flag_bits & ENCRYPTED:
                        raise DataError(
                            f"{archive}: '{name}' in it is encrypted; unpack it with its password and put the file"
                            " beside the archive"
                        )
                    yield name, file.open(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            content = tar.extractfile(member) if name in wanted and member.isreg() else None
            if content is not None:
                yield name, content
        assert tar.fileobj is not None
        while tar.fileobj.read(CHUNK):
            pass  # the checksum of a compressed file is verified only at its end


class _CutError(Exception):
    """The connection ended early."""


@dataclass(frozen=True)
class _Resuming:
    """A downloader for pooch, which passes the path of a temporary file, then verifies and moves that file."""

    target: Path
    on_progress: DownloadProgress
    checked: bool
    """Whether a checksum will show if the file is complete."""

    def __call__(self, url: str, output: object, _: object) -> None:
        """Download `url` to the file `output`."""
        import requests

        most = fruitless = 0
        with requests.Session() as session:
            while True:
                try:
                    part = self._receive(session, url)
                    break
                except (_CutError, requests.ConnectionError, requests.Timeout) as error:
                    reached = max((part.stat().st_size for part in self._parts()), default=0)
                    most, fruitless = max(most, reached), 0 if reached > most else fruitless + 1
                    if fruitless == ATTEMPTS:
                        raise requests.ConnectionError(
                            f"{_sentence(error)} ({reached:,} bytes are kept; the same command resumes from there)"
                        ) from None
                    time.sleep(PAUSE_SECONDS * fruitless)
        part.replace(str(output))
        for old in self._parts():
            old.unlink()

    def _parts(self) -> list[Path]:
        return list(self.target.parent.glob(f".{self.target.name}.*.part"))

    def _receive(self, session: "Session", url: str) -> Path:
        """Return the part file once it is complete.

        Raises:
            _CutError: the connection ended before that.
        """
        import requests
        import urllib3

        with _get(session, url) as response:
            validator = _validator(response)
            name = hashlib.sha256(validator.encode()).hexdigest()[:8]
            part = self.target.with_name(f".{self.target.name}.{name}.part")
            with part.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise DataError(f"{self.target}: another process is downloading it; wait for it") from None
                size = _size(response)
                have = file.tell() if validator else 0
                if size is not None and have > size:
                    have = 0
                if have and have == size:
                    return part
                try:
                    if have:
                        response.close()
                        with _get(session, url, {"Range": f"bytes={have}-", "If-Range": validator}) as rest:
                            if rest.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                                self._append(rest, file, have)
                            elif rest.headers.get("Content-Range") != f"bytes */{have}":  # else it was complete already
                                file.truncate(0)
                                raise _CutError("the server's file has a different size now")
                    else:
                        self._append(response, file, 0)
                except requests.RequestException:
                    raise  # these are OSErrors, too
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    if isinstance(error, OSError) and error.errno is not None:  # from the disk, not from the connection
                        raise
                    raise _CutError("the connection was cut") from None
        return part

    def _append(self, response: "Response", file: IO[bytes], have: int) -> None:
        """Append the body of `response` after the first `have` bytes, or overwrite them if it starts from 0."""
        goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise DataError(f"{response.url}: the server sent a different part of the file than was requested")
        begin = have if goes_on else 0
        length = _size(response)
        if length is None and not response.raw.chunked and not self.checked:
            raise DataError(
                f"{response.url}: the server does not state the size of the file and no checksum of it is known, so"
                " it cannot be verified that the file is complete; download it by other means"
            )
        total = None if length is None else begin + length
        file.truncate(begin)
        while chunk := response.raw.read(CHUNK, decode_content=False):
            file.write(chunk)
            begin += len(chunk)
            self.on_progress(begin, total)
        file.flush()
        if total is not None and begin != total:
            raise _CutError(f"the connection was cut after {begin:,} of {total:,} bytes")


def _get(session: "Session", url: str, headers: dict[str, str] | None = None) -> "Response":
    response = session.get(
        url, headers={"Accept-Encoding": "identity", **(headers or {})}, stream=True, timeout=TIMEOUT_SECONDS
    )
    if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        response.raise_for_status()
    return response


def _validator(response: "Response") -> str:
    """Return the validator of this content for `If-Range`, which takes no weak ETag; empty if there is none."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _size(response: "Response") -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0]
