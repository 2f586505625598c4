"""TFRecord files: written by TensorFlow, read by us, compared with Pillow."""

import io
import pathlib

import numpy as np
import pytest
from engines import error_in_a_loop
from pictures import encode, noise
from PIL import Image

from keras_vq.data import ImageError, from_tfrecord, pipeline_of

tf = pytest.importorskip("tensorflow", reason="it writes the files")


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value))


def example(**features):
    features = {k: feature(v) for k, v in features.items()}
    return tf.train.Example(
        features=tf.train.Features(feature=features)
    ).SerializeToString()


def write(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in examples:
            writer.write(record)
    return str(path)


def pictures(count, first=0, **options):
    images = [noise(8, 8, seed=first + i) for i in range(count)]
    return images, [
        example(image=encode(image, "PNG"), label=[first + i])
        for i, image in enumerate(images)
    ]


def as_pixels(batch):
    return np.round((np.asarray(batch) + 1) * 127.5).astype(int)


@pytest.fixture
def record_file(tmp_path):
    return write(tmp_path / "a.tfrecord", pictures(7)[1])


def test_images_and_labels(record_file):
    batches = list(from_tfrecord(record_file, batch_size=4, labels=True))
    assert [b[0].shape for b in batches] == [(4, 8, 8, 3), (3, 8, 8, 3)]
    assert np.asarray(batches[0][0]).dtype == np.float32
    assert np.asarray(batches[0][1]).dtype == np.int32
    images = np.concatenate([as_pixels(b[0]) for b in batches])
    np.testing.assert_array_equal(images, pictures(7)[0])
    labels = np.concatenate([b[1] for b in batches])
    np.testing.assert_array_equal(labels, range(7))


def test_without_labels_only_images_and_the_range_is_minus_1_to_1(tmp_path):
    image = np.array([[[0] * 3, [255] * 3, [51] * 3]], np.uint8)
    path = write(tmp_path / "a", [example(image=encode(image, "PNG"))])
    (batch,) = from_tfrecord(path)
    np.testing.assert_array_equal(batch[0, 0, :2, 0], [-1.0, 1.0])
    np.testing.assert_allclose(batch[0, 0, 2], -0.6, atol=1e-6)


@pytest.mark.parametrize("how", ["list", "glob", "path", "mixed"])
def test_several_files(tmp_path, how):
    paths = [
        write(tmp_path / f"{i}.tfrecord", pictures(3, 3 * i)[1])
        for i in range(3)
    ]
    files = {
        "list": paths,
        "glob": str(tmp_path / "*.tfrecord"),
        "path": tmp_path / "1.tfrecord",
        "mixed": [paths[0], tmp_path / "[12].tfrecord"],
    }[how]
    dataset = from_tfrecord(files, batch_size=9, labels=True)
    ((_, labels),) = dataset
    expected = [3, 4, 5] if how == "path" else range(9)
    np.testing.assert_array_equal(labels, expected)


def test_other_keys(tmp_path):
    picture = encode(noise(8, 8), "JPEG")
    path = write(tmp_path / "a", [example(**{"x/jpg": picture, "y": [4]})])
    dataset = from_tfrecord(path, "x/jpg", "y", labels=True)
    assert next(iter(dataset))[1] == 4
    with pytest.raises(ImageError, match="no feature 'image'.*'x/jpg', 'y'"):
        from_tfrecord(path)
    with pytest.raises(ImageError, match="no feature 'label'.*'x/jpg', 'y'"):
        from_tfrecord(path, "x/jpg", labels=True)
    with pytest.raises(ImageError, match="one bytes value.*int64_list"):
        from_tfrecord(path, "y")


def test_two_labels_are_refused(tmp_path):
    record = example(image=encode(noise(8, 8), "PNG"), label=[1, 2])
    path = write(tmp_path / "a", [record])
    with pytest.raises(ImageError, match="one int64 value.*2 value"):
        from_tfrecord(path, labels=True)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        from_tfrecord(tmp_path / "none.tfrecord")
    with pytest.raises(FileNotFoundError, match="matches no file"):
        from_tfrecord(str(tmp_path / "*.tfrecord"))
    with pytest.raises(FileNotFoundError, match="is a folder"):
        from_tfrecord(tmp_path)
    with pytest.raises(FileNotFoundError):
        from_tfrecord([])


def test_an_empty_file(tmp_path):
    path = write(tmp_path / "a", [])
    with pytest.raises(ValueError, match="no records"):
        from_tfrecord(path)


@pytest.mark.parametrize("cut", [1, 8, 200])
def test_a_truncated_file_is_found_at_once(record_file, cut):
    path = pathlib.Path(record_file)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="truncated.*byte") as caught:
        from_tfrecord(path)
    assert record_file in str(caught.value)


