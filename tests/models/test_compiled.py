"""Encode and decode are compiled, and nobody notices but by the time."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import VectorQuantizer
from keras_vq.models import VQAutoencoder

_METHODS = ["encode", "decode", "reconstruct"]


@pytest.fixture
def model():
    model = VQAutoencoder(
        networks.encoder(), VectorQuantizer(8, 4), networks.decoder()
    )
    model.adapt(networks.images(8, 8, 8, 3))
    return model


def _input(model, method, *shape):
    images = networks.images(*shape, 3)
    return np.asarray(model.encode(images)) if method == "decode" else images


def _by_hand(model, method, inputs):
    """The method in eager calls of the parts."""
    quantizer = model.quantizer
    if method == "decode":
        return model.decoder(quantizer.decode(inputs))
    codes = quantizer.encode(model.encoder(inputs))
    return codes if method == "encode" else _by_hand(model, "decode", codes)


@pytest.mark.parametrize("method", _METHODS)
def test_sizes_share_a_graph(model, method):
    sizes = [(2, 8, 8), (3, 8, 12), (1, 16, 8), (5, 24, 4)]
    inputs = [_input(model, method, *size) for size in sizes]
    for x in inputs:
        np.testing.assert_allclose(
            getattr(model, method)(x), _by_hand(model, method, x), atol=1e-5
        )
    functions = model._compiled_functions.by_name
    kept = [f for name, f in functions.items() if name[0] == method]
    assert [f.experimental_get_tracing_count() for f in kept] == [1, 1]


@pytest.mark.parametrize("method", _METHODS)
def test_what_changes_counts(model, method):
    """Weights at once, layers at the next `compile`."""
    inputs = _input(model, method, 2, 8, 8)
    call = getattr(model, method)
    before = np.asarray(call(inputs))
    for weight in [*model.encoder.weights, *model.decoder.weights]:
        weight.assign(-1.5 * weight)
    weights = np.asarray(call(inputs))
    assert not np.array_equal(weights, before)
    np.testing.assert_allclose(
        weights, _by_hand(model, method, inputs), atol=1e-5
    )
    for network in (model.encoder, model.decoder):
        network.layers[1].activation = keras.activations.tanh
    model.compile("sgd")
    np.testing.assert_allclose(
        call(inputs), _by_hand(model, method, inputs), atol=1e-5
    )


def test_as_it_is_inside_of_a_function(model):
    images = networks.images(2, 8, 8, 3)

    @tf.function
    def both(images):
        return model.decode(model.encode(images))

    np.testing.assert_allclose(
        both(images), model.decode(model.encode(images)), atol=1e-5
    )
    model.compile("sgd", run_eagerly=True)
    seen = []
    call = model.encoder.call

    def looked_at(inputs, **kwargs):
        seen.append(tf.executing_eagerly())
        return call(inputs, **kwargs)

    model.encoder.call = looked_at
    model.encode(images)
    assert seen == [True]


def test_gradients_of_decode(model):
    codes = _input(model, "decode", 2, 8, 8)
    weights = model.decoder.trainable_variables
    found = []
    for decode in (model.decode, lambda c: _by_hand(model, "decode", c)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(decode(codes) ** 2)
        found.append(tape.gradient(loss, [w.value for w in weights]))
    for ours, expected in zip(*found, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["encode", "reconstruct"])
def test_bytes_are_refused_before(model, method):
    with pytest.raises(ValueError, match="uint8"):
        getattr(model, method)(np.zeros((1, 8, 8, 3), "uint8"))
    assert model._compiled_functions is None or not (
        model._compiled_functions.by_name
    )
