"""ActNorm starts from data once and is a plain layer from then on."""

import keras
import numpy as np
import pytest

from keras_vq.layers.act_norm import ActNorm


def _features(shape=(4, 5, 3, 2), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal([2, -3], [0.5, 4], shape).astype("float32")


def test_changes_nothing_before_it_is_adapted():
    layer = ActNorm()
    assert not layer.initialized
    np.testing.assert_array_equal(layer(_features()), _features())
    assert not layer.initialized


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (9, 2), (3, 7, 2)])
def test_normalizes_the_batch_it_is_adapted_to(shape):
    layer = ActNorm()
    layer.adapt(_features(shape))
    assert layer.initialized
    y = np.asarray(layer(_features(shape))).reshape(-1, 2)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0, ddof=1), 1, rtol=1e-5)
    # Other data is moved alike, whatever is in its batch.
    other = _features((6, 2), seed=1)
    one_by_one = [np.asarray(layer(row[None]))[0] for row in other]
    np.testing.assert_allclose(layer(other), one_by_one, rtol=1e-6)
    x = _features(shape).reshape(-1, 2).astype("float64")
    want = (other - x.mean(0)) / x.std(0, ddof=1)
    np.testing.assert_allclose(layer(other), want, rtol=1e-4, atol=1e-5)


def test_constant_channel_stays_finite():
    layer = ActNorm()
    layer.adapt(np.full((2, 3), 5.0))
    np.testing.assert_array_equal(layer(np.full((2, 3), 5.0)), 0)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros((1, 2)), r"shape \(1, 2\)$"),
        (np.zeros((0, 2)), r"shape \(0, 2\)$"),
        (np.full((3, 2), np.inf), r"shape \(3, 2\), with NaN or infinite"),
    ],
)
def test_what_it_cannot_start_from(values, message):
    layer = ActNorm()
    with pytest.raises(ValueError, match=message):
        layer.adapt(values)
    assert not layer.initialized


def test_configuration_and_weights(dtype_policy):
    dtype_policy("mixed_float16")
    layer = ActNorm(epsilon=1e-3, name="norm")
    layer.adapt(_features())
    assert layer(_features()).dtype == "float16"
    assert [w.name for w in layer.trainable_weights] == ["loc", "scale"]
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    assert again.initialized
    np.testing.assert_array_equal(again(_features()), layer(_features()))
