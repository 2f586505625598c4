"""`keras-vq encode --tfrecord`: whole data sets, in shards."""

import json

import numpy as np
import pytest
from cli_helpers import load, reconstruction, save

from keras_vq.cli import shards

tf = pytest.importorskip("tensorflow", reason="it reads what is written")


def examples(path):
    for record in tf.data.TFRecordDataset(str(path)):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        yield {
            key: value.int64_list.value or value.bytes_list.value
            for key, value in features.items()
        }


@pytest.fixture
def encode(photos, preset, tmp_path):
    out = tmp_path / "codes"
    options = ["--preset", preset, "--tfrecord", "--shard-size", 2]
    return ["encode", photos, out, *options, "--batch-size", 1]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "codes"


def test_shards_hold_the_codes_of_the_model(
    program, encode, out, photos, preset
):
    status, text, error = program(*encode)
    assert (status, error) == (0, "")
    assert "5 images to" in text and "3 shards written" in text
    files = sorted(path.name for path in out.iterdir())
    names = [f"codes-{i:05}-of-00003.tfrecord" for i in range(3)]
    assert files == [*names, "codes.json"]
    found = [x for name in names for x in examples(out / name)]
    order = ["a.png", "b.png", "c.png", "inner/a.png", "inner/d.png"]
    assert [x["name"][0].decode() for x in found] == order
    for example in found:
        image = load(photos / example["name"][0].decode())
        assert tuple(example["size"]) == image.shape[:2]
        _, codes = reconstruction(preset, image)
        assert tuple(example["grid"]) == codes.shape
        np.testing.assert_array_equal(example["codes"], codes.ravel())
        assert "label" not in example
    manifest = json.loads((out / "codes.json").read_text())
    assert manifest["codebook_sizes"] == [32]
    assert manifest["images"] == 5 and manifest["class_names"] is None


def test_parsed_as_the_documentation_says(program, encode, out):
    assert program(*encode, "--image-size", 16)[0] == 0
    dataset = tf.data.TFRecordDataset(
        sorted(str(path) for path in out.glob("*.tfrecord"))
    )
    keys = {"codes": tf.io.FixedLenFeature((4, 4), tf.int64)}
    dataset = dataset.map(lambda x: tf.io.parse_single_example(x, keys))
    codes = np.stack([x["codes"] for x in dataset])
    assert codes.shape == (5, 4, 4) and 0 <= codes.min() <= codes.max() < 32


def test_goes_on_with_what_is_missing(program, encode, out):
    assert program(*encode)[0] == 0
    paths = sorted(out.glob("*.tfrecord"))
    content = [path.read_bytes() for path in paths]
    paths[1].unlink()
    times = [path.stat().st_mtime_ns for path in (paths[0], paths[2])]
    # What a killed process leaves behind does not count as a shard.
    (out / ".codes-00001.tmp.tfrecord").write_bytes(b"half")
    status, text, _ = program(*encode)
    assert status == 0 and "1 shard written, 2 there before" in text
    assert [path.read_bytes() for path in paths] == content
    assert [p.stat().st_mtime_ns for p in (paths[0], paths[2])] == times
    status, text, _ = program(*encode)
    assert status == 0 and "0 shards written, 3 there before" in text


def test_labels_are_the_folders(program, encode, out, photos):
    for name in ("a.png", "b.png", "c.png"):
        (photos / name).unlink()
    (photos / "zebra" / "deep").mkdir(parents=True)
    save(photos / "zebra" / "deep" / "z.png", np.zeros((8, 8, 3)))
    assert program(*encode)[0] == 0
    found = [x for p in sorted(out.glob("*.tfrecord")) for x in examples(p)]
    assert [x["label"][0] for x in found] == [0, 0, 1]
    manifest = json.loads((out / "codes.json").read_text())
    assert manifest["class_names"] == ["inner", "zebra"]


def test_codes_of_something_else_are_not_mixed(
    program, fails, encode, out, photos
):
    assert program(*encode)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    message = fails(*encode, "--image-size", 8)
    assert "codes of something else: image_size differ" in message
    save(photos / "new.png", np.zeros((8, 8, 3)))
    assert "images, names_sha256 differ" in fails(*encode)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    status, text, _ = program(*encode, "--overwrite")
    assert status == 0 and "6 images" in text
    assert len(list(out.glob("*.tfrecord"))) == 3

    (out / "codes.json").write_text("{}")
    assert "is not what" in fails(*encode)
    (out / "codes.json").unlink()
    assert "no codes.json says" in fails(*encode)


def test_images_that_cannot_be_read(program, fails, encode, out, photos):
    (photos / "c.png").write_bytes(b"no picture")
    assert "c.png is not a picture" in fails(*encode)
    # The shard before it is there, and is not made again.
    assert len(list(out.glob("*.tfrecord"))) == 1
    status, text, error = program(*encode, "--skip-errors")
    assert status == 1 and "c.png" in error
    assert "2 images" in text and "2 shards written, 1 there before" in text
    found = [x for p in sorted(out.glob("*.tfrecord")) for x in examples(p)]
    assert len(found) == 4


def test_a_shard_is_whole_or_not_there(out, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    example = shards.example_of([np.zeros((2, 2), int)], (8, 8), "a", None)
    monkeypatch.setattr("keras_vq.data.examples.serialize_example", fail)
    with pytest.raises(OSError):
        shards.write_shard(out / "codes-0.tfrecord", [example])
    assert list(out.iterdir()) == []


def test_records_as_a_source(program, preset, out, tmp_path):
    """With --tfrecord and without: a data set that is one file."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (5, 16, 16, 3)).astype("uint8")
    records = tmp_path / "train.tfrecord"
    with tf.io.TFRecordWriter(str(records)) as writer:
        for i, image in enumerate(images):
            picture = tf.train.BytesList(
                value=[tf.io.encode_png(image).numpy()]
            )
            label = tf.train.Int64List(value=[7 * i])
            features = {
                "image": tf.train.Feature(bytes_list=picture),
                "label": tf.train.Feature(int64_list=label),
            }
            features = tf.train.Features(feature=features)
            example = tf.train.Example(features=features)
            writer.write(example.SerializeToString())
    command = ["encode", records, out, "--preset", preset, "--tfrecord"]
    assert program(*command, "--batch-size", 1)[0] == 0
    found = [x for p in sorted(out.glob("*.tfrecord")) for x in examples(p)]
    assert [x["label"][0] for x in found] == [0, 7, 14, 21, 28]
    assert found[3]["name"][0] == b"train-0000003"
    for image, example in zip(images, found, strict=True):
        _, codes = reconstruction(preset, image)
        np.testing.assert_array_equal(example["codes"], codes.ravel())
    path = tmp_path / "codes.npz"
    command = ["encode", records, path, "--preset", preset]
    assert program(*command, "--batch-size", 1)[0] == 0
    with np.load(path) as archive:
        assert archive["codes"].shape == (5, 4, 4)
