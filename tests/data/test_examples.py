"""`tf.train.Example`s and TFRecord files, without TensorFlow and against it."""

import numpy as np
import pytest

from keras_vq.data.examples import parse_example, serialize_example
from keras_vq.data.tfrecord import TFRecordSource, write_records

# Byte by byte after the protocol's documentation: two features, "a" with the
# int64s 1 and 300, "b" with the bytes "xy".
BY_HAND = bytes.fromhex(
    "0a1d"
    "0a0e" "0a0161" "1209" "1a07" "0a03" "01ac02" "0800"
    "0a0b" "0a0162" "1206" "0a04" "0a02" "7879"
)  # fmt: skip


def test_an_example_made_by_hand():
    features = parse_example(BY_HAND)
    assert features["a"].kind == "int64_list"
    # The last number is not packed, as writers of old did it.
    assert features["a"].values == [1, 300, 0]
    assert features["b"].kind == "bytes_list"
    assert features["b"].values == [b"xy"]


CONTENT = {
    "bytes": b"\x00\xff" * 200,
    "numbers": [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)],
    "nothing": [],
    "läbel": [7],
}


def test_what_is_written_is_read_again():
    found = parse_example(serialize_example(CONTENT))
    assert {k: v.values for k, v in found.items()} == {
        **CONTENT,
        "bytes": [CONTENT["bytes"]],
    }


def test_tensorflow_reads_what_is_written(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "a.tfrecord"
    write_records(path, [serialize_example(CONTENT), BY_HAND])
    first, second = tf.data.TFRecordDataset(str(path))
    feature = tf.train.Example.FromString(first.numpy()).features.feature
    assert sorted(feature) == sorted(CONTENT)
    for name, value in CONTENT.items():
        if isinstance(value, bytes):
            assert feature[name].bytes_list.value == [value]
        else:
            assert feature[name].int64_list.value == value
    feature = tf.train.Example.FromString(second.numpy()).features.feature
    assert feature["a"].int64_list.value == [1, 300, 0]


def test_what_tensorflow_writes_is_read():
    tf = pytest.importorskip("tensorflow")
    lists = {
        "bytes": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[b"a", b"", b"c" * 300])
        ),
        "floats": tf.train.Feature(
            float_list=tf.train.FloatList(value=[0.5, -2.0])
        ),
        "numbers": tf.train.Feature(
            int64_list=tf.train.Int64List(value=CONTENT["numbers"])
        ),
        "empty": tf.train.Feature(),
    }
    example = tf.train.Example(features=tf.train.Features(feature=lists))
    found = parse_example(example.SerializeToString())
    assert found["bytes"].values == [b"a", b"", b"c" * 300]
    assert found["floats"].values == [0.5, -2.0]
    assert found["numbers"].values == CONTENT["numbers"]
    assert found["empty"].kind is None and found["empty"].values == []


def test_damage_is_a_value_error_and_nothing_else():
    whole = serialize_example(CONTENT)
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(2000):
        data = bytearray(whole[: generator.integers(1, len(whole) + 1)])
        data[generator.integers(len(data))] = generator.integers(256)
        try:
            for feature in parse_example(bytes(data)).values():
                feature.values  # noqa: B018
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_records_that_are_written_are_found(tmp_path):
    path = tmp_path / "a.tfrecord"
    pictures = [{"image": bytes([i]) * i} for i in range(1, 9)]
    write_records(path, map(serialize_example, pictures))
    source = TFRecordSource(path)
    assert len(source) == 8
    assert [source.read_bytes(i)[0] for i in range(8)] == [
        picture["image"] for picture in pictures
    ]
