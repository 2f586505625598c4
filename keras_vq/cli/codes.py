"""The file that `keras-vq encode` writes and `keras-vq decode` reads.

A NumPy archive without pickled objects, readable with `numpy.load`:

* `codes`: the indices, unsigned integers. Of shape (images, h, w) when all
  images have the same grid of codes, otherwise one long row in which the
  images follow each other.
* `grids`: the shape of each image's grid, int32 (images, axes).
  Of a preset with several levels `codes_1` and `grids_1` are the coarsest,
  then come `codes_2` and `grids_2`, and so on.
* `sizes`: height and width of each image in pixels, int32 (images, 2).
* `names`: the file names.
* `info`: JSON with the format, the preset, the SHA-256 of its weights, and the
  number of codes of its codebook, or of each level's.
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
        codes: for each image a list of integer arrays, its grids of codes of
            all levels, coarse to fine.
        sizes: for each image (height, width) in pixels.
        names: for each image its file name.
        preset: name or folder of the preset that made the codes.
        weights_sha256: SHA-256 of the preset's weights.
    """

    codes: list[list[np.ndarray]]
    sizes: list[tuple[int, int]]
    names: list[str]
    preset: str
    weights_sha256: str


def write_codes(
    path: Path, content: CodeFile, codebook_sizes: list[int]
) -> None:
    """Writes codes, in the smallest type that holds the whole codebook.

    Args:
        path: the file, which ends in .npz.
        content: what to write.
        codebook_sizes: number of codes of each level of the model.
    """
    arrays = {}
    for level, size in enumerate(codebook_sizes):
        suffix = _suffix(level, len(codebook_sizes))
        maps = [codes[level] for codes in content.codes]
        grids = [codes.shape for codes in maps]
        if len(set(grids)) == 1:
            codes = np.stack(maps)
        else:
            codes = np.concatenate([codes.ravel() for codes in maps])
        dtype = np.min_scalar_type(size - 1)
        arrays[f"codes{suffix}"] = codes.astype(dtype)
        arrays[f"grids{suffix}"] = np.array(grids, "int32")
    info = {
        "format": FORMAT,
        "version": VERSION,
        "preset": content.preset,
        "weights_sha256": content.weights_sha256,
        "codebook_size": (
            codebook_sizes if len(codebook_sizes) > 1 else codebook_sizes[0]
        ),
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            **arrays,
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


def _suffix(level: int, levels: int) -> str:
    return "" if levels == 1 else f"_{level + 1}"


def _split(path: Path, arrays: dict, info: dict) -> CodeFile:
    try:
        count = len(arrays["names"])
        size = info.get("codebook_size")
        levels = len(size) if isinstance(size, list) else 1
        suffixes = [_suffix(level, levels) for level in range(levels)]
        maps = [
            _maps(arrays[f"codes{suffix}"], arrays[f"grids{suffix}"], count)
            for suffix in suffixes
        ]
        sizes = arrays["sizes"]
        if not (maps and sizes.min() > 0 and sizes.shape == (count, 2)):
            raise ValueError("the arrays do not fit together")
        return CodeFile(
            codes=[list(codes) for codes in zip(*maps, strict=True)],
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


def _maps(codes, grids, count: int) -> list[np.ndarray]:
    """The grids of codes of all images on one level."""
    grids = grids.astype("int64")
    ends = np.cumsum(np.prod(grids, axis=1))
    codes = codes.ravel()
    fits = (
        codes.dtype.kind in "iu"
        and grids.min() > 0
        and ends[-1] == len(codes)
        and len(grids) == count
    )
    if not fits:
        raise ValueError("the arrays do not fit together")
    parts = np.split(codes, ends[:-1])
    return [part.reshape(grid) for part, grid in zip(parts, grids, strict=True)]
