"""Published files: fetched once, whole, and as they were published."""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from keras_vq.convert.errors import DamagedFileError, UnavailableFileError
from keras_vq.utils.files import atomic_path
from keras_vq.version import __version__

# To an answer, and between two pieces of it.
_ANSWER_SECONDS = 10.0
# A server that sends a byte now and then would never run into the former.
_STALL_SECONDS, _STALL_BYTES = 30.0, 2**16
_CHUNK = 2**16


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
        sha256: Its SHA-256, 64 hexadecimal digits.
        size: Number of bytes.
    """

    name: str
    url: str
    sha256: str
    size: int

    def check(self, path: str | os.PathLike) -> None:
        """Raises DamagedFileError unless the file at `path` is this one."""
        size, digest = os.path.getsize(path), ""
        if size == self.size:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._compare(size, digest, os.fspath(path))

    def _compare(self, size: int, digest: str, source: str) -> None:
        if size != self.size:
            raise DamagedFileError(
                f"{source} is not the published {self.name}. Expected: "
                f"{self.size} bytes. Received: {size} bytes. "
                f"Delete it and fetch it again: {self.url}"
            )
        if digest != self.sha256:
            raise DamagedFileError(
                f"{source} is not the published {self.name}. Expected "
                f"SHA-256: {self.sha256}. Received: {digest}. "
                f"Delete it and fetch it again: {self.url}"
            )

    def download(self, path: str | os.PathLike) -> None:
        """Fetches it: the whole, checked file, or none.

        Args:
            path: Where to write. Missing folders are made.

        Raises:
            UnavailableFileError: If the server does not answer or has no such
                file, the connection is lost or stalls, or `path` cannot be
                written.
            DamagedFileError: If what came is another file.
        """
        print(f"Downloading {self.url} to {path}", file=sys.stderr)
        digest, size = hashlib.sha256(), 0
        try:
            with atomic_path(path) as temporary:
                with open(temporary, "xb") as stream:
                    for chunk in self._chunks():
                        size += len(chunk)
                        digest.update(chunk)
                        stream.write(chunk)
                        if size > self.size:
                            break  # Another file, perhaps an endless one.
                self._compare(size, digest.hexdigest(), f"What {self.url} sent")
        except OSError as error:
            raise UnavailableFileError(
                f"{pathlib.Path(path)} cannot be written: {error}"
            ) from error

    def _chunks(self) -> Iterator[bytes]:
        start, received = time.monotonic(), 0
        try:
            with _open(self.url) as response:
                while chunk := response.read1(_CHUNK):
                    received += len(chunk)
                    if time.monotonic() - start > _STALL_SECONDS:
                        if received < _STALL_BYTES:
                            raise TimeoutError("it hardly sends anything")
                        start, received = time.monotonic(), 0
                    yield chunk
        except urllib.error.HTTPError as error:
            raise UnavailableFileError(
                f"{self.url} cannot be had: the server answers {error.code} "
                f"{error.reason}."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UnavailableFileError(
                f"{self.url} cannot be had: {reason or type(error).__name__}."
            ) from error


def _open(url: str) -> http.client.HTTPResponse:
    """Asks in a thread: the search for a name's address has no time limit."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    agent = {"User-Agent": f"keras_vq/{__version__}"}
    request = urllib.request.Request(url, headers=agent)

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
