"""Optional parts of a model: what only training needs of it.

A model with a method `preset_parts()` names them, such as the discriminator
that a VQGAN was trained against. Each has a weight file of its own, so that a
preset can be published, downloaded and loaded without it.
"""

import re
from collections.abc import Iterable

import keras

from keras_vq.presets.errors import PresetError

# More than any model has; a hostile preset is not downloaded without end.
MAX_PARTS = 16

_SUFFIX = ".weights.h5"
_FILE = re.compile(rf"(?!model\.)([a-z][a-z0-9_]{{0,39}}){re.escape(_SUFFIX)}")


def model_parts(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """The optional parts that a model has, by name.

    Raises:
        PresetError: If a name cannot be that of a file, or one is no layer.
    """
    method = getattr(model, "preset_parts", None)
    parts = method() if callable(method) else {}
    parts = {name: part for name, part in parts.items() if part is not None}
    for name, part in parts.items():
        if not (
            isinstance(part, keras.layers.Layer)
            and part_name(part_file(name)) == name
        ):
            raise PresetError(
                "Expected `preset_parts()` to give Keras layers by names of "
                "lower-case letters, digits and underscores, other than "
                f"'model'. Received: {name!r}: {part!r}."
            )
    return parts


def part_file(name: str) -> str:
    """The file name of a part's weights."""
    return f"{name}{_SUFFIX}"


def part_name(file: str) -> str | None:
    """The part whose weights a file holds, by the file's name."""
    match = _FILE.fullmatch(file)
    return match and match[1]


def part_names(files: Iterable[str]) -> list[str]:
    """The parts among the files of a preset, in order."""
    return sorted(filter(None, map(part_name, files)))
