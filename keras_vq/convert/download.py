"""Published files: fetched once, whole, and as they were published.

A download that broke off, or whose process was killed, goes on where it
stopped. What has come of it is never taken for the file: that has its name
only when it is complete and compared with what was published.
"""

import dataclasses
import hashlib
import http
import http.client
import os
import pathlib
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import BinaryIO

from keras_vq.convert.errors import DamagedFileError, UnavailableFileError
from keras_vq.convert.partial_file import PartialFile
from keras_vq.version import __version__

# To an answer, and between two pieces of it.
_ANSWER_SECONDS = 10.0
# A server that sends a byte now and then would never run into the former.
_STALL_SECONDS, _STALL_BYTES = 30.0, 2**16
_CHUNK = 2**16
_NO_SUCH_RANGE = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


def cache_folder(name: str) -> pathlib.Path:
    """Where downloaded files of a kind are kept: below Keras' own folder."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(home).expanduser() / "keras_vq" / name


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that somebody else publishes.

    Attributes:
        name: What it is called.
        url: Where it is.
        sha256: Its SHA-256, 64 hexadecimal digits, or None where nobody has
            published it.
        size: Number of bytes, or None likewise.
        git_blob: The hash that git has it under, 40 hexadecimal digits, where
            that is what is known.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None
    git_blob: str | None = None

    @property
    def known_hash(self) -> str | None:
        """What it can be compared with, if there is anything."""
        return self.sha256 or self.git_blob

    @property
    def key(self) -> str:
        """Hexadecimal digits that tell this file from others of its name."""
        address = hashlib.sha256(self.url.encode()).hexdigest()
        return self.known_hash or address

    def check(self, path: str | os.PathLike) -> None:
        """Raises DamagedFileError unless the file at `path` is this one."""
        with open(path, "rb") as file:
            self._compare(file, os.fspath(path))

    def _compare(self, file: BinaryIO, source: str) -> None:
        self._compare_size(os.fstat(file.fileno()).st_size, source)
        for kind, expected, compute in (
            ("SHA-256", self.sha256, sha256),
            ("git blob id", self.git_blob, git_blob_id),
        ):
            if expected is not None and (received := compute(file)) != expected:
                raise DamagedFileError(
                    f"{source} is not the published {self.name}. Expected "
                    f"{kind}: {expected}. Received: {received}. "
                    f"Delete it and fetch it again: {self.url}"
                )

    def _compare_size(self, size: int, source: str) -> None:
        if self.size not in (None, size):
            raise DamagedFileError(
                f"{source} is not the published {self.name}. Expected: "
                f"{self.size} bytes. Received: {size} bytes. "
                f"Delete it and fetch it again: {self.url}"
            )

    def download(self, path: str | os.PathLike) -> None:
        """Fetches it, unless it is there: the whole, checked file, or none.

        Args:
            path: Where to write. Missing folders are made. What has come when
                the download breaks off lies beside it, for the next attempt.

        Raises:
            UnavailableFileError: If the server does not answer or has no such
                file, the connection is lost or stalls, or `path` cannot be
                written.
            DamagedFileError: If what came is another file.
        """
        path = pathlib.Path(path)
        try:
            with PartialFile(path, self.key) as partial:
                # Another process may have been at it until now.
                if self._is_at(path):
                    return
                print(f"Downloading {self.url} to {path}", file=sys.stderr)
                self._fetch(partial)
                partial.complete()
        except OSError as error:
            raise UnavailableFileError(
                f"{path} cannot be written: {error}"
            ) from error

    def _is_at(self, path) -> bool:
        try:
            self.check(path)
        except (DamagedFileError, OSError):
            return False
        return True

    def _fetch(self, partial) -> None:
        began_before = partial.size > 0
        try:
            if self.size is None or partial.size != self.size:
                for chunk in self._chunks(partial):
                    partial.append(chunk)
            self._compare(partial.file, f"What {self.url} sent")
        except DamagedFileError:
            partial.clear()
            if not began_before:
                raise
            # The beginning may have been that of another file.
            self._fetch(partial)

    def _chunks(self, partial) -> Iterator[bytes]:
        """What is still to come of it, and nothing beyond its size."""
        start, received = time.monotonic(), 0
        try:
            response, size = self._ask(partial)
            with response:
                self._compare_size(size, f"What {self.url} sends")
                left = size - partial.size
                while left > 0 and (chunk := response.read1(min(_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
                    received += len(chunk)
                    if time.monotonic() - start > _STALL_SECONDS:
                        if received < _STALL_BYTES:
                            raise TimeoutError("it hardly sends anything")
                        start, received = time.monotonic(), 0
            if left:
                raise ConnectionError("the connection ended too early")
        except urllib.error.HTTPError as error:
            raise UnavailableFileError(
                f"{self.url} cannot be had: the server answers {error.code} "
                f"{error.reason}."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            kept = partial.size
            raise UnavailableFileError(
                f"{self.url} cannot be had: {reason or type(error).__name__}."
                + (f" {kept:,} bytes of it are kept: try again." * bool(kept))
            ) from error

    def _ask(self, partial) -> tuple[http.client.HTTPResponse, int]:
        """The answer that continues what is there, and the whole's size."""
        if headers := self._continuation(partial):
            try:
                response = _open(self.url, headers)
            except urllib.error.HTTPError as error:
                if error.code != _NO_SUCH_RANGE:
                    raise
            else:
                size = _continued_size(response, partial.size)
                if size is not None:
                    return response, size
                if response.status == http.HTTPStatus.OK:
                    return response, self._begin(response, partial)
                response.close()
        response = _open(self.url, {})
        return response, self._begin(response, partial)

    def _begin(self, response, partial) -> int:
        """Throws away what is there for an answer that is the whole."""
        size = response.headers.get("Content-Length", "")
        if not size.isdecimal() and self.size is None:
            # It could send for ever, or too little, and nobody would know.
            raise ConnectionError("the server does not say how large it is")
        validator = response.headers.get("ETag", "")
        # A weak one does not promise the same bytes.
        is_strong = re.fullmatch(r'"[\x21-\x7e]*"', validator)
        partial.clear(validator if is_strong else "")
        return int(size) if size.isdecimal() else self.size

    def _continuation(self, partial) -> dict[str, str]:
        """Headers that ask for the rest, if what is there is good for it."""
        size, validator = partial.size, partial.validator
        if not size or size >= (self.size or size + 1):
            return {}
        headers = {"Range": f"bytes={size}-"}
        if validator:
            # Another version of the file comes as a whole.
            return {**headers, "If-Range": validator}
        return headers if self.known_hash else {}


def sha256(file: BinaryIO) -> str:
    """The SHA-256 of an open file."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(file: BinaryIO) -> str:
    """The hash under which git has a file of these bytes."""
    file.seek(0)
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _continued_size(response, start: int) -> int | None:
    """The whole's size, if the answer is its rest from `start` on."""
    sent = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", sent.strip())
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or not match:
        return None
    first, last, size = map(int, match.groups())
    return size if (first, last) == (start, size - 1) else None


def _open(url: str, headers: dict) -> http.client.HTTPResponse:
    """Asks in a thread: the search for a name's address has no time limit."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    headers = {"User-Agent": f"keras_vq/{__version__}", **headers}
    request = urllib.request.Request(url, headers=headers)

    def ask():
        try:
            answers.put(
                urllib.request.urlopen(request, timeout=_ANSWER_SECONDS)
            )
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_ANSWER_SECONDS:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer
