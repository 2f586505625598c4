"""Small pictures and files that the data tests share."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def noise(height=24, width=30, channels=3, seed=0):
    """Smoothed noise: detail at several scales, no flat parts."""
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (height, width, channels)).astype(float)
    smooth = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1)) / 3
    return smooth.astype(np.uint8)


def encode(image, kind, **options):
    """Encodes with Pillow; `image` is an array or a Pillow image."""
    if isinstance(image, np.ndarray):
        grey = image.shape[-1] == 1
        image = Image.fromarray(image[..., 0] if grey else image)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    """Writes a PNG by hand, for kinds that Pillow cannot write."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + (struct.pack(">I", checksum))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)  # filter "none"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(k, c) for k, c in chunks)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )
