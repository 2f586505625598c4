"""metadata.json: what is in a preset directory, and proof that it is intact."""

import hashlib
import json
import os
import pathlib
import re
from typing import Any, BinaryIO

from keras_vq.presets.errors import DamagedPresetError, PresetError
from keras_vq.presets.parts import MAX_PARTS, part_file, part_name, part_names
from keras_vq.version import __version__

CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_FILE = "model.weights.h5"

# Raised whenever a preset could no longer be read by an older package.
FORMAT_VERSION = 1

# A preset's JSON files hold a few kilobytes; the cap keeps a hostile one
# from filling the memory before anything about it is known.
MAX_JSON_BYTES = 16 * 2**20

_CHUNK_BYTES = 2**20


def read_json(path: pathlib.Path) -> dict:
    """Read a small JSON object, with one clear error for a damaged file."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise DamagedPresetError(
                f"{path} is larger than a preset's JSON file may be. "
                f"Expected at most {MAX_JSON_BYTES} bytes. Received: {size}."
            )
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise missing_file(path) from error
    # Too deep a nesting is a RecursionError, bad UTF-8 and JSON a ValueError.
    except (ValueError, RecursionError) as error:
        if isinstance(error, PresetError):
            raise
        raise DamagedPresetError(
            f"{path} is damaged: it is not valid JSON ({error}). "
            "Fetch or save the preset again."
        ) from error
    if not isinstance(content, dict):
        raise DamagedPresetError(
            f"{path} is damaged: expected a JSON object. "
            f"Received: {type(content).__name__}."
        )
    return content


def missing_file(path: pathlib.Path) -> DamagedPresetError:
    """The error for a file that a preset must have."""
    return DamagedPresetError(
        f"{path.parent} is not a complete preset: it has no readable "
        f"{path.name}. A preset directory holds {CONFIG_FILE}, "
        f"{METADATA_FILE} and {WEIGHTS_FILE}, as written by "
        "`model.save_to_preset(directory)`."
    )


def write_json(path: pathlib.Path, content: dict) -> None:
    """Write an object the way keras-hub does, and have it on the disk."""
    text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
    with open(path, "wb") as file:
        file.write(text.encode("utf-8") + b"\n")
        file.flush()
        os.fsync(file.fileno())


def fingerprint(path: pathlib.Path) -> dict:
    """Size and SHA-256 of a file, as they stand in metadata.json."""
    with open(path, "rb") as file:
        return {"sha256": _sha256(file), "size": path.stat().st_size}


def check_fingerprint(file: BinaryIO, expected: dict, name: str) -> None:
    """Compare an open file with its published size and SHA-256.

    Args:
        file: The file, opened in binary mode; it is left at its start.
        expected: `{"sha256": hexadecimal digest, "size": bytes}`.
        name: What to call the file in an error.

    Raises:
        DamagedPresetError: If the file is not the one that was published.
    """
    size = file.seek(0, os.SEEK_END)
    if size != expected["size"]:
        state = "truncated" if size < expected["size"] else "too long"
        raise DamagedPresetError(
            f"{name} is {state}. Expected: {expected['size']} bytes. "
            f"Received: {size} bytes. Fetch or save the preset again."
        )
    file.seek(0)
    digest = _sha256(file)
    file.seek(0)
    if digest != expected["sha256"]:
        raise DamagedPresetError(
            f"{name} is not the file that was published. "
            f"Expected SHA-256: {expected['sha256']}. Received: {digest}. "
            "Fetch or save the preset again."
        )


def check_path(path: pathlib.Path, expected: dict) -> None:
    """`check_fingerprint` for a file that need not stay open."""
    try:
        with open(path, "rb") as file:
            check_fingerprint(file, expected, str(path))
    except OSError as error:
        raise missing_file(path) from error


def read_manifest(directory: pathlib.Path) -> dict:
    """Read and check metadata.json; the files it names are not opened.

    Raises:
        DamagedPresetError: If it is missing, no JSON, or names no hashes.
        PresetError: If a newer package wrote it.
    """
    path = directory / METADATA_FILE
    manifest = read_json(path)
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise PresetError(
            f"{directory} was written by keras_vq "
            f"{manifest.get('keras_vq_version')} in preset format {version}. "
            f"This is keras_vq {__version__}, which reads formats up "
            f"to {FORMAT_VERSION}. Update with `pip install -U keras-vq`."
        )
    if not isinstance(version, int) or version < 1:
        raise DamagedPresetError(
            f"{path} is damaged: expected `format_version` to be a number "
            f"from 1 to {FORMAT_VERSION}. Received: {version!r}. Presets of "
            "other packages have none; load those with their own package."
        )
    files = manifest.get("files")
    files = files if isinstance(files, dict) else {}
    for name in {CONFIG_FILE: 0, WEIGHTS_FILE: 0, **files}:
        entry = files.get(name)
        if not is_fingerprint(entry):
            raise DamagedPresetError(
                f"{path} is damaged: expected the size and SHA-256 of "
                f"{name[:80]} under `files`. Received: {entry!r}."
            )
    _check_names(files, path)
    return manifest


def parts_of(manifest: dict) -> dict[str, int | None]:
    """Optional parts that a preset has, with their numbers of parameters."""
    facts = manifest.get("parts")
    facts = facts if isinstance(facts, dict) else {}
    found = {}
    for name in part_names(manifest["files"]):
        part = facts.get(name)
        count = part.get("parameter_count") if isinstance(part, dict) else None
        found[name] = count if isinstance(count, int) else None
    return found


def is_fingerprint(entry: Any) -> bool:
    """Whether a piece of JSON has the form that `fingerprint` gives."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None
    )


def _check_names(files: dict, path: pathlib.Path) -> None:
    """Files are joined to a directory and downloaded by these names."""
    others = [n for n in files if n not in (CONFIG_FILE, WEIGHTS_FILE)]
    unknown = [name[:80] for name in others if part_name(name) is None]
    if unknown or len(others) > MAX_PARTS:
        raise DamagedPresetError(
            f"{path} is damaged: expected `files` to name {CONFIG_FILE}, "
            f"{WEIGHTS_FILE} and up to {MAX_PARTS} optional parts, such as "
            f"{part_file('discriminator')}. Received: "
            f"{unknown[:5] or len(others)}."
        )


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
