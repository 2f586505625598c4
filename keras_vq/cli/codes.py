"""The file that `keras-vq encode` writes and `keras-vq decode` reads.

A NumPy archive without pickled objects, readable with `numpy.load`:

* `codes`: the indices, unsigned integers. Of shape (images, h, w) when all
  images have the same grid of codes, otherwise one long row in which the
  images follow each other.
* `grids`: the shape of each image's grid, int32 (images, axes).
* `sizes`: height and width of each image in pixels, int32 (images, 2).
* `names`: the file names.
* `info`: JSON with the format, the preset and the SHA-256 of its weights.
"""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np

from keras_vq.cli.errors import CommandError
from keras_vq.utils.files import atomic_path

FORMAT = "keras_vq.codes"
VERSION = 1


@dataclasses.dataclass
class CodeFile:
    """Codes of some images, and which model they belong to.

    Attributes:
        codes: for each image an integer array, its grid of codes.
        sizes: for each image (height, width) in pixels.
        names: for each image its file name.
        preset: name or folder of the preset that made the codes.
        weights_sha256: SHA-256 of the preset's weights.
    """

    codes: list[np.ndarray]
    sizes: list[tuple[int, int]]
    names: list[str]
    preset: str
    weights_sha256: str


def write_codes(path: Path, content: CodeFile, codebook_size: int) -> None:
    """Writes codes, in the smallest type that holds the whole codebook.

    Args:
        path: the file, which ends in .npz.
        content: what to write.
        codebook_size: number of codes of the model.
    """
    dtype = np.min_scalar_type(codebook_size - 1)
    grids = [codes.shape for codes in content.codes]
    if len(set(grids)) == 1:
        codes = np.stack(content.codes)
    else:
        codes = np.concatenate([codes.ravel() for codes in content.codes])
    info = {
        "format": FORMAT,
        "version": VERSION,
        "preset": content.preset,
        "weights_sha256": content.weights_sha256,
        "codebook_size": codebook_size,
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            codes=codes.astype(dtype),
            grids=np.array(grids, "int32"),
            sizes=np.array(content.sizes, "int32"),
            names=np.array(content.names, "str"),
            info=np.array(json.dumps(info)),
        )


def read_codes(path: Path) -> CodeFile:
    """Reads what `write_codes` wrote, and checks that it fits together."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        info = json.loads(str(arrays["info"]))
        if info["format"] != FORMAT:
            raise ValueError(f"format is {info['format']!r}")
    except FileNotFoundError as error:
        raise CommandError(f"there is no file {path}") from error
    except (
        AttributeError,  # np.load of a plain .npy file
        EOFError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise CommandError(
            f"{path} is no file of codes, or it is damaged. Expected what "
            "'keras-vq encode' writes"
        ) from error
    if info["version"] != VERSION:
        raise CommandError(
            f"{path} has version {info['version']} of the code file. "
            f"Expected: {VERSION}. Update keras_vq to read it"
        )
    return _split(path, arrays, info)


def _split(path: Path, arrays: dict, info: dict) -> CodeFile:
    try:
        grids = arrays["grids"].astype("int64")
        ends = np.cumsum(np.prod(grids, axis=1))
        codes = arrays["codes"].ravel()
        count = len(arrays["names"])
        fits = (
            codes.dtype.kind in "iu"
            and grids.min() > 0
            and arrays["sizes"].min() > 0
            and ends[-1] == len(codes)
            and len(grids) == count
            and arrays["sizes"].shape == (count, 2)
        )
        if not fits:
            raise ValueError("the arrays do not fit together")
        return CodeFile(
            codes=[
                part.reshape(grid)
                for part, grid in zip(
                    np.split(codes, ends[:-1]), grids, strict=True
                )
            ],
            sizes=[tuple(size) for size in arrays["sizes"].tolist()],
            names=[str(name) for name in arrays["names"]],
            preset=info["preset"],
            weights_sha256=info["weights_sha256"],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CommandError(
            f"{path} is damaged: codes, grids, sizes and names do not fit "
            "together. Encode the images again"
        ) from error
