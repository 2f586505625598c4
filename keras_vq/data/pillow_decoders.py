"""Picture formats decoded by Pillow, as the package's rule wants them.

Pillow forgives more than the rule does, and cuts 16 bits to 8. What is
needed beyond it stands here; the rest of the rule is in `decode`.
"""

import io
import struct
import zlib

import numpy as np

from keras_vq.data.headers import Header

# What an image is made of; all other chunks are left out before decoding.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def decode(data: bytes, header: Header) -> np.ndarray:
    """Decodes one picture.

    Args:
        data: The content of the file.
        header: What `read_header` found in it.

    Returns:
        uint8 or, of a PNG with 16 bits, uint16 `(height, width, 1 to 4)`.

    Raises:
        Exception: Of many kinds, if the picture is damaged.
    """
    # The plugins are called directly: `Image.open` has a cap of its own.
    image = _DECODERS[header.kind](data, header)
    return image[..., None] if image.ndim == 2 else image


def _jpeg(data, header):
    from PIL.JpegImagePlugin import JpegImageFile

    return _array(JpegImageFile(io.BytesIO(data)), "L" if header.grey else None)


def _array(image, mode=None):
    image.load()
    mode = mode or "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _png(data, header):
    from PIL.PngImagePlugin import PngImageFile

    image = PngImageFile(io.BytesIO(_checked_png(data)))
    if header.depth == 16:
        return _png_of_16_bits(data, image)
    if image.mode in ("1", "L"):
        image.load()
        _scale_transparency(image, header.depth)
        image = image if image.mode == "L" else _with_info(image, "L")
        return _array(image, "RGBA" if header.alpha else "L")
    return _array(image, "RGBA" if header.alpha else "RGB")


def _with_info(image, mode):
    info = dict(image.info)
    image.info.clear()
    converted = image.convert(mode)
    converted.info.update(info)
    return converted


def _scale_transparency(image, depth):
    """The transparent grey is stored in as few bits as the pixels are."""
    grey = image.info.get("transparency")
    if isinstance(grey, int):
        image.info["transparency"] = grey * 255 // ((1 << depth) - 1)


def _checked_png(data):
    """Returns the chunks that make the image, with their checksums checked."""
    kept, position = [data[:8]], 8
    while True:
        if position + 12 > len(data):
            raise ValueError("no end found")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in _PNG_CHUNKS:
            (stored,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(data[position + 4 : end - 4]) != stored:
                raise ValueError(f"wrong checksum of {kind.decode()}")
            kept.append(data[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end


def _png_of_16_bits(data, image):
    """Both bytes of each value, which Pillow can only read one by one.

    It takes the first of two bytes where they are said to be stored the
    larger one first, and the other where the smaller one is.
    """
    transparent = image.info.get("transparency")
    if image.mode == "I;16":
        pixels = np.asarray(image)[..., None]
    elif image.tile[0].args == "LA;16B":
        # Two values of two bytes are stored as four of one byte.
        parts = _png_bytes(data, "RGBA", "RGBA").astype(np.uint16)
        pixels = parts[..., ::2] << 8 | parts[..., 1::2]
    else:
        mode = image.mode
        high = _png_bytes(data, mode, f"{mode};16B").astype(np.uint16)
        pixels = high << 8 | _png_bytes(data, mode, f"{mode};16L")
    if transparent is None:
        return pixels
    visible = (pixels != np.asarray(transparent, np.uint16)).any(-1)
    alpha = np.where(visible, np.uint16(65535), np.uint16(0))[..., None]
    colours = pixels if pixels.shape[-1] == 3 else pixels.repeat(3, -1)
    return np.concatenate([colours, alpha], -1)


def _png_bytes(data, mode, raw_mode):
    from PIL.PngImagePlugin import PngImageFile

    image = PngImageFile(io.BytesIO(_checked_png(data)))
    image.info.pop("transparency", None)
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return np.asarray(image)


def _gif(data, header):
    from PIL.GifImagePlugin import GifImageFile

    # Ended behind its first frame, which bounds what is decoded.
    image = GifImageFile(io.BytesIO(data[: header.end] + b";"))
    left, top, right, bottom = image.tile[0].extents
    image.load()
    transparent = image.info.pop("transparency", None)
    shown = np.zeros((*image.size[::-1], 1), bool)
    shown[top:bottom, left:right] = True
    if transparent is not None:
        shown &= (np.asarray(image) != transparent)[..., None]
    return np.where(shown, _array(image), np.uint8(0))


def _bmp(data, header):
    from PIL.BmpImagePlugin import BmpImageFile

    # The fourth byte of a BMP is padding more often than alpha.
    image = BmpImageFile(io.BytesIO(data))
    image.load()
    return np.asarray(image)[..., :3]


def _webp(data, header):
    from PIL.WebPImagePlugin import WebPImageFile

    image = WebPImageFile(io.BytesIO(data))
    return _array(image, "RGBA" if header.alpha else "RGB")


_DECODERS = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
}
