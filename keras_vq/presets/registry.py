"""The presets that this package knows by name.

`registry.json` is derived data: `python -m keras_vq.presets.pin NAME` writes
a preset's entry from its files, so that the hashes in it are those that were
published with the package.
"""

import dataclasses
import difflib
import functools
import importlib.util
import json
import pathlib

import keras

from keras_vq.presets.errors import PresetUnavailableError, UnknownPresetError
from keras_vq.presets.manifest import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE

REGISTRY_PATH = pathlib.Path(__file__).with_name("registry.json")

# `where` of a preset whose files are installed with the package.
BUNDLED = "bundled"


@dataclasses.dataclass(frozen=True)
class PresetEntry:
    """What the package knows about one preset.

    Attributes:
        name: What `from_preset` is given.
        class_name: The registered name of its model, "keras_vq>VQVAE".
        description: One or two sentences for `list_presets`.
        where: "bundled", or an address "hf://user/repo@revision", or that of
            a file, "https://...". What is there and no preset of this package
            is converted.
        parameters: Number of parameters.
        licence: Licence of the weights, and the terms of the data.
        files: `{"sha256": ..., "size": ...}` of each file, by name. Of
            published weights, each of the two, and `git_blob`, which git
            knows the file by, may be "unknown" or missing.
        metadata: Everything else that the preset says about itself; of
            published weights `state`, what was verified, and `arguments`,
            those that the file does not tell.
        parts: Numbers of parameters of its optional parts, by name.
        alias_of: The entry that this is another name of, or nothing.
    """

    name: str
    class_name: str
    description: str
    where: str
    parameters: int
    licence: str
    files: dict
    metadata: dict
    parts: dict = dataclasses.field(default_factory=dict)
    alias_of: str = ""

    @property
    def is_converted(self) -> bool:
        """Whether it is made of weights that another program wrote."""
        return self.where != BUNDLED and METADATA_FILE not in self.files

    @property
    def directory(self) -> pathlib.Path:
        """Where a bundled preset's files are.

        Raises:
            PresetUnavailableError: If they were not installed.
        """
        tried = bundled_directories(self.name)
        for directory in tried:
            names = {CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE, *self.files}
            if all((directory / name).is_file() for name in names):
                return directory
        raise PresetUnavailableError(
            f"The files of the preset {self.name!r} are not installed. "
            f"Looked in: {[str(path) for path in tried]}. Install the "
            "package anew, or clone its repository with all files."
        )

    @property
    def available(self) -> bool:
        """Whether the files are there or can be downloaded."""
        if self.where != BUNDLED:
            return True
        try:
            return self.directory.is_dir()
        except PresetUnavailableError:
            return False


def list_presets(cls: type | None = None) -> dict[str, str]:
    """The pretrained models that can be loaded by name.

    Args:
        cls: Optional model class; only presets that its `from_preset`
            accepts are listed.

    Returns:
        Descriptions by name: what to give to `from_preset`, and what it
        is. Only presets whose files are there or can be downloaded.

    Example:
    ```python
    for name, description in keras_vq.list_presets().items():
        print(name, description)
    ```
    """
    listed = {}
    for name, entry in sorted(registry().items()):
        if cls is not None:
            found = keras.saving.get_registered_object(entry.class_name)
            if not (isinstance(found, type) and issubclass(found, cls)):
                continue
        if entry.available:
            listed[name] = entry.description
    return listed


def preset_info(name: str) -> dict:
    """Everything that is known about a preset without loading it.

    Args:
        name: One of `list_presets()`.

    Returns:
        The fields of the registry's entry: name, class_name, description,
        where, parameters, licence, files (with SHA-256 and size), metadata,
        parts (numbers of parameters by name) and alias_of.

    Raises:
        UnknownPresetError: If there is no preset of that name.
    """
    return dataclasses.asdict(get_entry(name))


def get_entry(name: str) -> PresetEntry:
    """The registry's entry, or an error that lists the known names."""
    entries = registry()
    if name in entries:
        return entries[name]
    known = sorted(list_presets())
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if name in unpublished_recipes():
        hint = (
            " It is a recipe whose weights nobody has published: train it "
            f"with `keras-vq train {name}`."
        )
    raise UnknownPresetError(
        f"There is no preset {name!r}.{hint} Known presets: {known}. "
        "Expected one of them, a preset directory (such as "
        '"./my_preset") or "hf://user/repository". '
        f"Received: {name!r}."
    )


def registry() -> dict[str, PresetEntry]:
    """All entries by name."""
    return _read_registry(REGISTRY_PATH)


@functools.lru_cache(maxsize=4)
def _read_registry(path: pathlib.Path) -> dict[str, PresetEntry]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: _read_entry(name, content) for name in content}


def _read_entry(name, content) -> PresetEntry:
    """An entry; one with `alias_of` says only what differs."""
    fields = content[name]
    inherited = content.get(fields.get("alias_of"), {})
    metadata = {**inherited.get("metadata", {}), **fields.get("metadata", {})}
    return PresetEntry(
        name=name, **{**inherited, **fields, "metadata": metadata}
    )


def unpublished_recipes() -> list[str]:
    """Names of the recipes that are installed and have no weights yet."""
    names = {
        path.parent.name
        for root in _application_folders()
        for path in root.glob("*/recipe.py")
    }
    return sorted(names - set(registry()))


def bundled_directories(name: str) -> list[pathlib.Path]:
    """Folders that may hold a bundled preset, the most likely first."""
    directories = [root / name / "preset" for root in _application_folders()]
    return list(dict.fromkeys(directories))


def _application_folders() -> list[pathlib.Path]:
    roots = []
    # Found without importing the recipes, whose own imports cost time.
    spec = importlib.util.find_spec("keras_vq.applications")
    if spec is not None:
        roots += spec.submodule_search_locations or []
    # A checkout on the path that was never installed.
    roots.append(pathlib.Path(__file__).parents[2] / "applications")
    return [pathlib.Path(root) for root in roots]
