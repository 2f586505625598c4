"""TFRecord files as a source that can be read in any order.

The file's framing (length, checksum, data, checksum) is walked once, which
reads twelve bytes a record; after that every record is one slice of a memory
map. Both checksums are verified, as TensorFlow's own reader does.
"""

import dataclasses
import glob
import mmap
import os
import struct
import threading

import numpy as np

from keras_vq.data.crc32c import masked_crc32c
from keras_vq.data.decode import decode_image, to_channels
from keras_vq.data.errors import ImageError
from keras_vq.data.sources import EncodedSource

_HEADER = struct.Struct("<QI")
_FRAME = _HEADER.size + 4


@dataclasses.dataclass(frozen=True)
class Keys:
    """The features of a `tf.train.Example` that are read.

    Args:
        image: The encoded picture (one bytes value).
        label: The label (one int64 value); read only when asked for.
        shape: Channels, height and width (three int64 values) where the image
            is stored as that many bytes, not encoded, as in the files of the
            FFHQ data set. None: it is encoded.
    """

    image: str = "image"
    label: str = "label"
    shape: str | None = None


class TFRecordSource(EncodedSource):
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

    def __init__(self, files, keys=Keys(), labels=False, parts=None, probes=1):
        self.files = expand_files(files)
        self.keys = keys
        self.has_labels = labels
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
        self._probe(min(probes, len(self)))

    def __len__(self):
        return len(self._offset)

    def _probe(self, count):
        """Finds wrong keys now, and not in the first step."""
        first = None
        for index in range(count):
            try:
                self._stored(index)
                return
            except ImageError as error:
                first = first or error
        raise first

    def _map(self, number):
        with self._lock:
            if number not in self._maps:
                with open(self.files[number], "rb") as file:
                    self._maps[number] = mmap.mmap(
                        file.fileno(), 0, access=mmap.ACCESS_READ
                    )
            return self._maps[number]

    def read_record(self, index: int) -> tuple[bytes, str]:
        """Returns the bytes of one record and its name for messages."""
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

    def example(self, index: int):
        """All features of one record, by name."""
        return _parse(*self.read_record(index))

    def _stored(self, index):
        """Bytes of the image, its shape or None, its name, its label."""
        example, name = self.example(index), self.name_of(index)
        data = _single(example, self.keys.image, "bytes", name)
        shape, label = None, -1
        if self.keys.shape is not None:
            shape = _values(example, self.keys.shape, "int64", 3, name)
        if self.has_labels:
            label = _single(example, self.keys.label, "int64", name)
        return data, shape, f"The picture in {name[0].lower()}{name[1:]}", label

    def read_bytes(self, index):
        data, _, name, label = self._stored(index)
        return data, name, label

    def read(self, index, rule):
        data, shape, name, label = self._stored(index)
        channels = 3 if rule.channels is None else rule.channels
        if shape is None:
            image = decode_image(data, channels, rule.max_pixels, name)
        else:
            image = _not_encoded(data, shape, rule.max_pixels, name)
            image = to_channels(image, channels, name)
        return image, label


def expand_files(files) -> list[str]:
    """Returns the sorted paths that a path, pattern or list of them means."""
    several = isinstance(files, (list, tuple))
    found = []
    for entry in files if several else [files]:
        entry = os.path.expanduser(os.fspath(entry))
        if os.path.isfile(entry):
            found.append(entry)
            continue
        matches = sorted(p for p in glob.glob(entry) if os.path.isfile(p))
        if not matches:
            what = (
                "is a folder"
                if os.path.isdir(entry)
                else (
                    "matches no file"
                    if glob.has_magic(entry)
                    else "does not exist"
                )
            )
            raise FileNotFoundError(
                "Expected TFRecord files: a path, a glob pattern, or a list "
                f"of them. Received: {entry!r}, which {what}."
            )
        found += matches
    if not found:
        raise FileNotFoundError(
            f"Expected TFRecord files. Received: files={files!r}"
        )
    return found


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


def _parse(data, name):
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError:
        raise ImageError(
            f"{name} is not a `tf.train.Example`; other records are not read."
        ) from None


def _single(features, key, kind, name):
    return _values(features, key, kind, 1, name)[0]


def _values(features, key, kind, count, name):
    if key not in features:
        keys = ", ".join(repr(k) for k in sorted(features)) or "none"
        raise ImageError(
            f"{name} has no feature {key!r}. Received: the features {keys}. "
            "Choose with `image_key`, `label_key` and `shape_key`."
        )
    feature = features[key]
    found = feature.WhichOneof("kind")
    values = getattr(feature, f"{kind}_list").value
    if len(values) != count:
        received = "nothing"
        if found:
            received = (
                f"{len(getattr(feature, found).value)} value(s) in {found}"
            )
        raise ImageError(
            f"The feature {key!r} of {name[0].lower()}{name[1:]} must hold "
            f"{'one' if count == 1 else count} {kind} value"
            f"{'s' * (count > 1)}. Received: {received}."
        )
    return values


def _not_encoded(data, shape, max_pixels, name):
    """Bytes of channels, rows and columns as an image, channels last."""
    channels, height, width = shape
    if min(shape) < 1 or channels * height * width != len(data):
        raise ImageError(
            f"{name} must hold as many bytes as its channels x height x "
            f"width. Received: {len(data)} bytes for {tuple(shape)}."
        )
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has more than {max_pixels} pixels. "
            f"Received: {height} x {width}."
        )
    image = np.frombuffer(data, "uint8").reshape(channels, height, width)
    return np.ascontiguousarray(image.transpose(1, 2, 0))
