"""`tf.train.Example`s without TensorFlow: read, write, and as a source.

An example is a protocol buffer of three nested messages, with which this
module deals byte by byte:

    Example { Features features = 1; }
    Features { map<string, Feature> feature = 1; }
    Feature { oneof kind { BytesList bytes_list = 1;
                           FloatList float_list = 2;
                           Int64List int64_list = 3; } }

and each list has a `repeated` field 1, whose numbers may be packed.

Reference:
    protobuf.dev/programming-guides/encoding; tensorflow/core/example.
"""

import abc
import dataclasses
import struct

import numpy as np

from keras_vq.data.decode import decode_image, to_channels
from keras_vq.data.errors import ImageError
from keras_vq.data.sources import EncodedSource

_KINDS = {1: "bytes_list", 2: "float_list", 3: "int64_list"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of an example.

    Args:
        kind: `"bytes_list"`, `"float_list"`, `"int64_list"`, or None for one
            without a value.
        content: The list as it is stored.
    """

    kind: str | None = None
    content: bytes = b""

    @property
    def values(self) -> list:
        """Its values."""
        found = []
        for number, wire, value in _fields(self.content):
            if number != 1:
                continue
            if self.kind == "bytes_list":
                found.append(_of_kind(value, wire, _BYTES))
            elif self.kind == "int64_list":
                found += _integers(value, wire)
            else:
                found += _floats(value, wire)
        return found


def parse_example(data: bytes) -> dict[str, Feature]:
    """Reads a `tf.train.Example`.

    Args:
        data: The message.

    Returns:
        Its features by name.

    Raises:
        ValueError: If it is none.
    """
    features = {}
    for number, wire, value in _fields(data):
        if number != 1:
            continue
        for field, kind, entry in _fields(_of_kind(value, wire, _BYTES)):
            if field == 1:
                name, feature = _entry(_of_kind(entry, kind, _BYTES))
                features[name] = feature
    return features


def serialize_example(features: dict) -> bytes:
    """Writes a `tf.train.Example`.

    Args:
        features: For each name either bytes or a list of integers.
    """
    entries = []
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = _message(1, _message(1, value))
        else:
            packed = b"".join(_varint(number) for number in value)
            feature = _message(3, _message(1, packed))
        entries.append(
            _message(1, _message(1, name.encode()) + _message(2, feature))
        )
    return _message(1, b"".join(entries))


def _entry(data):
    """One entry of the map: name and feature."""
    name, feature = "", Feature()
    for number, wire, value in _fields(data):
        if number == 1:
            name = _of_kind(value, wire, _BYTES).decode()
        elif number == 2:
            feature = _feature(_of_kind(value, wire, _BYTES))
    return name, feature


def _feature(data):
    feature = Feature()
    for number, wire, value in _fields(data):
        if number in _KINDS:
            content = _of_kind(value, wire, _BYTES)
            if feature.kind == _KINDS[number]:
                content = feature.content + content
            # Of several kinds the last one counts.
            feature = Feature(_KINDS[number], content)
    return feature


def _fields(data):
    """Yields (number, wire type, value) of the fields of a message."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _read_varint(data, position)
        else:
            if wire == _BYTES:
                length, position = _read_varint(data, position)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            value = data[position : position + length]
            position += length
            if position > len(data):
                raise ValueError("a field ends behind its message")
        if not number:
            raise ValueError("field number 0")
        yield number, wire, value


def _of_kind(value, wire, expected):
    if wire != expected:
        raise ValueError(f"wire type {wire} instead of {expected}")
    return value


def _read_varint(data, position):
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number without an end")
        byte = data[position]
        result |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return result & (1 << 64) - 1, position


def _integers(value, wire):
    if wire == _VARINT:
        numbers = [value]
    else:
        numbers, position = [], 0
        data = _of_kind(value, wire, _BYTES)
        while position < len(data):
            number, position = _read_varint(data, position)
            numbers.append(number)
    return [n - (1 << 64) if n >> 63 else n for n in numbers]


def _floats(value, wire):
    if wire != _FIXED32:
        value = _of_kind(value, wire, _BYTES)
    if len(value) % 4:
        raise ValueError("floats of another length")
    return [number for (number,) in struct.iter_unpack("<f", value)]


def _message(number, content):
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(number):
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


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


class ExampleSource(EncodedSource):
    """Records with `tf.train.Example`s of encoded pictures.

    Args:
        keys: Which features hold image and label.
        labels: Whether to read labels.
        probes: How many records are looked at until one has the features;
            if none has, the keys are taken to be wrong.
    """

    def __init__(self, keys, labels, probes):
        self.keys = keys
        self.has_labels = labels
        self._probe(min(probes, len(self)))

    @abc.abstractmethod
    def read_record(self, index: int) -> tuple[bytes, str]:
        """Returns the bytes of one record and its name for messages."""

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

    def example(self, index: int) -> dict[str, Feature]:
        """All features of one record, by name."""
        data, name = self.read_record(index)
        try:
            return parse_example(data)
        except ValueError:
            raise ImageError(
                f"{name} is not a `tf.train.Example`; other records are not "
                "read."
            ) from None

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
    try:
        values = feature.values
    except ValueError:
        raise ImageError(
            f"{name} is not a `tf.train.Example`: its feature {key!r} is "
            "damaged."
        ) from None
    if feature.kind != f"{kind}_list" or len(values) != count:
        received = "nothing"
        if feature.kind:
            received = f"{len(values)} value(s) in {feature.kind}"
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
