"""Sheets of images, and PNG files without Pillow."""

import math
import os
import struct
import zlib
from typing import Any

import numpy as np

from keras_vq.utils.files import atomic_path


def to_uint8(images: Any) -> np.ndarray:
    """Converts images in [-1, 1] to bytes; bytes pass unchanged.

    Values outside of [-1, 1] are clipped, the others rounded to the nearest of
    the 256 levels. NaN becomes 0 (black).

    Args:
        images: array or tensor of any shape, floating point in [-1, 1] or
            uint8 in [0, 255].

    Returns:
        A NumPy array of the same shape, uint8.
    """
    images = _to_numpy(images)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind in "biu":
        raise ValueError(
            "Images are either uint8 in [0, 255] or floating point in "
            f"[-1, 1]. Received: dtype={images.dtype}"
        )
    images = np.clip(images.astype("float32"), -1.0, 1.0)
    images = np.nan_to_num(images, nan=-1.0)
    return np.rint((images + 1.0) * 127.5).astype("uint8")


def image_grid(
    images: Any,
    columns: int | None = None,
    padding: int = 2,
    scale: int | None = 1,
    background: int = 255,
) -> np.ndarray:
    """Arranges a batch of images on one sheet, row by row.

    Args:
        images: array or tensor of shape (batch, height, width, channels) with
            1 or 3 channels, floating point in [-1, 1] or uint8.
        columns: images in a row; None makes the sheet about square.
        padding: pixels between images and around the sheet.
        scale: whole number by which every pixel is repeated, so that small
            images stay sharp (nearest neighbour). None enlarges images whose
            longer side is below 64 pixels to about that size.
        background: grey level of the padding, 0 to 255.

    Returns:
        uint8 array of shape (sheet height, sheet width, channels).

    Example:
    ```python
    sheet = keras_vq.utils.image_grid(images[:16], columns=4, scale=2)
    keras_vq.utils.write_png("sheet.png", sheet)
    ```
    """
    images = _check_batch(to_uint8(images))
    count = len(images)
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    if columns < 1 or padding < 0:
        raise ValueError(
            "`columns` must be at least 1 and `padding` at least 0. "
            f"Received: columns={columns}, padding={padding}"
        )
    columns = min(columns, count)
    images = _enlarge(images, scale)
    height, width, channels = images.shape[1:]
    rows = math.ceil(count / columns)
    sheet = np.full(
        (
            rows * (height + padding) + padding,
            columns * (width + padding) + padding,
            channels,
        ),
        background,
        dtype="uint8",
    )
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top = padding + row * (height + padding)
        left = padding + column * (width + padding)
        sheet[top : top + height, left : left + width] = image
    return sheet


def comparison_grid(
    originals: Any,
    reconstructions: Any,
    columns: int = 8,
    padding: int = 2,
    scale: int | None = 1,
    background: int = 255,
) -> np.ndarray:
    """Arranges originals above their reconstructions on one sheet.

    Every row of originals is followed by the row of its reconstructions; pairs
    of rows are set apart by three times the padding.

    Args:
        originals: array or tensor of shape (batch, height, width, channels).
        reconstructions: the same shape as `originals`.
        columns: pairs next to each other.
        padding: see `image_grid`.
        scale: see `image_grid`.
        background: see `image_grid`.

    Returns:
        uint8 array of shape (sheet height, sheet width, channels).
    """
    originals = _check_batch(to_uint8(originals))
    reconstructions = _check_batch(to_uint8(reconstructions))
    if originals.shape != reconstructions.shape:
        raise ValueError(
            "`originals` and `reconstructions` must have the same shape. "
            f"Received: {originals.shape} and {reconstructions.shape}"
        )
    columns = max(1, min(columns, len(originals)))
    blocks = []
    for start in range(0, len(originals), columns):
        part = slice(start, start + columns)
        pair = [originals[part], reconstructions[part]]
        if len(pair[0]) < columns:
            pair = [_fill_row(row, columns, background) for row in pair]
        block = image_grid(
            np.concatenate(pair), columns, padding, scale, background
        )
        if blocks:
            blocks.append(np.full_like(block[:padding], background))
        blocks.append(block)
    return np.concatenate(blocks)


def first_images(images: Any, max_images: int | None = None) -> np.ndarray:
    """Takes a few images out of whatever holds some.

    Args:
        images: array or tensor of shape (batch, height, width, channels),
            floating point in [-1, 1] or uint8, or an iterable (such as a
            `tf.data.Dataset`) of such batches or of (images, anything), whose
            first batch is taken.
        max_images: take at most that many.

    Returns:
        float32 array of shape (batch, height, width, channels) in [-1, 1].
    """
    if not hasattr(images, "shape"):
        images = next(iter(images), None)
        if isinstance(images, tuple | list):
            images = images[0]
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            "Expected images of shape (batch, height, width, channels), or a "
            "dataset of such batches. Received: "
            f"{type(images).__name__} of shape {shape}"
        )
    images = _to_numpy(images[:max_images])
    if images.dtype == np.uint8:
        return images.astype("float32") / 127.5 - 1.0
    return images.astype("float32")


def encode_png(image: Any) -> bytes:
    """Encodes one image as PNG, without loss.

    Args:
        image: array of shape (height, width, channels) with 1 to 4 channels,
            uint8 or floating point in [-1, 1].

    Returns:
        The content of the PNG file.
    """
    image = to_uint8(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 2, 3, 4):
        raise ValueError(
            "A PNG file holds one image of shape (height, width, channels) "
            f"with 1 to 4 channels. Received: shape={image.shape}"
        )
    height, width, channels = image.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    size = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", size)
        + _png_chunk(b"IDAT", zlib.compress(_png_rows(image), 9))
        + _png_chunk(b"IEND", b"")
    )


def _png_rows(image):
    """The rows, each as the differences from the one above it (filter 2)."""
    rows = image.reshape(len(image), -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filters = np.full((len(rows), 1), 2, np.uint8)
    return np.concatenate([filters, rows - above], axis=1).tobytes()


def _png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return (
        struct.pack(">I4s", len(content), kind)
        + content
        + struct.pack(">I", checksum)
    )


def write_png(path: str | os.PathLike, image: Any) -> None:
    """Writes one image as a PNG file that is complete or not there.

    Args:
        path: the file; an existing one is replaced.
        image: see `encode_png`.
    """
    content = encode_png(image)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _to_numpy(images: Any) -> np.ndarray:
    if isinstance(images, np.ndarray | list | tuple):
        return np.asarray(images)
    import keras

    return keras.ops.convert_to_numpy(images)


def _check_batch(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or not images.size or images.shape[-1] not in (1, 3):
        raise ValueError(
            "Expected at least one image, in an array of shape (batch, height, "
            "width, channels) with 1 or 3 channels. "
            f"Received: shape={images.shape}"
        )
    return images


def _enlarge(images: np.ndarray, scale: int | None) -> np.ndarray:
    if scale is None:
        scale = max(1, round(64 / max(images.shape[1:3])))
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(
            f"`scale` must be a whole number >= 1. Received: scale={scale}"
        )
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def _fill_row(row: np.ndarray, columns: int, background: int) -> np.ndarray:
    missing = (columns - len(row), *row.shape[1:])
    return np.concatenate([row, np.full(missing, background, dtype="uint8")])
