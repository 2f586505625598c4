"""Encoded pictures to uint8 arrays, by one written rule."""

import contextlib

import numpy as np

from keras_vq.data import pillow_decoders, tf_decoders
from keras_vq.data.engine import is_tensorflow
from keras_vq.data.errors import ImageError
from keras_vq.data.headers import Header, read_header

MAX_PIXELS = 2**26


def decode_image(
    data: bytes,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    name: str = "The picture",
) -> np.ndarray:
    """Decodes a JPEG, PNG, GIF, BMP or WebP by the package's rule.

    * Grey becomes three equal channels; colour becomes grey as
      `(19595 R + 38470 G + 7471 B + 32768) >> 16` (ITU-R 601, as Pillow).
    * Transparent parts are laid over white.
    * 16 bits become 8 by `round(value / 257)`, never by cutting.
    * CMYK and YCCK JPEGs are converted to RGB, without a colour profile; no
      other colour profile is applied either.
    * Of an animated file the first frame is taken. A GIF's own transparent
      parts come as the decoder fills them (black).
    * The EXIF orientation is applied, so that a photo stands upright.
    * Paletted BMP, TIFF, JPEG XL and the rest are refused.

    Args:
        data: The content of the file.
        channels: 1 or 3.
        max_pixels: Pictures with more pixels are refused before they are
            decoded (a small file can fill the memory).
        name: What to call the picture in an error message.

    Returns:
        A uint8 array `(height, width, channels)`.

    Raises:
        ImageError: If the picture cannot be decoded. The message holds
            `name` and the reason.

    Example:
    ```python
    image = keras_vq.data.decode_image(open("photo.jpg", "rb").read())
    ```
    """
    if channels not in (1, 3):
        raise ValueError(
            "`channels` of a picture file must be 1 or 3. "
            f"Received: channels={channels}"
        )
    header = read_header(data, name)
    if header.height * header.width > max_pixels:
        raise ImageError(
            f"{name} has {header.height}x{header.width} pixels, more than "
            f"max_pixels={max_pixels}. Make it smaller, or raise "
            "`max_pixels`."
        )
    image = _decode(data, header, name)
    image = to_channels(_without_alpha(_to_8_bit(image)), channels, name)
    return _upright(image, header.orientation)


def _decode(data, header: Header, name):
    try:
        if is_tensorflow("Decoding a picture", "pillow"):
            return tf_decoders.decode(data, header)
        with _failures_are_value_errors():
            return pillow_decoders.decode(data, header)
    except ValueError as error:
        raise ImageError(
            f"{name} cannot be decoded as {header.kind.upper()}; the file is "
            f"damaged or truncated ({error}). Get it anew, or take it out."
        ) from None


@contextlib.contextmanager
def _failures_are_value_errors():
    """Damage makes Pillow fail in many ways, which its own docs do not list."""
    try:
        yield
    except (ImportError, MemoryError):
        raise  # The machine's fault, not the picture's.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _to_8_bit(image):
    if image.dtype == np.uint16:
        image = (image.astype(np.uint32) + 128) // 257
    return image.astype(np.uint8, copy=False)


def _without_alpha(image):
    if image.shape[-1] not in (2, 4):
        return image
    alpha = image[..., -1:].astype(np.uint32)
    colour = image[..., :-1].astype(np.uint32)
    white = colour * alpha + 255 * (255 - alpha)
    return ((white + 127) // 255).astype(np.uint8)


def to_channels(image: np.ndarray, channels: int, name: str) -> np.ndarray:
    """Converts between grey and colour; other counts must agree.

    Args:
        image: uint8 `(..., c)`.
        channels: The wanted count.
        name: What to call the picture in an error message.
    """
    found = image.shape[-1]
    if found == channels:
        return image
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if found == 3 and channels == 1:
        weights = np.array([19595, 38470, 7471], np.uint32)
        grey = (image.astype(np.uint32) @ weights + 32768) >> 16
        return grey.astype(np.uint8)[..., None]
    raise ImageError(
        f"{name} has {found} channels, and there is no rule that makes "
        f"channels={channels} of them."
    )


def _upright(image, orientation):
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
