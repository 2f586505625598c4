"""Which files of a repository are the weights of another program."""

import posixpath
from collections.abc import Iterable

from keras_vq.convert.weight_file import CONFIG_FILE, DIFFUSERS_FILES

FLAX_FILE = "flax_model.msgpack"
# What files of weights end in.
SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".msgpack")


def is_weight_file(name: str) -> bool:
    """Whether a file is one of weights, by its name."""
    return name.endswith(SUFFIXES)


def choose_files(names: Iterable[str], folder: str = "") -> list[str]:
    """The files of a folder that hold its one model, by their names alone.

    Args:
        names: All files of the repository, with their folders.
        folder: Which folder is meant, "" for the repository itself.

    Returns:
        config.json and the weights of diffusers, else Flax' weights, else the
        only file of weights. Empty if there is none, or more than one.
    """
    beside = {
        posixpath.basename(name)
        for name in names
        if posixpath.dirname(name) == folder
    }
    chosen = []
    weights = [name for name in DIFFUSERS_FILES if name in beside]
    if weights and CONFIG_FILE in beside:
        chosen = [CONFIG_FILE, weights[0]]
    elif FLAX_FILE in beside:
        chosen = [FLAX_FILE]
    else:
        files = [name for name in beside if is_weight_file(name)]
        chosen = files if len(files) == 1 else []
    return [posixpath.join(folder, name) for name in chosen]


def candidates(names: Iterable[str]) -> list[str]:
    """What a repository could be asked for: folders of diffusers, and files."""
    names = sorted(names)
    folders = {
        posixpath.dirname(name)
        for name in names
        if posixpath.basename(name) in DIFFUSERS_FILES
        and posixpath.join(posixpath.dirname(name), CONFIG_FILE) in names
    }
    files = [
        name
        for name in names
        if is_weight_file(name) and posixpath.dirname(name) not in folders
    ]
    return sorted(folders) + files
