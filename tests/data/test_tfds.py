"""tensorflow-datasets: prepared data sets, and what is missing."""

import time

import numpy as np
import pytest
from pictures import noise

from keras_vq.data import from_tfds, pipeline_of

tfds = pytest.importorskip(
    "tensorflow_datasets", reason="needs the extra `datasets`"
)


def images(split):
    first = {"train": 0, "test": 100}[split]
    return [noise(8, 8, seed=first + i) for i in range(10)]


def labels(count):
    return [(7 * i) % 3 for i in range(count)]


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    """Returns a folder with a data set that tfds itself wrote."""
    import tensorflow as tf

    if request.param == "array_record":
        pytest.importorskip("array_record")
    folder = tmp_path_factory.mktemp(request.param)

    def dataset(split):
        return tf.data.Dataset.from_tensor_slices(
            {"image": np.stack(images(split)), "label": labels(10)}
        )

    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_pictures",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(
                    shape=(8, 8, 3), encoding_format="png"
                ),
                "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            }
        ),
        split_datasets={s: dataset(s) for s in ("train", "test")},
        data_dir=folder,
        file_format=request.param,
        disable_shuffling=True,
    )
    return folder


def pixels(batches):
    return np.concatenate([np.round((b + 1) * 127.5) for b in batches])


def test_a_prepared_data_set(prepared):
    dataset = from_tfds(
        "tiny_pictures", "test", prepared, labels=True, batch_size=4
    )
    assert pipeline_of(dataset).class_names == ["a", "b", "c"]
    batches = list(dataset)
    np.testing.assert_array_equal(
        pixels([b[0] for b in batches]), images("test")
    )
    found = np.concatenate([b[1] for b in batches])
    np.testing.assert_array_equal(found, labels(10))


def test_a_part_of_a_split(prepared):
    dataset = from_tfds("tiny_pictures", "train[2:5]", prepared)
    np.testing.assert_array_equal(pixels(dataset), images("train")[2:5])


def test_shuffle_and_start_step(prepared):
    options = dict(shuffle=True, repeat=True, flip=True, batch_size=3)
    whole = from_tfds("tiny_pictures", data_dir=prepared, **options)
    late = from_tfds(
        "tiny_pictures", data_dir=prepared, start_step=4, **options
    )
    for a, b in zip(list(whole.take(6))[4:], late.take(2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_splits_and_features(prepared):
    with pytest.raises(ValueError, match="'val'.*train, test|test, train"):
        from_tfds("tiny_pictures", "val", prepared)
    with pytest.raises(ValueError, match=r"image features \['image'\]"):
        from_tfds("tiny_pictures", data_dir=prepared, image_key="picture")
    with pytest.raises(ValueError, match="source with labels"):
        from_tfds(
            "tiny_pictures", data_dir=prepared, label_key="y", labels=True
        )


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012"])
def test_a_missing_data_set_is_said_at_once(tmp_path, name):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="download_and_prepare") as e:
        from_tfds(name, data_dir=tmp_path)
    assert time.monotonic() - start < 20
    assert str(tmp_path) in str(e.value) and "download=True" in str(e.value)


def test_an_unknown_data_set_is_said_at_once(tmp_path):
    start = time.monotonic()
    with pytest.raises(ValueError, match="knows no data set 'cifar99'"):
        from_tfds("cifar99", data_dir=tmp_path)
    assert time.monotonic() - start < 20
