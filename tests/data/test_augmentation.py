"""Augmentation layers: same seed, same batches, whatever the threads do."""

import warnings

import keras
import numpy as np
import pytest
from engines import TENSORFLOW, on_tensorflow
from pictures import noise

from keras_vq.data import from_arrays

LAYERS = {
    "colour": lambda: keras.layers.RandomColorJitter(
        (0, 255), brightness_factor=0.4, contrast_factor=0.3, seed=1
    ),
    "rotation": lambda: keras.layers.RandomRotation(0.2),
    "erasing": lambda: keras.layers.RandomErasing(factor=1.0),
    "crop": lambda: keras.layers.RandomCrop(10, 9),
    "several": lambda: keras.Sequential(
        [
            keras.layers.RandomFlip("vertical"),
            keras.layers.RandomTranslation(0.2, 0.2),
        ]
    ),
    "pipeline": lambda: keras.layers.Pipeline(
        [keras.layers.RandomZoom(0.3), keras.layers.RandomBrightness(0.3)]
    ),
}


@pytest.fixture(scope="module")
def images():
    return np.stack([noise(12, 12, seed=i) for i in range(20)])


def bits(dataset, count):
    return [np.asarray(batch).tobytes() for batch in dataset.take(count)]


@pytest.mark.parametrize("name", LAYERS)
def test_every_step_is_the_same_wherever_the_run_starts(images, name):
    def dataset(start=0, seed=3):
        # Every dataset has a layer of its own, as after a restart.
        return from_arrays(
            images,
            batch_size=5,
            augment=LAYERS[name](),
            repeat=True,
            shuffle=True,
            seed=seed,
            start_step=start,
        )

    whole = bits(dataset(), 8)
    assert len(set(whole)) == 8
    assert bits(dataset(), 8) == whole
    assert bits(dataset(start=5), 3) == whole[5:]
    assert bits(dataset(seed=4), 8) != whole


def test_one_layer_in_two_pipelines(images):
    """Neither moves the layer's own state, so neither sees the other."""
    layer = keras.layers.RandomContrast(0.5, seed=1)
    state = np.asarray(layer.generator.state)
    options = dict(batch_size=5, augment=layer, repeat=True)
    alone = bits(from_arrays(images, **options), 6)
    first, second = (from_arrays(images, **options) for _ in range(2))
    pairs = list(zip(first.take(6), second.take(6), strict=True))
    assert [np.asarray(a).tobytes() for a, _ in pairs] == alone
    assert [np.asarray(b).tobytes() for _, b in pairs] == alone
    np.testing.assert_array_equal(layer.generator.state, state)


def test_batches_and_epochs_are_augmented_differently():
    images = np.repeat(noise(12, 12)[None], 8, 0)
    dataset = from_arrays(
        images, batch_size=4, augment=keras.layers.RandomBrightness(0.5)
    )
    values = [float(np.mean(i)) for _ in range(3) for b in dataset for i in b]
    assert len(set(values)) == 24


def test_the_layer_gets_0_to_255_in_training_mode_and_is_clipped(images):
    seen = {}

    class Probe(keras.Layer):
        def call(self, inputs, training=False):
            seen.update(training=training, dtype=inputs.dtype)
            return 2 * inputs - 64

    ((batch, _),) = from_arrays(
        images, np.arange(20), batch_size=20, augment=Probe()
    )
    assert seen == {"training": True, "dtype": "float32"}
    expected = np.clip(2.0 * images - 64, 0, 255) / 127.5 - 1
    np.testing.assert_allclose(batch, expected, rtol=0, atol=1e-6)


def test_another_size_is_the_datasets_size(images):
    dataset = from_arrays(
        images, batch_size=5, augment=keras.layers.RandomCrop(8, 7)
    )
    assert dataset.element_spec.shape == (5, 8, 7, 3)
    for batch in dataset:
        assert batch.shape == (5, 8, 7, 3)


def test_functions_and_keras_random_without_a_seed(images):
    def len_of(batch):
        return keras.ops.shape(batch)[0]

    def darker(batch):
        return batch * keras.random.uniform((len_of(batch), 1, 1, 1))

    options = dict(batch_size=5, augment=darker, repeat=True)
    whole = bits(from_arrays(images, **options), 6)
    keras.utils.set_random_seed(99)
    late = from_arrays(images, start_step=4, **options)
    assert bits(late, 2) == whole[4:]
    assert len(set(whole)) == 6


