"""Files that are either whole or not there."""

import contextlib
import os
import secrets
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
