"""Directories of numbered snapshots, each of which is whole or not there.

    directory/
        0003-000240/          epoch and step, so that names sort by age
            state.npz         the arrays, raw
            manifest.json     what is in there, with SHA-256 of both files
        .0003-000480.tmp/     being written, or left by a process that died

A snapshot is written under its temporary name, flushed to the disk and then
renamed, which either happens or not. Older ones are removed only afterwards.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings

import numpy as np

_STATE, _MANIFEST = "state.npz", "manifest.json"
_NAME = re.compile(r"\d{4,}-\d{6,}")
_FORMAT = 1


class SnapshotError(OSError):
    """A snapshot could not be written or read. The message says which."""


class DamagedSnapshotError(SnapshotError):
    """A snapshot is not what was written."""


def snapshot_name(epoch: int, step: int) -> str:
    """Name of the snapshot at a step of an epoch."""
    return f"{epoch:04}-{step:06}"


def find_snapshots(directory: str | os.PathLike) -> list[pathlib.Path]:
    """Snapshots in a directory, oldest first; none if it does not exist."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: tuple(map(int, p.name.split("-"))))


def write_snapshot(
    path: pathlib.Path,
    arrays: dict[str, np.ndarray],
    info: dict,
    description: dict,
) -> None:
    """Writes a snapshot, whole or not at all.

    Args:
        path: Where it will be; its name comes from `snapshot_name`.
        arrays: The arrays by name.
        info: Anything else that JSON can hold.
        description: What people may want to read in the manifest.

    Raises:
        SnapshotError: If the disk is full, read-only or the like. Nothing
            is left of the new snapshot, and others are as they were.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        temporary.mkdir()
        with open(temporary / _STATE, "wb") as file:
            write_arrays(file, arrays, info)
            _flush(file)
        manifest = {
            "format": _FORMAT,
            "sha256": {_STATE: _file_hash(temporary / _STATE)},
            **description,
        }
        with open(temporary / _MANIFEST, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            _flush(file)
        _flush_directory(temporary)
        if path.exists():
            _remove(path)
        os.replace(temporary, path)
        _flush_directory(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SnapshotError(
            f"The checkpoint {path} could not be written: {error}. Earlier "
            "checkpoints beside it are intact. Make room or give a directory "
            "that can be written, and go on from there."
        ) from error


def read_snapshot(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """Reads a snapshot and checks that it is what was written.

    Args:
        path: The snapshot.

    Returns:
        The arrays and the info.

    Raises:
        DamagedSnapshotError: If a file is missing, cut off or changed.
        SnapshotError: If a newer version of the package wrote it.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise SnapshotError(
                f"{path} was written by another version of keras_vq. "
                f"Expected: format {_FORMAT}. Received: {manifest['format']}."
            )
        if _file_hash(path / _STATE) != manifest["sha256"][_STATE]:
            raise DamagedSnapshotError(f"{path / _STATE} was changed.")
        with open(path / _STATE, "rb") as file:
            return read_arrays(file)
    except SnapshotError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedSnapshotError(
            f"{path} is damaged: {type(error).__name__}: {error}"
        ) from error


def write_arrays(file, arrays: dict[str, np.ndarray], info: dict) -> None:
    """Writes arrays of any dtype and JSON into one open file."""
    # NumPy writes types that it does not know, such as bfloat16, as bytes
    # without a name; here all are bytes, with the names beside them.
    header = {
        "info": info,
        "arrays": {k: [list(v.shape), v.dtype.name] for k, v in arrays.items()},
    }
    raw = [np.ascontiguousarray(v).reshape(-1) for v in arrays.values()]
    np.savez(
        file,
        np.frombuffer(json.dumps(header).encode(), np.uint8),
        *[values.view(np.uint8) for values in raw],
    )


def read_arrays(file) -> tuple[dict[str, np.ndarray], dict]:
    """Reads what `write_arrays` wrote; nothing in it can run code."""
    with np.load(file, allow_pickle=False) as stored:
        header = json.loads(stored["arr_0"].tobytes())
        arrays = {
            name: _restored(stored[f"arr_{index}"], shape, dtype)
            for index, (name, (shape, dtype)) in enumerate(
                header["arrays"].items(), start=1
            )
        }
    return arrays, header["info"]


def newest_snapshot(directory: str | os.PathLike):
    """Reads the newest snapshot that is sound.

    Warns about each newer one that is not, and renames it, so that it counts
    no longer among those that are kept.

    Args:
        directory: The directory of the snapshots.

    Returns:
        `(path, arrays, info)`, or None if there are no snapshots.

    Raises:
        DamagedSnapshotError: If there are some, and all are damaged.
    """
    paths = find_snapshots(directory)
    for path in reversed(paths):
        try:
            return path, *read_snapshot(path)
        except DamagedSnapshotError as error:
            damage = error
            aside = _set_aside(path)
            warnings.warn(
                f"{damage} Going back to the checkpoint before it; the "
                f"damaged one is now {aside}.",
                stacklevel=2,
            )
    if paths:
        raise DamagedSnapshotError(
            f"No checkpoint in {directory} is sound. Received: {len(paths)}, "
            f"all damaged, the oldest because: {damage} Start anew in an "
            "empty directory."
        )
    return None


def remove_old_snapshots(directory: str | os.PathLike, keep: int) -> None:
    """Removes all but the newest snapshots, and what dead writers left."""
    directory = pathlib.Path(directory)
    for path in find_snapshots(directory)[:-keep]:
        # Without its manifest it is no snapshot any more, wherever this ends.
        (path / _MANIFEST).unlink(missing_ok=True)
        _remove(path)
    for path in directory.glob(".*.tmp"):
        _remove(path)


def _set_aside(path):
    aside = path.with_name(f"damaged-{path.name}")
    try:
        _remove(aside)
        os.replace(path, aside)
    except OSError:
        return path
    return aside


def _restored(raw, shape, dtype):
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        import ml_dtypes  # comes with every backend of Keras

        dtype = np.dtype(getattr(ml_dtypes, dtype))
    return raw.view(dtype).reshape(shape)


def _file_hash(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(file):
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path):
    if path.exists():
        shutil.rmtree(path)
