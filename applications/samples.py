"""Sheets of sample images, which may be shipped: see `samples/README.md`."""

import pathlib

import numpy as np

from keras_vq.data import decode_image


def load_samples(application: str, size: int) -> np.ndarray:
    """Cuts the sheet of an application.

    Args:
        application: Name of the application.
        size: Integer, pixels of a side of its samples.

    Returns:
        uint8 array of shape `(count, size, size, 3)`.
    """
    folder = pathlib.Path(__file__).with_name(application)
    data = (folder / "samples" / "samples.png").read_bytes()
    sheet = decode_image(data)
    rows, columns = sheet.shape[0] // size, sheet.shape[1] // size
    tiles = sheet.reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return tiles.reshape(-1, size, size, 3)
