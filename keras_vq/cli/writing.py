"""Where results go, and what they must not destroy."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from keras_vq.cli.errors import CommandError


def png_names(names: Sequence[str]) -> list[str]:
    """Gives every image a name of its own that ends in .png.

    `cat.jpg` becomes `cat.png`; where another file would get the same name
    (`cat.jpg` beside `cat.png`), both keep their whole name: `cat.jpg.png`.
    """
    short = [PurePosixPath(name).with_suffix(".png") for name in names]
    # Compared without case: many file systems do not tell Cat from cat.
    keys = [str(name).lower() for name in short]
    return [
        str(short[index]) if keys.count(key) == 1 else names[index] + ".png"
        for index, key in enumerate(keys)
    ]


def check_outputs(
    outputs: Sequence[Path], overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Refuses to write where something would be lost.

    Args:
        outputs: the files that are going to be written.
        overwrite: whether existing ones may be replaced.
        inputs: files that must never be replaced.
    """
    sources = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in sources:
            raise CommandError(
                f"{path} is one of the images to read and would be replaced "
                "by the result. Write to another folder"
            )
    folder = next((path for path in outputs if path.is_dir()), None)
    if folder is not None:
        raise CommandError(
            f"{folder} is a folder, and a file of that name has to be written"
        )
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise CommandError(
            f"{there[0]}{others} exists already. Add --overwrite to replace "
            "it, or choose another name"
        )
    # Now, not after the minutes that the first result takes.
    for folder in {path.parent for path in outputs}:
        _check_folder(folder)


def _check_folder(folder: Path) -> None:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise CommandError(
            f"expected a folder to write to. Received: {there}, a file"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise CommandError(
            f"you may not write to the folder {there}. Choose another one"
        )


def inside(folder: Path, name: str) -> Path:
    """Joins a folder and a name from a file, which must stay inside of it."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or ":" in parts[0] or parts[0] == "/":
        raise CommandError(
            f"expected the name of a file below {folder}. Received: {name!r}"
        )
    return folder.joinpath(*parts)
