"""TFRecord files as a source that can be read in any order.

The file's framing (length, checksum, data, checksum) is walked once, which
reads twelve bytes a record; after that every record is one slice of a memory
map. Both checksums are verified, as TensorFlow's own reader does.
"""

import mmap
import os
import struct
import threading
from collections.abc import Iterable

import numpy as np

from keras_vq.data.crc32c import masked_crc32c
from keras_vq.data.errors import ImageError
from keras_vq.data.examples import ExampleSource, Keys
from keras_vq.data.files import expand_files

_HEADER = struct.Struct("<QI")
_FRAME = _HEADER.size + 4
_KEYS = Keys()


class TFRecordSource(ExampleSource):
    """Encoded pictures in TFRecord files of `tf.train.Example`.

    Args:
        files: A path, a glob pattern, or a list of either.
        keys: Which features hold image and label.
        labels: Whether to read labels.
        parts: For each file, which of its records to take as
            `(first, count)`; None for all.
        probes: How many records are looked at until one has the features;
            if none has, the keys are taken to be wrong.
    """

    def __init__(self, files, keys=_KEYS, labels=False, parts=None, probes=1):
        self.files = expand_files(files, "TFRecord")
        parts = parts or [(0, None)] * len(self.files)
        offsets = [
            _part(index_records(path), path, part)
            for path, part in zip(self.files, parts, strict=True)
        ]
        counts = [len(o) for o in offsets]
        self._file = np.repeat(np.arange(len(counts)), counts)
        self._offset = np.concatenate(offsets)
        self._maps = {}
        self._lock = threading.Lock()
        if not len(self._offset):
            raise ValueError(
                "The TFRecord files hold no records. Received: "
                + ", ".join(self.files)
            )
        super().__init__(keys, labels, probes)

    def __len__(self):
        return len(self._offset)

    def _map(self, number):
        with self._lock:
            if number not in self._maps:
                with open(self.files[number], "rb") as file:
                    self._maps[number] = mmap.mmap(
                        file.fileno(), 0, access=mmap.ACCESS_READ
                    )
            return self._maps[number]

    def read_record(self, index):
        number, offset = self._file[index], int(self._offset[index])
        content = self._map(number)
        name = self.name_of(index)
        length, _ = _HEADER.unpack_from(content, offset)
        start = offset + _HEADER.size
        data = content[start : start + length]
        stored = content[start + length : start + length + 4]
        if int.from_bytes(stored, "little") != masked_crc32c(data):
            raise ImageError(
                f"{name} does not match its checksum; the file is damaged. "
                "Copy it anew."
            )
        return data, name

    def name_of(self, index):
        file = self.files[self._file[index]]
        return f"The record at byte {self._offset[index]} of {file}"


def index_records(path: str) -> np.ndarray:
    """Returns where the records of a TFRecord file begin, int64.

    Raises:
        ImageError: If the file is no TFRecord, or is truncated.
    """
    size = os.path.getsize(path)
    if size == 0:
        return np.zeros(0, np.int64)
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _walk(content, size, path)


def _walk(content, size, path):
    offsets, position = [], 0
    while position < size:
        if position + _HEADER.size > size:
            raise _truncated(path, position, _FRAME, size)
        header = content[position : position + _HEADER.size]
        length, stored = _HEADER.unpack(header)
        # The checksum is looked at where it costs nothing (the first record)
        # or where the length is impossible, to tell damage from truncation.
        if not offsets or position + _FRAME + length > size:
            if stored != masked_crc32c(header[:8]):
                raise _not_a_tfrecord(path, position, header)
            if position + _FRAME + length > size:
                raise _truncated(path, position, _FRAME + length, size)
        offsets.append(position)
        position += _FRAME + length
    return np.array(offsets, np.int64)


def _truncated(path, position, needed, size):
    return ImageError(
        f"{path} is truncated: the record at byte {position} needs {needed} "
        f"bytes. Received: {size - position} bytes up to the end of the file. "
        "Copy the file anew."
    )


def _not_a_tfrecord(path, position, header):
    if position:
        return ImageError(
            f"{path} is damaged at byte {position}: the checksum of a "
            "record's length is wrong. Copy the file anew."
        )
    hint = ""
    if header[:2] == b"\x1f\x8b":
        hint = " It is compressed with gzip; decompress it first (`gunzip`)."
    return ImageError(
        f"{path} is not a TFRecord file. Received: a file that starts with "
        f"{header[:8]!r}.{hint}"
    )


def _part(offsets, path, part):
    first, count = part
    end = len(offsets) if count is None else first + count
    if end > len(offsets):
        raise ValueError(
            f"{path} should hold at least {end} records. Received: "
            f"{len(offsets)} records. Prepare the data set anew."
        )
    return offsets[first:end]


def write_records(path: str | os.PathLike, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file.

    Args:
        path: The file; an existing one is replaced.
        records: The content of each record.
    """
    with open(path, "wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length)
            file.write(struct.pack("<I", masked_crc32c(length)))
            file.write(record)
            file.write(struct.pack("<I", masked_crc32c(record)))
