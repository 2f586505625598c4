"""The transposed convolution that makes images gives what Keras' gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import Conv2DTranspose


def _layer(cls, channels, dtype="float32", **kwargs):
    arguments = {"filters": 3, "kernel_size": 4, "strides": 2}
    layer = cls(padding="same", dtype=dtype, **{**arguments, **kwargs})
    layer.build((None, None, None, channels))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def _step(layer, x, upstream, jit_compile=False):
    """Output and the gradients of input, kernel and bias."""

    @tf.function(jit_compile=jit_compile)
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, *(w.value for w in layer.trainable_weights)]
        return y, *tape.gradient(y, sources, tf.cast(upstream, y.dtype))

    y, *gradients = run(x, upstream)
    assert y.dtype == layer.compute_dtype
    return [np.asarray(keras.ops.cast(v, "float32")) for v in (y, *gradients)]


def _data(shape, filters=3, seed=1):
    rng = np.random.default_rng(seed)
    batch, height, width, _ = shape
    upstream = (batch, 2 * height, 2 * width, filters)
    return (
        rng.normal(size=shape).astype("float32"),
        rng.normal(size=upstream).astype("float32"),
    )


def _kinds_of_operations(layer, training, channels=5):
    graph = tf.function(lambda x: layer(x, training=training))
    concrete = graph.get_concrete_function(
        tf.TensorSpec((2, None, None, channels))
    )
    return {operation.type for operation in concrete.graph.get_operations()}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "dtype, tolerance",
    # Some ten roundings to 8 or 11 bits; processors differ in where they round.
    [("float32", 1e-5), ("mixed_bfloat16", 6e-2), ("mixed_float16", 1e-2)],
)
def test_equals_keras(dtype, tolerance, jit_compile):
    x, upstream = _data((2, 5, 4, 6))
    ours = _layer(Conv2DTranspose, 6, dtype, activation="tanh")
    theirs = _layer(keras.layers.Conv2DTranspose, 6, dtype, activation="tanh")
    for got, want in zip(
        _step(ours, x, upstream, jit_compile),
        _step(theirs, x, upstream),
        strict=True,
    ):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, atol=tolerance * scale)


@pytest.mark.parametrize("filters", [1, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (7, 2)])
def test_equals_numpy(size, filters):
    x, upstream = _data((3, *size, 5), filters)
    layer = _layer(Conv2DTranspose, 5, filters=filters)
    kernel, bias = layer.get_weights()
    height, width = size
    # Every position adds its 4x4 patch; one pixel on each side falls off.
    y = np.zeros((3, 2 * height + 2, 2 * width + 2, filters))
    padded = np.pad(upstream, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dx, dk = np.zeros(x.shape), np.zeros(kernel.shape)
    for i in range(height):
        for j in range(width):
            patch = np.s_[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            y[patch] += np.einsum("bc,hwoc->bhwo", x[:, i, j], kernel)
            dx[:, i, j] = np.einsum("bhwo,hwoc->bc", padded[patch], kernel)
            dk += np.einsum("bhwo,bc->hwoc", padded[patch], x[:, i, j])
    want = [y[:, 1:-1, 1:-1] + bias, dx, dk, upstream.sum((0, 1, 2))]
    for got, expected in zip(_step(layer, x, upstream), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_inference_keeps_the_one_operation():
    layer = _layer(Conv2DTranspose, 5)
    assert "DepthToSpace" in _kinds_of_operations(layer, training=True)
    kinds = _kinds_of_operations(layer, training=False)
    assert "Conv2DBackpropInput" in kinds and "DepthToSpace" not in kinds


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": 5},
        {"kernel_size": 3},
        {"strides": 1},
        {"strides": 4},
        {"padding": "valid"},
        {"use_bias": False},
        {"kernel_size": (4, 2), "strides": (2, 1)},
    ],
)
def test_other_arguments(arguments):
    arguments = {"padding": "same", "kernel_size": 4, **arguments}
    arguments = {"filters": 3, "strides": 2, **arguments}
    x = np.random.default_rng(2).normal(size=(2, 5, 3, 4)).astype("float32")
    ours = Conv2DTranspose(**arguments)
    theirs = keras.layers.Conv2DTranspose(**arguments)
    ours.build(x.shape)
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    got, want = ours(x, training=True), theirs(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_second_derivative():
    layer = _layer(Conv2DTranspose, 2)
    x, _ = _data((1, 2, 2, 2))
    x = tf.constant(x)

    def penalty(layer):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x, training=True) ** 3)
            slope = inner.gradient(y, x)
            total = tf.reduce_sum(slope**2)
        return outer.gradient(total, [x, layer.kernel.value])

    theirs = _layer(keras.layers.Conv2DTranspose, 2)
    for got, want in zip(penalty(layer), penalty(theirs), strict=True):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, atol=1e-5 * scale)


def test_configuration():
    layer = Conv2DTranspose(3, 4, strides=2, padding="same", name="image")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is Conv2DTranspose
    assert again.get_config() == layer.get_config()
