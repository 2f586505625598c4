"""What has come of a file so far: kept when the download breaks off.

It lies beside the file under a name of its own, so that nobody takes it for
the whole. One process at a time writes to it: the lock is the system's, which
opens it by itself when its process dies.
"""

import os
import pathlib
import secrets
import sys
import time
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing is kept there.
    fcntl = None

# Another process may be at it for hours, as long as its file grows.
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


class PartialFile:
    """The beginning of a file, in a `with` block that owns it.

    At the end of the block it is kept for the next attempt, unless
    `complete` was called or it is empty. Where files cannot be locked, or
    another process has it and gets nowhere, this is a file of the block's
    own, which goes on nowhere and is not kept.

    Args:
        target: The file that it is to become. Missing folders are made.
        key: Which content it is the beginning of, such as a hash.
    """

    def __init__(self, target: pathlib.Path, key: str):
        self._target = target
        stem = f".{target.name[:100]}.{key[:16]}"
        self._path = target.with_name(f"{stem}.part")
        self._note = target.with_name(f"{stem}.etag")
        self._is_own = False
        self._file: BinaryIO | None = None

    def __enter__(self) -> "PartialFile":
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._opened() if fcntl else None
        if self._file is None:
            self._is_own = True
            mark = secrets.token_hex(4)
            self._path = self._path.with_suffix(f".{mark}.part")
            self._note = self._path.with_suffix(".etag")
            self._file = open(self._path, "x+b", buffering=0)
        return self

    def __exit__(self, *error) -> None:
        if self._file is None:
            return
        # In this order: once the lock is open, the name may be another's.
        if self._is_own or not self.size:
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._file.close()

    @property
    def file(self) -> BinaryIO:
        """The open file, to read what is in it."""
        return self._file

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def validator(self) -> str:
        """What the server calls this version of the file, or nothing."""
        try:
            return self._note.read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def clear(self, validator: str = "") -> None:
        """Throws away what is there, before another version comes."""
        self._file.truncate(0)
        self._file.seek(0)
        if validator:
            # Half of it, after a kill, is no server's name for anything.
            self._note.write_text(validator, encoding="ascii")
        else:
            self._note.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """Adds what has come."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def complete(self) -> None:
        """Gives the file its name, once it is on the disk."""
        os.fsync(self._file.fileno())
        if self._is_own:
            self._file.close()  # Windows renames no open file.
        os.replace(self._path, self._target)
        self._note.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    def _opened(self) -> BinaryIO | None:
        """The file, locked; None if that cannot be."""
        size, since = -1, time.monotonic()
        while True:
            # Unbuffered: what was written is there when the process dies.
            file = open(self._path, "a+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if size < 0:
                    print(
                        f"Waiting for another process that fetches "
                        f"{self._target}",
                        file=sys.stderr,
                    )
                before, size = size, os.fstat(file.fileno()).st_size
                file.close()
                if size != before:
                    since = time.monotonic()
                elif time.monotonic() - since > _PATIENCE_SECONDS:
                    return None
                time.sleep(_PAUSE_SECONDS)
                continue
            except OSError:  # A file system without locks.
                file.close()
                return None
            if self._has_its_name(file):
                return file
            # While this one waited, it was completed or thrown away.
            file.close()

    def _has_its_name(self, file) -> bool:
        try:
            return os.path.samestat(
                os.fstat(file.fileno()), os.stat(self._path)
            )
        except FileNotFoundError:
            return False
