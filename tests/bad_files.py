"""Picture files that are odd or bad, each made of one real picture.

`KINDS` is the catalogue: what each kind is called in docs/data.md, how it is
made, and which reason it is refused with (None: it is accepted).
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import skimage.data
from PIL import Image, ImageOps

from keras_vq.data.examples import serialize_example
from keras_vq.data.tfrecord import TFRecordSource
from keras_vq.data.tfrecord import write_records as _write_records


@dataclasses.dataclass(frozen=True)
class Kind:
    row: str
    make: Callable[[np.ndarray], bytes]
    refused: str | None
    suffix: str = ".jpg"

    @property
    def slug(self):
        return "".join(c if c.isalnum() else "_" for c in self.row.lower())


def real_picture(data_dir=None):
    """A 64x64 photograph: tiny ImageNet's first, or scikit-image's."""
    if data_dir is None:
        return np.ascontiguousarray(
            skimage.data.astronaut()[60:188:2, 160:288:2]
        )
    path = data_dir / "tiny_imagenet" / "val.tfrecord"
    data = TFRecordSource(path).read_bytes(0)[0]
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(image, kind, mode=None, **options):
    image = Image.fromarray(image)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, content):
    body = kind + content
    return (
        struct.pack(">I", len(content))
        + body
        + struct.pack(">I", zlib.crc32(body))
    )


def png(width, height, pixels, depth=8, colour=2):
    """A PNG with any declared size; `pixels` is what was compressed."""
    size = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def bomb(height=12000, width=12000):
    """A real, complete PNG: 0.4 MB that decode to 432 MB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    pixels = b"".join(packer.compress(row) for _ in range(height))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", pixels + packer.flush())
        + chunk(b"IEND", b"")
    )


def jpeg(image, **options):
    return encode(image, "JPEG", quality=90, **options)


def jpeg_with_size(image, height, width):
    data = bytearray(jpeg(image))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def jpeg_with_damaged_scan(image):
    data = bytearray(jpeg(image))
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    data[middle : middle + 40] = bytes(40)
    return bytes(data)


def with_alpha(image, mode):
    alpha = np.linspace(0, 255, image.shape[1]).astype(np.uint8)
    alpha = np.broadcast_to(alpha[:, None], (*image.shape[:2], 1))
    picture = Image.fromarray(np.concatenate([image, alpha], -1))
    stream = io.BytesIO()
    picture.convert(mode).save(stream, "PNG")
    return stream.getvalue()


