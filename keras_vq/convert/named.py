"""Published weights that have a name: fetched, checked and converted once.

Their files stay where their authors published them. The first `from_preset`
makes a preset of the file, in the cache, and whatever asks for the name from
then on finds that preset, without any connection.
"""

import pathlib

from keras_vq.convert.download import PublishedFile, cache_folder
from keras_vq.convert.errors import UnavailableFileError
from keras_vq.convert.loading import describe, load_published
from keras_vq.models import VQAutoencoder
from keras_vq.presets.errors import PresetError, PresetUnavailableError
from keras_vq.presets.manifest import METADATA_FILE
from keras_vq.presets.registry import PresetEntry
from keras_vq.presets.saving import save_preset


def converted(entry: PresetEntry) -> pathlib.Path:
    """The directory of the preset that was made of published weights.

    Args:
        entry: An entry of the registry, whose `where` is the address of a
            file, and whose `files` says its size and SHA-256.

    Raises:
        PresetUnavailableError: If the file is not here and cannot be fetched.
        DamagedFileError: If it is another one than was published.
    """
    ((name, expected),) = entry.files.items()
    file = PublishedFile(
        name, entry.where, expected["sha256"], expected["size"]
    )
    folder = cache_folder("presets")
    directory = folder / f"{entry.name}-{file.sha256[:12]}"
    if (directory / METADATA_FILE).is_file():
        return directory
    path = _fetched(entry, file, folder)
    arguments = entry.metadata.get("arguments", {})
    model = load_published(VQAutoencoder, path, overrides=dict(arguments))
    metadata = {
        **entry.metadata,
        "description": entry.description,
        "licence": entry.licence,
        "converted_from": {
            "url": entry.where,
            "sha256": file.sha256,
            "layout": describe(path).layout,
        },
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
        if not (directory / METADATA_FILE).is_file():
            raise
    return directory


def _fetched(entry, file, folder) -> pathlib.Path:
    path = folder / file.name
    if path.is_file():
        file.check(path)
        return path
    try:
        file.download(path)
    except UnavailableFileError as error:
        raise PresetUnavailableError(
            f"The weights of the preset {entry.name!r} are not here. {error} "
            f"Fetch {file.url} elsewhere ({file.size:,} bytes) and save it as "
            f"{path}."
        ) from error
    return path
