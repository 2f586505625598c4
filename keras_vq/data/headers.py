"""What the first bytes of a picture say, read before anything is decoded.

A picture of some hundred kilobytes can decode to gigabytes, so the size is
needed first; orientation, bit depth and transparency are in the header too,
and TensorFlow's decoders report none of them.
"""

import dataclasses
import struct

from keras_vq.data.errors import ImageError

SUPPORTED = "JPEG, PNG, GIF, BMP or WebP"
_ADVICE = "Get it anew, or take it out."


@dataclasses.dataclass(frozen=True)
class Header:
    """Facts about an encoded picture.

    Args:
        kind: `"jpeg"`, `"png"`, `"gif"`, `"bmp"` or `"webp"`.
        height: Rows, as stored.
        width: Columns, as stored.
        depth: Bits of each channel.
        alpha: Whether some pixels may be transparent.
        grey: Whether a JPEG has one component.
        orientation: The EXIF orientation, 1 to 8; 1 is upright.
        end: Where the first frame of a GIF ends.
    """

    kind: str
    height: int
    width: int
    depth: int = 8
    alpha: bool = False
    grey: bool = False
    orientation: int = 1
    end: int | None = None


def read_header(data: bytes, name: str) -> Header:
    """Reads the header of an encoded picture.

    Args:
        data: The content of the file.
        name: What to call the picture in an error message.

    Returns:
        A `Header`.

    Raises:
        ImageError: Empty, not one of the supported formats, or cut off
            inside the header.
    """
    if not data:
        raise ImageError(f"{name} is empty; expected a picture. {_ADVICE}")
    read = next((r for m, r in _READERS if data.startswith(m)), None)
    if read is None:
        raise ImageError(
            f"{name} is not a picture that can be read; expected {SUPPORTED}. "
            f"Received: a file that starts with {data[:12]!r}. Convert it to "
            "PNG, or take it out."
        )
    try:
        header = read(data, name)
    except (struct.error, IndexError):
        raise ImageError(
            f"{name} ends inside its header ({len(data)} bytes); the file is "
            f"truncated. {_ADVICE}"
        ) from None
    if header.height < 1 or header.width < 1:
        raise ImageError(
            f"{name} says that it has {header.height}x{header.width} pixels; "
            f"the file is damaged. {_ADVICE}"
        )
    return header


def _damaged(name, kind, reason):
    return ImageError(f"{name} is a damaged {kind} ({reason}). {_ADVICE}")


def _jpeg(data, name):
    position, orientation = 2, 1
    while True:
        # Any number of fill bytes may stand before a marker.
        while data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1
        if data[position] != 0xFF:
            raise _damaged(name, "JPEG", "no marker found")
        marker = data[position + 1]
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2  # These markers have no content.
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        # Every "start of frame" holds the size; C4, C8 and CC are others.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, components = struct.unpack_from(
                ">BHHB", data, position + 4
            )
            return Header(
                "jpeg",
                height,
                width,
                depth,
                grey=components == 1,
                orientation=orientation,
            )
        if marker in (0xD9, 0xDA) or length < 2:
            raise _damaged(name, "JPEG", "no frame found")
        if marker == 0xE1 and data[position + 4 : position + 10] == (
            b"Exif\x00\x00"
        ):
            orientation = _orientation(
                data[position + 10 : position + 2 + length]
            )
        position += 2 + length


def _png(data, name):
    if data[12:16] != b"IHDR" and len(data) > 16:
        raise _damaged(name, "PNG", "no IHDR")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    alpha, orientation, position = colour in (4, 6), 1, 33
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            break
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            start = position + 8
            orientation = _orientation(data[start : start + length])
        position += 12 + length
    return Header("png", height, width, depth, alpha, orientation=orientation)


def _gif(data, name):
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_palette(flags)
    try:
        while data[position] == 0x21:  # an extension
            position = _gif_blocks_end(data, position + 2)
        if data[position] != 0x2C:
            raise _damaged(name, "GIF", "no frame found")
        # A frame may be larger than the screen that the header declares.
        left, top, columns, rows, flags = struct.unpack_from(
            "<HHHHB", data, position + 1
        )
        end = _gif_blocks_end(data, position + 11 + _gif_palette(flags))
    except (struct.error, IndexError):
        raise ImageError(
            f"{name} ends inside its first frame ({len(data)} bytes); the "
            f"file is truncated. {_ADVICE}"
        ) from None
    return Header(
        "gif", max(height, top + rows), max(width, left + columns), end=end
    )


def _gif_palette(flags):
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data, position):
    while data[position]:
        position += 1 + data[position]
    return position + 1


def _bmp(data, name):
    (size,) = struct.unpack_from("<I", data, 14)
    if size < 40:
        raise ImageError(
            f"{name} is a BMP of OS/2's old kind. Convert it to PNG."
        )
    width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    # TensorFlow would return the palette's indices as if they were pixels.
    if bits not in (24, 32) or packing not in (0, 3):
        raise ImageError(
            f"{name} is a BMP with {bits} bits a pixel and compression "
            f"{packing}; only plain 24 and 32 bit BMPs are read. Convert it "
            "to PNG."
        )
    return Header("bmp", abs(height), width)


def _webp(data, name):
    if data[8:12] != b"WEBP":
        raise ImageError(
            f"{name} is a RIFF file, but no WebP picture. Take it out."
        )
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", height & 0x3FFF, width & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header(
            "webp",
            (bits >> 14 & 0x3FFF) + 1,
            (bits & 0x3FFF) + 1,
            alpha=bool(bits >> 28 & 1),
        )
    if kind == b"VP8X":
        flags, width, width_high, height, height_high = struct.unpack_from(
            "<BxxxHBHB", data, 20
        )
        return Header(
            "webp",
            height + (height_high << 16) + 1,
            width + (width_high << 16) + 1,
            # An animation (0x02) is decoded with four channels as well.
            alpha=bool(flags & 0x12),
            orientation=_webp_orientation(data) if flags & 0x08 else 1,
        )
    raise _damaged(name, "WebP", f"chunk {kind!r}")


def _webp_orientation(data):
    position = 30
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            content = data[position + 8 : position + 8 + length]
            return _orientation(content.removeprefix(b"Exif\x00\x00"))
        position += 8 + length + (length & 1)
    return 1


def _orientation(tiff):
    """Finds tag 0x0112 in EXIF data; anything odd there means upright."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


_READERS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
)
