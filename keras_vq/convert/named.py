"""Published weights that have a name: fetched, checked and converted once.

Their files stay where their authors published them. The first `from_preset`
makes a preset of the file, in the cache, and whatever asks for the name from
then on finds that preset, without any connection.
"""

import hashlib
import pathlib
import warnings

from keras_vq.convert.download import PublishedFile, cache_folder, sha256
from keras_vq.convert.errors import UnavailableFileError
from keras_vq.convert.loading import describe, load_published
from keras_vq.convert.repository import is_weight_file
from keras_vq.models import VQAutoencoder
from keras_vq.presets import hub
from keras_vq.presets.errors import PresetError, PresetUnavailableError
from keras_vq.presets.manifest import METADATA_FILE
from keras_vq.presets.registry import PresetEntry, get_entry
from keras_vq.presets.saving import save_preset


def converted(entry: PresetEntry) -> pathlib.Path:
    """The directory of the preset that was made of published weights.

    Args:
        entry: An entry of the registry, whose `where` is the address of
            weights of another program, and whose `files` says what is known
            of their sizes and hashes.

    Raises:
        PresetUnavailableError: If they are not here and cannot be fetched.
        DamagedFileError: If they are others than were published.
    """
    entry = _original(entry)
    directory = converted_directory(entry)
    if is_here(entry):
        return directory
    path = _fetched(entry)
    model = load_published(
        VQAutoencoder, path, overrides=dict(entry.metadata.get("arguments", {}))
    )
    metadata = {
        **entry.metadata,
        "description": entry.description,
        "licence": entry.licence,
        "converted_from": _origin(entry, path),
    }
    try:
        save_preset(
            model,
            directory,
            metadata=metadata,
            # One that is fresh has learned nothing yet.
            include_parts=not model.fresh_parts,
        )
    except (OSError, PresetError):
        # Another process may have been faster.
        if not is_here(entry):
            raise
    return directory


def is_here(entry: PresetEntry) -> bool:
    """Whether the preset was made already."""
    return (converted_directory(entry) / METADATA_FILE).is_file()


def converted_directory(entry: PresetEntry) -> pathlib.Path:
    """Where the preset is, once it was made: another for other weights."""
    entry = _original(entry)
    hashes = [file.known_hash for file in _files(entry)]
    key = hashes[0] if len(hashes) == 1 else None
    key = key or hashlib.sha256(entry.where.encode()).hexdigest()
    return cache_folder("presets") / f"{entry.name}-{key[:12]}"


def _original(entry) -> PresetEntry:
    """Two names of the same weights share one preset."""
    return get_entry(entry.alias_of) if entry.alias_of else entry


def _files(entry) -> list[PublishedFile]:
    def known(fields, name):
        value = fields.get(name, "unknown")
        return None if value == "unknown" else value

    return [
        PublishedFile(
            name,
            entry.where,
            known(fields, "sha256"),
            known(fields, "size"),
            known(fields, "git_blob"),
        )
        for name, fields in entry.files.items()
    ]


def _fetched(entry) -> pathlib.Path:
    """The file, or the directory of diffusers, with the published bytes."""
    files = _files(entry)
    if entry.where.startswith(hub.HUB_PREFIX):
        folder = cache_folder("presets") / entry.name
        path = _from_hub(entry, files, folder)
    else:
        (file,) = files
        path = _from_address(entry, file, cache_folder("presets") / file.name)
    for file in files:
        if file.known_hash or file.size is not None:
            file.check(path / file.name if path.is_dir() else path)
    return path


def _from_hub(entry, files, folder) -> pathlib.Path:
    paths = [folder / file.name for file in files]
    if all(path.is_file() for path in paths):
        return folder if len(paths) > 1 else paths[0]
    try:
        return hub.fetch(entry.where)
    except PresetUnavailableError as error:
        names = " and ".join(str(path) for path in paths)
        raise PresetUnavailableError(
            f"The weights of the preset {entry.name!r} are not here. {error} "
            f"Or save what is at {entry.where} as {names}."
        ) from error


def _from_address(entry, file, path) -> pathlib.Path:
    if path.is_file():
        return path
    try:
        file.download(path)
    except UnavailableFileError as error:
        size = "" if file.size is None else f" ({file.size:,} bytes)"
        raise PresetUnavailableError(
            f"The weights of the preset {entry.name!r} are not here. {error} "
            f"Fetch {file.url} elsewhere{size} and save it as {path}."
        ) from error
    return path


def _origin(entry, path) -> dict:
    """What the preset says of the weights that it was made of."""
    layout = describe(path).layout
    (weights,) = [f for f in _files(entry) if is_weight_file(f.name)]
    with open(path / weights.name if path.is_dir() else path, "rb") as file:
        digest = sha256(file)
    if weights.known_hash is None:
        warnings.warn(
            f"The weights of the preset {entry.name!r}, from {entry.where}, "
            "could not be compared with a published hash: none is known. "
            f"What came has the SHA-256 {digest}.",
            stacklevel=2,
        )
    return {
        "url": entry.where,
        "sha256": digest,
        "compared_with_a_published_hash": weights.known_hash is not None,
        "layout": layout,
    }
