"""`from_preset`: a model from a name, a directory or the Hub."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import keras

from keras_vq.presets.config import (
    apply_overrides,
    build_model,
    check_class,
    registered_class,
    set_dtype,
)
from keras_vq.presets.errors import (
    DamagedPresetError,
    PresetError,
    UnsafePresetError,
)
from keras_vq.presets.manifest import (
    CONFIG_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    check_fingerprint,
    missing_file,
)
from keras_vq.presets.parts import model_parts, part_file
from keras_vq.presets.source import (
    Source,
    fetched,
    open_source,
    published_path,
)
from keras_vq.presets.weights import read_weights


def load_preset(
    cls: type,
    preset: str | os.PathLike,
    load_weights: bool = True,
    dtype: Any = None,
    load_parts: bool = True,
    **overrides,
) -> keras.Model:
    """Build the model that a preset describes and load its weights.

    Nothing in a preset can run code, and no array is read before the whole
    file is known to fit the model; see `docs/presets.md`.

    Args:
        cls: The class that asks. A preset of this class or of a subclass
            of it is accepted.
        preset: A name of `list_presets()`, a directory written by
            `save_to_preset`, an address "hf://user/repository", with
            "/folder" or "/file" in it and with "@revision" for a commit, tag
            or branch, or weights of another program: a file, or a directory
            of diffusers, here or at such an address; see `docs/convert.md`.
        load_weights: `False` builds the same model freshly initialized.
        dtype: Optional dtype policy, such as "float32" or
            "mixed_bfloat16"; by default the one that was saved.
        load_parts: Whether to load the optional parts that the preset has,
            such as a discriminator. A part that it has not, or that is not
            loaded, is freshly initialized; so is one that is given as an
            argument (`discriminator=...`).
        **overrides: Arguments of the model to change. Those that change
            the shape of a weight need `load_weights=False`.

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If the preset is unknown, out of reach, damaged, not
            to be trusted, of another class, or made by a newer package.
        ConversionError: If weights of another program are damaged, not to
            be trusted, or of no known layout.

    Example:
    ```python
    model = keras_vq.models.VQVAE.from_preset("vqvae_cifar")
    codes = model.encode(images)
    ```
    """
    preset = fetched(preset, load_weights, load_parts)
    path = published_path(preset)
    if path is not None:
        from keras_vq.convert.loading import load_published

        return load_published(
            cls, path, load_weights, dtype, load_parts, overrides
        )
    while True:
        before = _stamp(preset)
        try:
            return _load(
                cls, preset, load_weights, dtype, load_parts, overrides
            )
        except DamagedPresetError:
            # Files of two presets do not fit each other. If this one was
            # replaced while it was read, the new one is there and whole.
            if _stamp(preset) == before:
                raise


def _stamp(preset) -> bytes | None:
    """What tells a directory's preset from one that replaces it."""
    try:
        return (pathlib.Path(preset).expanduser() / METADATA_FILE).read_bytes()
    except (OSError, RuntimeError, TypeError, ValueError):
        return None


def _load(cls, preset, load_weights, dtype, load_parts, overrides):
    source = open_source(preset, load_weights, load_parts)
    config = source.read_config()
    label = str(source.directory / CONFIG_FILE)
    target = registered_class(config, label)
    check_class(target, cls, preset)
    arguments = apply_overrides(target, config["config"], overrides)
    if dtype is not None:
        arguments = set_dtype(arguments, dtype)
    if not load_weights:
        return build_model(target, arguments, label)
    # Hashed and read through one handle: what was checked is what is read.
    path = source.directory / WEIGHTS_FILE
    with _open(path) as file:
        check_fingerprint(file, source.files[WEIGHTS_FILE], str(path))
        model = build_model(target, arguments, label)
        read_weights(model, file, str(path))
    parts = set(model_parts(model))
    loaded = _load_parts(model, source, overrides) if load_parts else set()
    if fresh := parts - loaded:
        model.fresh_parts = tuple(sorted(fresh))
    return model


def _load_parts(model: keras.Model, source: Source, given: Iterable) -> set:
    """Loads all but the given ones; returns the names of what it loaded."""
    loaded = set()
    for name, part in model_parts(model).items():
        if name in given:
            continue
        path = source.directory / part_file(name)
        expected = source.files.get(path.name)
        if expected is not None:
            with _open(path) as file:
                check_fingerprint(file, expected, str(path))
                _read_part(name, part, file, str(path))
            loaded.add(name)
        elif os.path.lexists(path):
            # Trained from the start again, and nobody would know.
            raise DamagedPresetError(
                f"{path} is there, but not among the published files of the "
                "preset, so that it cannot be checked. Fetch or save the "
                "preset again, or use `load_parts=False`."
            )
    return loaded


def _read_part(name, part, file, path) -> None:
    try:
        read_weights(part, file, path)
    except (DamagedPresetError, UnsafePresetError):
        raise
    except PresetError as error:
        raise PresetError(
            f"{error} To start with a fresh {name}, use `load_parts=False`."
        ) from error


def _open(path: pathlib.Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise missing_file(path) from error
