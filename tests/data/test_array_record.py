"""ArrayRecord files of examples."""

import pytest
from pictures import encode, noise

from keras_vq.data import (
    ImageError,
    from_array_record,
    from_tfrecord,
    named_errors,
    pipeline_of,
)
from keras_vq.data.examples import serialize_example
from keras_vq.data.tfrecord import write_records

module = pytest.importorskip("array_record.python.array_record_module")


def examples(count, first=0):
    return [
        serialize_example(
            {"image": encode(noise(8, 8, seed=i), "PNG"), "label": [i]}
        )
        for i in range(first, first + count)
    ]


def write(path, records):
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def arrays(dataset):
    return [[part.__array__().tobytes() for part in b] for b in dataset]


def test_the_same_batches_as_of_tfrecords(tmp_path):
    write(tmp_path / "a.array_record-0-of-2", examples(7))
    write(tmp_path / "a.array_record-1-of-2", examples(4, 7))
    write_records(tmp_path / "a.tfrecord", examples(11))
    options = dict(
        labels=True, batch_size=4, shuffle=True, flip=True, image_size=6
    )
    found = from_array_record(tmp_path / "a.array_record*", **options)
    assert pipeline_of(found).num_examples == 11
    expected = from_tfrecord(tmp_path / "a.tfrecord", **options)
    assert arrays(found) == arrays(expected)


@pytest.mark.parametrize("content", [b"", b"text" * 99])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.array_record"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="not an ArrayRecord file.*truncated"):
        from_array_record(path)


def test_truncated_files_are_refused(tmp_path):
    path = write(tmp_path / "a.array_record", examples(5))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ImageError, match="truncated"):
        from_array_record(path)
    with pytest.raises(FileNotFoundError, match="Expected ArrayRecord files"):
        from_array_record(tmp_path / "b")


def test_a_damaged_record_is_one_bad_example(tmp_path):
    records = examples(5)
    path = write(tmp_path / "a.array_record", records)
    data = bytearray(path.read_bytes())
    places = [i for i in range(len(data)) if data.startswith(b"IDAT", i)]
    # The records are stored as they are, one after the other.
    assert len(places) == 5
    data[places[2]] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageError, match="Record 2.*damaged"), named_errors():
        list(from_array_record(path))
    dataset = from_array_record(path, labels=True, on_error="skip")
    ((_, labels),) = dataset
    assert labels.__array__().tolist() == [0, 1, 3, 4]
    ((name, _),) = pipeline_of(dataset).skipped
    assert name == f"Record 2 of {path}"


def test_wrong_keys(tmp_path):
    path = write(tmp_path / "a.array_record", examples(2))
    with pytest.raises(ImageError, match="no feature 'picture'.*'image'"):
        from_array_record(path, image_key="picture")
