"""From what the user names to a local directory with checked files."""

import dataclasses
import os
import pathlib

from keras_vq.presets import hub
from keras_vq.presets.config import check_config, without_local_paths
from keras_vq.presets.errors import PresetError, UnknownPresetError
from keras_vq.presets.manifest import (
    CONFIG_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    check_path,
    read_json,
    read_manifest,
)
from keras_vq.presets.registry import BUNDLED, get_entry, registry


@dataclasses.dataclass(frozen=True)
class Source:
    """A preset on this machine.

    Attributes:
        directory: Where its files are.
        manifest: The content of its metadata.json.
        files: Published size and SHA-256 of its files: the registry's for
            a preset known by name, else what metadata.json says.
    """

    directory: pathlib.Path
    manifest: dict
    files: dict

    def read_config(self) -> dict:
        """config.json, once its hash is checked and all it names is safe."""
        path = self.directory / CONFIG_FILE
        check_path(path, self.files[CONFIG_FILE])
        config = read_json(path)
        check_config(config, source=str(path))
        return without_local_paths(config)


def open_source(
    preset: str | os.PathLike,
    load_weights: bool = True,
    load_parts: bool = True,
) -> Source:
    """Find a preset's files; hashes of the large ones are not checked yet.

    Args:
        preset: A name of `list_presets()`, a directory, or an address
            "hf://user/repository[@revision]".
        load_weights: Whether the weight files are needed.
        load_parts: Whether those of optional parts are.
    """
    load_parts = load_weights and load_parts
    if isinstance(preset, os.PathLike):
        return _open_directory(pathlib.Path(preset))
    if not isinstance(preset, str) or not preset:
        raise UnknownPresetError(
            "Expected the name of a preset, a directory or "
            f'"hf://user/repository". Received: {preset!r}.'
        )
    if preset.startswith(hub.HUB_PREFIX):
        return _open_directory(hub.fetch(preset, load_weights, load_parts))
    if "://" in preset:
        raise PresetError(
            'Expected an address of the form "hf://user/repository". '
            f"Received: {preset!r}. Download other presets to a directory "
            "and give its path."
        )
    if preset in registry():
        return _open_entry(preset, load_weights, load_parts)
    path = pathlib.Path(preset).expanduser()
    is_path = os.sep in preset or preset[0] in ".~"
    if path.is_dir() or is_path or path.exists():
        return _open_directory(path)
    get_entry(preset)  # Raises the error that lists the known names.
    raise AssertionError(preset)


def fetched(
    preset: str | os.PathLike, load_weights: bool, load_parts: bool
) -> str | os.PathLike:
    """The local path of what an address of the Hub means.

    Anything else is given back as it is.
    """
    if isinstance(preset, str) and preset.startswith(hub.HUB_PREFIX):
        return hub.fetch(preset, load_weights, load_weights and load_parts)
    return preset


def published_path(preset: str | os.PathLike) -> pathlib.Path | None:
    """The path of weights of another program, None for anything else."""
    from keras_vq.convert.weight_file import is_diffusers_directory

    if isinstance(preset, str):
        if not preset or "://" in preset or preset in registry():
            return None
        preset = os.path.expanduser(preset)
    elif not isinstance(preset, os.PathLike):
        return None
    path = pathlib.Path(preset)
    try:
        if path.is_dir():
            is_preset = (path / METADATA_FILE).exists()
            is_published = not is_preset and is_diffusers_directory(path)
        else:
            is_published = path.is_file()
    except (OSError, ValueError):  # Too long a name, or no text for a path.
        return None
    return path if is_published else None


def verify(preset: str | os.PathLike) -> dict[str, str]:
    """Check every file of a preset without building the model.

    Sizes and SHA-256 of all files are compared with the registry (for a
    preset known by name) or with its metadata.json, and config.json must
    name nothing but known classes.

    Args:
        preset: A name of `list_presets()`, a directory, or an address
            "hf://user/repository[@revision]".

    Returns:
        The SHA-256 of each file, by name.

    Raises:
        PresetError: If a file is missing, damaged or not to be trusted.

    Example:
    ```python
    keras_vq.presets.verify("./my_preset")
    ```
    """
    source = open_source(preset)
    source.read_config()
    for name, expected in source.files.items():
        check_path(source.directory / name, expected)
    return {name: entry["sha256"] for name, entry in source.files.items()}


def _open_entry(name: str, load_weights: bool, load_parts: bool) -> Source:
    entry = get_entry(name)
    if entry.where == BUNDLED:
        directory = entry.directory
    elif entry.is_converted:
        from keras_vq.convert.named import converted

        return _open_directory(converted(entry))
    else:
        directory = hub.fetch(entry.where, load_weights, load_parts)
    check_path(directory / METADATA_FILE, entry.files[METADATA_FILE])
    manifest = read_manifest(directory)
    return Source(directory, manifest, entry.files)


def _open_directory(directory: pathlib.Path) -> Source:
    if not directory.is_dir():
        state, hint = "does not exist", ""
        if directory.exists():
            state = "is not a directory"
            hint = (
                " `keras-vq convert` makes one of weights of another program."
            )
        raise UnknownPresetError(
            f"{directory} {state}. Expected a preset directory with "
            f"{CONFIG_FILE}, {METADATA_FILE} and {WEIGHTS_FILE}.{hint}"
        )
    manifest = read_manifest(directory)
    return Source(directory, manifest, manifest["files"])
