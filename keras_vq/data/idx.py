"""IDX files, the format of MNIST and the data sets made like it.

Reference:
    LeCun, Cortes and Burges, "The MNIST database", section "File formats".
"""

import gzip
import os
import struct
import zlib

import numpy as np

from keras_vq.data.sources import ArraySource


class IDXSource(ArraySource):
    """Images (and labels) of IDX files, plain or compressed with gzip.

    Args:
        images: Path of the images' file.
        labels: Path of the labels' file, or None.
    """

    def __init__(self, images, labels=None):
        pixels = read_idx(images, (3, 4))
        numbers = None if labels is None else read_idx(labels, (1,))
        if numbers is not None and len(numbers) != len(pixels):
            raise ValueError(
                "Images and labels do not belong together. Received: "
                f"{len(pixels)} images in {images} and {len(numbers)} labels "
                f"in {labels}."
            )
        super().__init__(pixels, numbers, name=os.fspath(images))


def read_idx(path, ranks: tuple[int, ...] = (1, 2, 3, 4)) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: The file; compressed with gzip or not, whatever its name is.
        ranks: How many dimensions it may have.

    Returns:
        A uint8 array.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Wrong magic number, wrong rank, truncated or too long.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Expected an IDX file. Received: {path!r}, which does not exist."
        )
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            return _read(file, path, ranks)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is truncated or damaged: {error}. Copy it anew."
        ) from None


def _read(file, path, ranks):
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00":
        raise ValueError(
            f"{path} is not an IDX file: it must start with two zero bytes. "
            f"Received: {magic!r}"
        )
    if magic[2] != 0x08:
        raise ValueError(
            f"{path} must hold unsigned bytes (type 0x08). Received: type "
            f"0x{magic[2]:02x}"
        )
    if magic[3] not in ranks:
        wanted = " or ".join(f"0x0000080{r}" for r in ranks)
        raise ValueError(
            f"{path} must have the magic number {wanted}. Received: "
            f"0x{magic.hex()}. Are the files of images and labels swapped?"
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{path} is truncated: it ends inside its header.")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    expected = int(np.prod(shape, dtype=object))
    content = _read_up_to(file, expected + 1)
    if len(content) != expected:
        received = f"{len(content)} bytes"
        if len(content) > expected:
            received = "more bytes than that"
        raise ValueError(
            f"{path} must hold {expected} bytes for its shape {shape}. "
            f"Received: {received}; the file is truncated or damaged."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_up_to(file, count):
    """Reads in pieces, so that a header's wild size allocates nothing."""
    pieces, left = [], count
    while left > 0:
        piece = file.read(min(left, 1 << 24))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