def _hidden():
    """A function that draws from a hidden state, and what is said of it."""
    if not TENSORFLOW:
        generator = np.random.default_rng()
        return lambda x: x + generator.normal(size=x.shape), "hidden state"
    import tensorflow as tf

    def hidden(batch):
        return batch + tf.random.normal(tf.shape(batch))

    return hidden, "RandomStandardNormal"


def test_hidden_random_state_is_refused_or_warned_of(images):
    hidden, reason = _hidden()
    with pytest.raises(ValueError, match=f"{reason}.*repeat=True"):
        from_arrays(images, augment=hidden, repeat=True)
    with pytest.warns(UserWarning, match=reason):
        dataset = from_arrays(images, augment=hidden)
    assert next(iter(dataset)).shape == (20, 12, 12, 3)


def test_a_layer_that_rounds_is_warned_of(images):
    layer = keras.layers.RandomBrightness(0.1, dtype="mixed_bfloat16")
    with pytest.warns(UserWarning, match="bfloat16"):
        from_arrays(images, augment=layer)


def test_what_is_no_batch_of_images_is_refused(images):
    with pytest.raises(ValueError, match="3 channel.*Received: shape"):
        from_arrays(images, augment=lambda x: x[..., :1])
    with pytest.raises(ValueError, match="one size"):
        from_arrays(images, augment=keras.layers.Flatten())


# KerasCV.


def crops(images, count=None, **options):
    pytest.importorskip("tensorflow", reason="KerasCV is TensorFlow's")
    pytest.importorskip("keras_cv", reason="needs the extra `cv`")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return from_arrays(images, augment="random_resized_crop", **options)


def test_random_resized_crop_from_any_step(images):
    options = dict(image_size=8, resize=12, batch_size=5, shuffle=True)
    whole = bits(crops(images, repeat=True, **options), 8)
    assert len(set(whole)) == 8
    late = crops(images, repeat=True, start_step=5, **options)
    assert bits(late, 3) == whole[5:]
    assert late.element_spec.shape == (5, 8, 8, 3)


def test_random_resized_crops_are_parts_of_the_image():
    """A picture of its own coordinates shows where each crop was made."""
    y, x = np.mgrid[:64, :64]
    image = np.stack([4 * y, 4 * x, 0 * x], -1).astype(np.uint8)
    images = np.repeat(image[None], 300, 0)
    (batch,) = crops(images, image_size=64, batch_size=300)
    places = (np.asarray(batch)[..., :2] + 1) * 127.5 / 4
    top, left = places[:, 0, 0].T
    bottom, right = places[:, -1, -1].T
    assert min(top.min(), left.min()) >= -0.01
    assert max(bottom.max(), right.max()) <= 63.01
    height, width = bottom - top, right - left
    area = height * width / 63**2
    # A side cut at the image's border makes the area smaller than 80 %.
    assert 0.68 < area.min() and area.max() < 1.01
    assert area.std() > 0.03 and (width / height).std() > 0.08
    assert 0.7 < (width / height).min() and (width / height).max() < 1.4
    assert top.std() > 1 and left.std() > 1


@on_tensorflow
def test_layers_of_keras_cv_work_where_nothing_is_repeated(images):
    keras_cv = pytest.importorskip("keras_cv", reason="needs the extra `cv`")
    layer = keras_cv.layers.RandomCropAndResize((8, 9), (0.5, 1.0), (0.8, 1.2))
    with pytest.warns(UserWarning, match="RngReadAndSkip"):
        dataset = from_arrays(images, augment=layer, batch_size=5)
    batches = [np.asarray(batch) for batch in dataset]
    assert [batch.shape for batch in batches] == [(5, 8, 9, 3)] * 4
    with pytest.raises(ValueError, match="hidden"):
        from_arrays(images, augment=layer, repeat=True)


@on_tensorflow
def test_without_keras_cv_the_message_says_what_to_install(images, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "keras_cv.core", None)
    with pytest.raises(ImportError, match=r"keras_vq\[cv\]"):
        from_arrays(images, image_size=8, augment="random_resized_crop")


def test_without_tensorflow_the_message_says_so(images, monkeypatch):
    if TENSORFLOW:
        pytest.skip("TensorFlow is there")
    monkeypatch.setattr("keras_vq.data.engine.is_installed", lambda x: False)
    with pytest.raises(ImportError, match="needs TensorFlow"):
        from_arrays(images, image_size=8, augment="random_resized_crop")