def test_what_is_no_tfrecord(tmp_path, record_file):
    path = tmp_path / "b"
    path.write_bytes(encode(noise(), "PNG"))
    with pytest.raises(ValueError, match="not a TFRecord file"):
        from_tfrecord(path)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        writer.write(b"something")
    with pytest.raises(ValueError, match="gunzip"):
        from_tfrecord(path)
    write(path, [b"\xff\xff no example"])
    with pytest.raises(ImageError, match="not a `tf.train.Example`"):
        from_tfrecord(path)


def test_every_flipped_bit_is_found(record_file):
    """Length, checksums and content: nothing can change unnoticed."""
    path = pathlib.Path(record_file)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    places = list(range(16)) + list(rng.integers(0, len(good), 30))
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(bad))
        with pytest.raises(
            (ValueError, error_in_a_loop()),
            match="damaged|truncated|not a TFRecord",
        ):
            list(from_tfrecord(path, batch_size=7))


def test_a_bad_picture_names_file_and_place(tmp_path):
    records = pictures(2)[1] + [example(image=encode(noise(), "JPEG")[:90])]
    path = write(tmp_path / "c.tfrecord", records)
    dataset = from_tfrecord(path, image_size=8, batch_size=3)
    with pytest.raises(error_in_a_loop()) as caught:
        list(dataset)
    assert f"byte {sum(len(r) + 16 for r in records[:2])} of {path}" in str(
        caught.value
    )
    assert "truncated" in str(caught.value)


def test_real_cifar_has_pillows_pixels(data_dir):
    path = data_dir / "cifar10" / "test.tfrecord"
    dataset = from_tfrecord(path, batch_size=500, labels=True)
    assert pipeline_of(dataset).num_examples == 10_000
    assert len(dataset) == 20
    images, labels = next(iter(dataset))
    records = tf.data.TFRecordDataset(str(path)).take(500)
    for image, label, record in zip(images, labels, records, strict=True):
        parsed = tf.train.Example.FromString(record.numpy()).features.feature
        picture = parsed["image"].bytes_list.value[0]
        expected = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        expected = expected / 127.5 - 1
        assert np.abs(image - expected).max() <= 2 / 255 + 1e-6
        assert label == parsed["label"].int64_list.value[0]


def test_real_tiny_imagenet_holds_grey_pictures_too(data_dir):
    path = data_dir / "tiny_imagenet" / "val.tfrecord"
    dataset = from_tfrecord(path, batch_size=500)
    grey = 0
    for batch in dataset.take(2):
        assert batch.shape == (500, 64, 64, 3)
        assert -1 <= np.min(batch) < -0.9 and 0.9 < np.max(batch) <= 1
        same = np.ptp(batch, axis=-1).max(axis=(1, 2)) == 0
        grey += same.sum()
    assert 1 <= grey <= 60


# Pictures that are not encoded, as in FFHQ's own files


def _raw(count, shape=(3, 8, 6)):
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (count, *shape)).astype("uint8")
    return images, [
        example(data=image.tobytes(), shape=list(shape)) for image in images
    ]


def test_pictures_byte_by_byte(tmp_path):
    images, records = _raw(5)
    path = write(tmp_path / "ffhq-r03.tfrecords", records)
    keys = {"image_key": "data", "shape_key": "shape"}
    batches = list(from_tfrecord(path, batch_size=3, **keys))
    got = np.concatenate([as_pixels(batch) for batch in batches])
    np.testing.assert_array_equal(got, images.transpose(0, 2, 3, 1))
    grey = next(iter(from_tfrecord(path, channels=1, **keys)))
    assert grey.shape == (5, 8, 6, 1)
    small = next(iter(from_tfrecord(path, image_size=4, **keys)))
    assert small.shape == (5, 4, 4, 3)
    with pytest.raises(ImageError, match="more than 40 pixels.*8 x 6"):
        from_tfrecord(path, max_pixels=40, **keys)
    with pytest.raises(ImageError, match="no feature 'size'"):
        from_tfrecord(path, image_key="data", shape_key="size", image_size=4)


@pytest.mark.parametrize("shape", [[3, 8, 7], [3, 48], [-3, -8, 6], [0, 8, 6]])
def test_bytes_of_another_shape(tmp_path, shape):
    data = np.zeros(3 * 8 * 6, "uint8").tobytes()
    record = example(data=data, shape=shape)
    path = write(tmp_path / "bad.tfrecords", [record])
    with pytest.raises(ImageError, match="Received"):
        next(iter(from_tfrecord(path, image_key="data", shape_key="shape")))
