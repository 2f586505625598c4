"""Sheets of sample images, which may be shipped: see `samples/README.md`."""

import pathlib

import numpy as np


def load_samples(application: str, size: int) -> np.ndarray:
    """Cuts the sheet of an application.

    Args:
        application: Name of the application.
        size: Integer, pixels of a side of its samples.

    Returns:
        uint8 array of shape `(count, size, size, 3)`.
    """
    import tensorflow as tf

    folder = pathlib.Path(__file__).with_name(application)
    data = (folder / "samples" / "samples.png").read_bytes()
    sheet = tf.io.decode_png(data, channels=3).numpy()
    rows, columns = sheet.shape[0] // size, sheet.shape[1] // size
    tiles = sheet.reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return tiles.reshape(-1, size, size, 3)
