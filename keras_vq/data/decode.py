"""Encoded pictures to uint8 arrays, by one written rule."""

import numpy as np

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
    import tensorflow as tf

    ops = tf.raw_ops
    try:
        with tf.device("CPU:0"):
            if header.kind == "jpeg":
                # The accurate DCT is what every other reader uses.
                image = ops.DecodeJpeg(
                    contents=data,
                    channels=1 if header.grey else 3,
                    dct_method="INTEGER_ACCURATE",
                )
            elif header.kind == "png":
                image = ops.DecodePng(
                    contents=data,
                    channels=4 if header.alpha else 0,
                    dtype=tf.uint16 if header.depth == 16 else tf.uint8,
                )
            elif header.kind == "bmp":
                # The fourth byte of a BMP is padding more often than alpha.
                return ops.DecodeBmp(contents=data).numpy()[..., :3]
            else:
                image = ops.DecodeImage(
                    contents=_decodable(data, header),
                    channels=4 if header.alpha else 3,
                    expand_animations=False,
                )
            return image.numpy()
    except tf.errors.ResourceExhaustedError:
        raise  # The machine's fault, not the picture's.
    except tf.errors.OpError as error:
        reason = error.message.split("} ", 1)[-1].split(" [Op:")[0]
        raise ImageError(
            f"{name} cannot be decoded as {header.kind.upper()}; the file is "
            f"damaged or truncated ({reason}). Get it anew, or take it out."
        ) from None


def _decodable(data, header):
    """Returns the data of a GIF or WebP so that TensorFlow decodes it.

    Of a GIF it would decode all frames, which no cap on the pixels bounds, so
    the file is made to end after the first.

    An animated WebP is only decoded with four channels, and those only where
    the header's bit for transparency (0x10) is set; frames without it are
    opaque.
    """
    if header.kind == "gif":
        return data[: header.end] + b";"
    if data[12:16] == b"VP8X" and data[20] & 0x02:
        return data[:20] + bytes([data[20] | 0x10]) + data[21:]
    return data


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
