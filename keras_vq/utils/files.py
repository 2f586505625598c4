"""Files that are either whole or not there."""

import contextlib
import ctypes
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` when the block succeeds.

    Whoever reads `path` sees the old file or the complete new one, also when
    the process is killed or the disk runs full in between. The temporary file
    lies in the same folder, because a rename across file systems is a copy.

    Args:
        path: the file to write. Its folder is created when missing.

    Yields:
        The temporary path. It keeps the suffix of `path`, since writers such
        as `numpy.savez` add one where it is missing.

    Example:
    ```python
    with keras_vq.utils.atomic_path("codes.npz") as temporary:
        np.savez(temporary, codes=codes)
    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(
        f".{path.stem[:100]}.{secrets.token_hex(4)}.tmp{path.suffix}"
    )
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def exchange(first: str | os.PathLike, second: str | os.PathLike) -> bool:
    """Exchanges two files or directories in one step, where the system can.

    Whoever looks finds something complete under both names at any moment,
    also when the process is killed.

    Args:
        first: a path that exists.
        second: another one, on the same file system.

    Returns:
        Whether they were exchanged. Linux and macOS can, on most file systems.
    """
    at_working_directory, flag = -100, 2
    paths = os.fsencode(first), os.fsencode(second)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return library.renamex_np(*paths, flag) == 0
        return (
            library.renameat2(
                at_working_directory,
                paths[0],
                at_working_directory,
                paths[1],
                flag,
            )
            == 0
        )
    except (OSError, TypeError, AttributeError):
        return False  # Windows, or a system older than these calls.
