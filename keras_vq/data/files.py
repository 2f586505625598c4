"""Which files a user means."""

import glob
import os


def expand_files(files, kind: str) -> list[str]:
    """Returns the sorted paths that a path, pattern or list of them means.

    Args:
        files: A path, a glob pattern, or a list of either.
        kind: What the files are, for messages.

    Raises:
        FileNotFoundError: If one of them means no file.
    """
    several = isinstance(files, (list, tuple))
    found = []
    for entry in files if several else [files]:
        entry = os.path.expanduser(os.fspath(entry))
        if os.path.isfile(entry):
            found.append(entry)
            continue
        matches = sorted(p for p in glob.glob(entry) if os.path.isfile(p))
        if not matches:
            what = (
                "is a folder"
                if os.path.isdir(entry)
                else (
                    "matches no file"
                    if glob.has_magic(entry)
                    else "does not exist"
                )
            )
            raise FileNotFoundError(
                f"Expected {kind} files: a path, a glob pattern, or a list "
                f"of them. Received: {entry!r}, which {what}."
            )
        found += matches
    if not found:
        raise FileNotFoundError(
            f"Expected {kind} files. Received: files={files!r}"
        )
    return found
