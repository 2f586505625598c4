"""What Keras and loops find in the datasets of grain's engine."""

import warnings

import keras
import numpy as np
import pytest
from engines import TENSORFLOW

from keras_vq.data import engine, from_arrays, pipeline_of

on_grain = pytest.mark.skipif(TENSORFLOW, reason="tf.data is in use")


def numbered(count):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(images, (count, 4, 4, 1)).copy()


def order(dataset):
    return [
        np.round((np.asarray(b)[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()
        for b in dataset
    ]


@on_grain
def test_the_kind_of_dataset():
    grain = pytest.importorskip("grain")
    dataset = from_arrays(numbered(10), np.arange(10), batch_size=4)
    assert isinstance(dataset, grain.IterDataset)
    images, labels = next(iter(dataset))
    assert type(images) is np.ndarray and type(labels) is np.ndarray
    assert images.dtype == np.float32 and labels.dtype == np.int32
    mapped = dataset.map(lambda batch: batch[1])
    assert [x.tolist() for x in mapped] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert pipeline_of(mapped) is None


@on_grain
def test_keras_knows_the_length_and_sees_whole_epochs():
    """Its own adapter for grain warns at the end of each, and knows none."""
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    dataset = from_arrays(numbered(10), np.arange(10), batch_size=4)
    assert (len(dataset), dataset.num_batches) == (3, 3)
    assert dataset.has_partial_batch and dataset.partial_batch_size == 2
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_train_begin=lambda logs: seen.append(count.params["steps"]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(
            dataset,
            epochs=2,
            shuffle=False,
            validation_data=dataset,
            callbacks=[count],
            verbose=0,
        )
        assert model.predict(dataset, verbose=0).shape == (10, 1)
    assert seen == [3, 0, 1, 2, 0, 1, 2]


@on_grain
def test_the_first_batches_and_other_batches():
    dataset = from_arrays(numbered(10), batch_size=4)
    assert order(dataset.take(2)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert order(dataset.take(9)) == order(dataset)
    other = dataset.take(2).rebatch(3)
    assert len(other) == 3
    assert order(other) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    endless = from_arrays(numbered(10), batch_size=4, repeat=True)
    assert len(endless.take(5)) == 5
    assert len(order(endless.take(5).take(2))) == 2
    with pytest.raises(ValueError, match="finite"):
        endless.rebatch(2)
    cut = from_arrays(numbered(10), batch_size=3, shard=(1, 2))
    assert order(cut.take(1).rebatch(2)) == [[1, 3], [5]]


@pytest.fixture
def nothing_installed(monkeypatch):
    engine.is_tensorflow.cache_clear()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(engine, "is_installed", lambda package: False)
    yield
    engine.is_tensorflow.cache_clear()


def test_what_to_install_for_another_backend(nothing_installed):
    message = r"'jax' needs the package grain.*pip install keras_vq\[jax\]"
    with pytest.raises(ImportError, match=message):
        from_arrays(numbered(4))
    with pytest.raises(ImportError, match="tensorflow|TensorFlow"):
        engine.needs_tensorflow("This")