def with_palette(image, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(image).quantize(16).save(stream, kind, **options)
    return stream.getvalue()


def sixteen_bits(image):
    rows = (image.astype(">u2") * 257).reshape(len(image), -1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(image.shape[1], image.shape[0], pixels, depth=16)


def animated(image, kind, **options):
    others = [Image.fromarray(255 - image), Image.fromarray(image[::-1])]
    return encode(image, kind, save_all=True, append_images=others, **options)


def rotated(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(image, exif=exif)


def flipped(data, place):
    changed = bytearray(data)
    changed[place] ^= 0xFF
    return bytes(changed)


def gif_with_frame(image, height, width):
    """A GIF whose frame is larger than its screen."""
    data = bytearray(encode(image, "GIF"))
    frame = data.index(b"\x2c\0\0\0\0", 13 + 3 * 256)
    struct.pack_into("<HH", data, frame + 5, width, height)
    return bytes(data)


def webp_with_size(image, height, width):
    data = bytearray(animated(image, "WEBP", lossless=True))
    data[24:27] = struct.pack("<I", width - 1)[:3]
    data[27:30] = struct.pack("<I", height - 1)[:3]
    return bytes(data)


def bmp_with_size(image, height, width):
    data = bytearray(encode(image, "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def half(data):
    return data[: len(data) // 2]


_HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
_BROKEN = "damaged or truncated"
_UNKNOWN = "not a picture that can be read"
_CAP = "more than max_pixels"

KINDS = [
    Kind("grey JPEG", lambda x: jpeg(x[..., 0]), None),
    Kind("CMYK JPEG", lambda x: jpeg(x, mode="CMYK"), None),
    Kind("progressive JPEG", lambda x: jpeg(x, progressive=True), None),
    Kind("JPEG rotated by its EXIF tag", rotated, None),
    Kind("JPEG with something behind its end", lambda x: jpeg(x) + _HTML, None),
    Kind("JPEG with damage inside its scan", jpeg_with_damaged_scan, None),
    Kind(
        "PNG with alpha (RGBA)", lambda x: with_alpha(x, "RGBA"), None, ".png"
    ),
    Kind(
        "grey PNG with alpha (LA)", lambda x: with_alpha(x, "LA"), None, ".png"
    ),
    Kind(
        "palette PNG with a transparent colour",
        lambda x: with_palette(x, transparency=3),
        None,
        ".png",
    ),
    Kind("16-bit PNG", sixteen_bits, None, ".png"),
    Kind("animated GIF", lambda x: animated(x, "GIF"), None, ".gif"),
    Kind(
        "animated WebP",
        lambda x: animated(x, "WEBP", lossless=True),
        None,
        ".webp",
    ),
    Kind("lossy WebP", lambda x: encode(x, "WEBP"), None, ".webp"),
    Kind("24-bit BMP", lambda x: encode(x, "BMP"), None, ".bmp"),
    Kind("wrong extension", lambda x: encode(x, "PNG"), None, ".jpg"),
    Kind("empty file", lambda x: b"", "is empty"),
    Kind("HTML page", lambda x: _HTML, _UNKNOWN),
    Kind("text file", lambda x: b"see attachment\n", _UNKNOWN),
    Kind("TIFF", lambda x: encode(x, "TIFF"), _UNKNOWN, ".png"),
    Kind(
        "HEIC or AVIF",
        lambda x: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + jpeg(x),
        _UNKNOWN,
    ),
    Kind("JPEG XL", lambda x: b"\xff\x0a" + jpeg(x), _UNKNOWN),
    Kind(
        "zeros (a file that was never written)", lambda x: bytes(4096), _UNKNOWN
    ),
    Kind(
        "palette BMP", lambda x: with_palette(x, "BMP"), "only plain 24", ".bmp"
    ),
    Kind("truncated JPEG", lambda x: half(jpeg(x)), _BROKEN),
    Kind(
        "truncated progressive JPEG",
        lambda x: half(jpeg(x, progressive=True)),
        _BROKEN,
    ),
    Kind("JPEG cut inside its header", lambda x: jpeg(x)[:100], "truncated"),
    Kind("JPEG without its end marker", lambda x: jpeg(x)[:-2], _BROKEN),
    Kind("truncated PNG", lambda x: half(encode(x, "PNG")), _BROKEN, ".png"),
    Kind(
        "PNG without its last chunk",
        lambda x: encode(x, "PNG")[:-12],
        _BROKEN,
        ".png",
    ),
    Kind(
        "PNG with a wrong checksum",
        lambda x: flipped(encode(x, "PNG"), -14),
        _BROKEN,
        ".png",
    ),
    Kind(
        "PNG with a damaged header",
        lambda x: flipped(encode(x, "PNG"), 14),
        "damaged",
        ".png",
    ),
    Kind(
        "GIF truncated in its first frame",
        lambda x: half(encode(x, "GIF")),
        "truncated",
        ".gif",
    ),
    Kind(
        "truncated WebP",
        lambda x: half(encode(x, "WEBP")),
        _BROKEN,
        ".webp",
    ),
    Kind("truncated BMP", lambda x: half(encode(x, "BMP")), _BROKEN, ".bmp"),
    Kind("PNG of 12000x12000 pixels (0.4 MB)", lambda x: bomb(), _CAP, ".png"),
    Kind(
        "JPEG that declares 65535x65535 pixels",
        lambda x: jpeg_with_size(x, 65535, 65535),
        _CAP,
    ),
    Kind(
        "GIF with a frame of 20000x20000 pixels",
        lambda x: gif_with_frame(x, 20000, 20000),
        _CAP,
        ".gif",
    ),
    Kind(
        "WebP that declares 16000x16000 pixels",
        lambda x: webp_with_size(x, 16000, 16000),
        _CAP,
        ".webp",
    ),
    Kind(
        "BMP that declares 30000x30000 pixels",
        lambda x: bmp_with_size(x, 30000, 30000),
        _CAP,
        ".bmp",
    ),
    Kind(
        "picture so narrow that it would be resized to more than `max_pixels`",
        lambda x: png(200_000, 1, bytes(1 + 3 * 200_000)),
        "shorter side resized",
        ".png",
    ),
    Kind(
        "JPEG that declares 0 pixels",
        lambda x: jpeg_with_size(x, 0, 0),
        "0x0 pixels",
    ),
    Kind(
        "PNG that declares 0 pixels", lambda x: png(0, 5, b""), "x0 pix", ".png"
    ),
]
ACCEPTED = [kind for kind in KINDS if kind.refused is None]
REFUSED = [kind for kind in KINDS if kind.refused is not None]
CAPPED = [kind for kind in KINDS if kind.refused == _CAP]


def as_pillow_has_it(data):
    """The pixels by the written rule, made with Pillow alone."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if data[:4] == b"\x89PNG" and data[24] == 16:
        # Pillow cuts the lower byte, which is the same for multiples of 257.
        return np.asarray(picture.convert("RGB")).astype(int)
    transparent = (
        picture.mode in ("RGBA", "LA") or "transparency" in picture.info
    )
    if transparent and picture.format != "GIF":
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB")).astype(int)


def example(**features):
    return serialize_example(features)


def write_records(path, records):
    _write_records(path, records)
    return str(path)


BAD_RECORDS = {
    "record that is no `tf.train.Example`": (b"\xff\xff", "not a `tf.train"),
    "record without the image": (example(label=[1]), "no feature 'image'"),
    "record with an image of another type": (
        example(image=[1], label=[1]),
        "one bytes value",
    ),
    "record without the label, with `labels=True`": (
        example(image=encode(np.zeros((4, 4, 3), np.uint8), "PNG")),
        "no feature 'label'",
    ),
}
