"""`save_to_preset`: a complete preset directory, or none at all."""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from typing import Any

import keras

from keras_vq.presets.config import model_config
from keras_vq.presets.errors import PresetError
from keras_vq.presets.layout import dataset_groups
from keras_vq.presets.manifest import (
    CONFIG_FILE,
    FORMAT_VERSION,
    METADATA_FILE,
    WEIGHTS_FILE,
    fingerprint,
    read_manifest,
    write_json,
)
from keras_vq.presets.parts import model_parts, part_file
from keras_vq.presets.weights import write_weights
from keras_vq.utils.files import atomic_path, exchange
from keras_vq.version import __version__

# Fields of `metadata` that have a place of their own in metadata.json.
_NAMED_FIELDS = ("description", "licence", "data")


def save_preset(
    model: keras.Model,
    directory: str | os.PathLike,
    metadata: dict[str, Any] | None = None,
    float16: bool = False,
    overwrite: bool = False,
    include_parts: bool = True,
) -> None:
    """Write a model as a preset directory, all of it or nothing.

    The directory gets the layout of keras-hub: `config.json`,
    `model.weights.h5` and `metadata.json` with the size and SHA-256 of
    both. Parts that only training needs, such as a discriminator, are beside
    them in files of their own, `discriminator.weights.h5`. It is written beside
    its final place and moved there when it is complete and on the disk.
    Optimizers, step counters and metrics are not part of a preset; of a model
    that is trained with `weight_ema`, the averaged weights are saved. Paths of
    files on this machine are left out. The same model gives the same bytes.

    Args:
        model: A built model of a registered class.
        directory: Where to write. It must not exist or be empty.
        metadata: Optional facts about the preset, anything that JSON can
            hold. "description", "licence" and "data" are shown by
            `list_presets` and `preset_info`.
        float16: Whether to store floating-point weights in half precision:
            half the size, each value rounded to 11 bits. They are loaded
            into float32 variables again.
        overwrite: Whether a preset that is there already is replaced.
            Other files in it, such as a README, are kept.
        include_parts: Whether to save the model's optional parts. Without
            them the preset is smaller; a training that goes on from it starts
            with fresh ones.

    Raises:
        PresetError: If the directory holds something else, the model's
            class is not registered, a weight is NaN or infinite or too
            large for float16, or JSON cannot hold the metadata.

    Example:
    ```python
    model.save_to_preset("./my_preset", metadata={"licence": "CC0-1.0"})
    model = keras_vq.models.VQVAE.from_preset("./my_preset")
    ```
    """
    target = pathlib.Path(directory).expanduser().resolve()
    _check_target(target, overwrite)
    parts = model_parts(model) if include_parts else {}
    for whole in (model, *parts.values()):
        dataset_groups(whole)  # Refuses what cannot be saved whole.
    config = model_config(model, parts)
    metadata = _checked_metadata(metadata)
    manifest = _describe(model, parts, config, metadata, float16)
    weights = {part_file(name): part for name, part in parts.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(target, "tmp")
    temporary.mkdir()
    try:
        write_json(temporary / CONFIG_FILE, config)
        with _averaged_weights(model):
            for name, layer in {WEIGHTS_FILE: model, **weights}.items():
                write_weights(layer, temporary / name, float16)
        manifest["files"] = {
            name: fingerprint(temporary / name)
            for name in (CONFIG_FILE, WEIGHTS_FILE, *weights)
        }
        write_json(temporary / METADATA_FILE, manifest)
        _move_into_place(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def add_metadata(
    directory: str | os.PathLike, metadata: dict[str, Any]
) -> None:
    """Add facts to a preset that is there, such as what was measured of it.

    Args:
        directory: The preset's directory; its metadata.json is replaced, and
            nothing else.
        metadata: Facts, anything that JSON can hold.

    Raises:
        PresetError: If there is no preset, or JSON cannot hold the metadata.
    """
    directory = pathlib.Path(directory).expanduser().resolve()
    manifest = read_manifest(directory)
    metadata = _checked_metadata(metadata)
    for field in _NAMED_FIELDS:
        manifest[field] = metadata.pop(field, manifest.get(field, ""))
    manifest["metadata"] = {**manifest.get("metadata", {}), **metadata}
    with atomic_path(directory / METADATA_FILE) as temporary:
        write_json(temporary, manifest)


def _checked_metadata(metadata: dict | None) -> dict:
    try:
        return json.loads(json.dumps(dict(metadata or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PresetError(
            "Expected `metadata` to hold what JSON can: text, finite numbers, "
            f"lists and dicts. Received: {metadata!r} ({error})."
        ) from error


def _describe(model, parts, config, metadata, float16) -> dict:
    manifest = {
        "format_version": FORMAT_VERSION,
        "keras_version": keras.__version__,
        "keras_vq_version": __version__,
        "class": config["registered_name"],
        "parameter_count": model.count_params(),
        "dtype": "float16" if float16 else "float32",
    }
    if parts:
        manifest["parts"] = {
            name: {"parameter_count": part.count_params()}
            for name, part in parts.items()
        }
    for field in _NAMED_FIELDS:
        manifest[field] = metadata.pop(field, "")
    manifest["metadata"] = metadata
    return manifest


def _averaged_weights(model):
    context = getattr(model, "averaged_weights", None)
    return context() if callable(context) else contextlib.nullcontext()


def _check_target(target: pathlib.Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise PresetError(
            "Expected a directory to write a preset to. "
            f"Received: {target}, which is a file."
        )
    if not any(target.iterdir()):
        return
    try:
        read_manifest(target)
    except PresetError as error:
        raise PresetError(
            "Expected a new or empty directory, or a preset to replace. "
            f"Received: {target}, which holds other files."
        ) from error
    if not overwrite:
        raise PresetError(
            f"{target} holds a preset already. Pass `overwrite=True` to "
            "replace it, or choose another directory."
        )


def _sibling(target: pathlib.Path, mark: str) -> pathlib.Path:
    # Same file system, hence a rename; hidden, so that nobody lists it.
    name = f".{target.name}.{mark}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(name)


def _move_into_place(temporary: pathlib.Path, target: pathlib.Path) -> None:
    if not (target.is_dir() and any(target.iterdir())):
        _sync_directory(temporary)
        if target.is_dir():
            target.rmdir()  # Windows does not rename onto a directory.
        os.rename(temporary, target)
        _sync_directory(target.parent)
        return
    # A part that the new preset has not must not stay behind in it.
    old = {METADATA_FILE, *read_manifest(target)["files"]}
    for entry in target.iterdir():
        if entry.name not in old and not (temporary / entry.name).exists():
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, temporary / entry.name)
    _sync_directory(temporary)
    # At every moment there is a whole preset, whoever reads or kills.
    if exchange(temporary, target):
        _sync_directory(target.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        return
    # Where the system cannot, there is none for a moment, but both on the disk.
    old = _sibling(target, "old")
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(old, target)
        raise
    _sync_directory(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_directory(directory: pathlib.Path) -> None:
    if os.name != "posix":
        return  # Other systems have no handle for a directory.
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
