"""Reads arrays from files that Flax writes, with neither Flax nor msgpack.

Such a file is a tree of maps in MessagePack, whose leaves are arrays:
extensions of type 1, each a sequence of shape, name of the dtype and bytes.
All else is refused. Sizes are compared with the bytes that are really there,
and no array is read before it is asked for.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

import numpy as np

from keras_vq.convert.errors import DamagedFileError, UnsafeFileError
from keras_vq.convert.torch_tensors import damaged, read_into

_ARRAY = 1
_MAX_DEPTH, _MAX_ENTRIES, _MAX_TEXT, _MAX_AXES = 16, 20_000, 256, 8
_WIDTHS = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "uint32": 4,
    "uint8": 1,
}


@dataclasses.dataclass(frozen=True)
class FlaxArray:
    """An array of the file.

    Attributes:
        shape: Its shape.
        dtype: Name of its dtype.
        position: Where its bytes begin.
    """

    shape: tuple
    dtype: str
    position: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * _WIDTHS[self.dtype]


class FlaxFile:
    """The arrays of an open file, by names joined with "/"."""

    def __init__(self, file: BinaryIO, source: str):
        self._file, self._source = file, source
        self._end = os.fstat(file.fileno()).st_size
        self.arrays: dict[str, FlaxArray] = {}
        self._entries = 0
        self._read_map("", self._map_length(self._byte()), 0)
        if file.tell() != self._end:
            raise damaged(source, "bytes after its end")

    def read(self, name: str) -> np.ndarray:
        """Reads one array; bfloat16 becomes float32."""
        array = self.arrays[name]
        self._file.seek(array.position)
        try:
            raw = read_into(self._file, array.size)
        except EOFError as error:
            raise damaged(self._source, error) from None
        if array.dtype == "bfloat16":
            # The upper half of a float32.
            wide = raw.view("<u2").astype("<u4")
            wide <<= 16
            return wide.view("<f4").reshape(array.shape)
        dtype = np.dtype(array.dtype).newbyteorder("<")
        return raw.view(dtype).reshape(array.shape)

    def _read_map(self, prefix, length, depth):
        if depth > _MAX_DEPTH:
            self._refuse("maps within maps without end")
        for _ in range(length):
            self._entries += 1
            name = prefix + self._text()
            if name in self.arrays or self._entries > _MAX_ENTRIES:
                self._refuse(f"a name twice, or over {_MAX_ENTRIES} names")
            code = self._byte()
            inner = self._map_length(code)
            if inner is None:
                self.arrays[name] = self._array(code)
            else:
                self._read_map(f"{name}/", inner, depth + 1)

    def _array(self, code) -> FlaxArray:
        fixed = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
        widths = {0xC7: 1, 0xC8: 2, 0xC9: 4}
        size = fixed.get(code)
        if code in widths:
            size = self._number(widths[code])
        if size is None or self._byte() != _ARRAY:
            self._refuse(f"the value {code:#x}, which is no array")
        end = self._file.tell() + size
        if self._byte() != 0x93:
            self._refuse("an array without shape, dtype and bytes")
        shape = tuple(self._integer() for _ in range(self._sequence_length()))
        dtype = self._text()
        if dtype not in _WIDTHS:
            self._refuse(f"an array of {dtype!r}")
        array = FlaxArray(shape, dtype, self._bytes_follow(end))
        if array.position + array.size != end:
            self._refuse(f"an array of {shape} with other bytes")
        self._file.seek(end)
        return array

    def _bytes_follow(self, end) -> int:
        """The position of bytes that go on until `end`."""
        code = self._byte()
        widths = {0xC4: 1, 0xC5: 2, 0xC6: 4}
        if code not in widths:
            self._refuse(f"the value {code:#x} for the bytes of an array")
        size = self._number(widths[code])
        position = self._file.tell()
        if position + size != end or end > self._end:
            self._refuse("an array beyond its end, or that of the file")
        return position

    def _map_length(self, code) -> int | None:
        if 0x80 <= code <= 0x8F:
            return code & 0x0F
        widths = {0xDE: 2, 0xDF: 4}
        return self._number(widths[code]) if code in widths else None

    def _sequence_length(self) -> int:
        code = self._byte()
        if not 0x90 <= code <= 0x90 + _MAX_AXES:
            self._refuse(f"the value {code:#x} for a shape")
        return code & 0x0F

    def _integer(self) -> int:
        code = self._byte()
        if code <= 0x7F:
            return code
        widths = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
        if code not in widths:
            self._refuse(f"the value {code:#x} for a size")
        return self._number(widths[code])

    def _text(self) -> str:
        code = self._byte()
        widths = {0xD9: 1, 0xDA: 2}
        if 0xA0 <= code <= 0xBF:
            size = code & 0x1F
        elif code in widths:
            size = self._number(widths[code])
        else:
            self._refuse(f"the value {code:#x} for a name")
        if size > _MAX_TEXT:
            self._refuse(f"a name of {size} bytes")
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise damaged(self._source, error) from None

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self, width) -> int:
        return int.from_bytes(self._take(width), "big")

    def _take(self, size) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise damaged(self._source, "it ends too early")
        return data

    def _refuse(self, what) -> NoReturn:
        raise UnsafeFileError(
            f"{self._source} is refused: expected maps of arrays, as Flax "
            f"writes them. Received: {what}."
        )


def is_flax(start: bytes) -> bool:
    """Whether a file that starts so is a map of MessagePack."""
    # One of no entries starts as a pickle does.
    return 0x81 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)


@contextlib.contextmanager
def open_flax_file(path: str | os.PathLike) -> Iterator[FlaxFile]:
    """Opens a file, to read its arrays one by one.

    Args:
        path: `flax_model.msgpack` or another file of `flax.serialization`.

    Raises:
        UnsafeFileError: If it holds anything but maps of arrays, or declares
            sizes that it has no bytes for.
        DamagedFileError: If it is truncated.
    """
    source = os.fspath(path)
    with open(path, "rb") as file:
        if not is_flax(file.read(1) or b"\0"):
            raise DamagedFileError(
                f"Expected a file of Flax. Received: {source}. Fetch it again."
            )
        file.seek(0)
        yield FlaxFile(file, source)
