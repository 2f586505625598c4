"""The blocks of the networks, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import PaddedConv2D, ResidualBlock


def _convolution(images, kernel, bias, stride, pad, dilation=1):
    """Straight from the definition, in float64."""
    images = np.pad(
        np.asarray(images, "float64"), ((0, 0), (pad, pad), (pad, pad), (0, 0))
    )
    height, width, _, filters = kernel.shape
    rows = (images.shape[1] - (height - 1) * dilation - 1) // stride + 1
    columns = (images.shape[2] - (width - 1) * dilation - 1) // stride + 1
    output = np.zeros((len(images), rows, columns, filters)) + bias
    for i in range(height):
        for j in range(width):
            top, left = i * dilation, j * dilation
            part = images[
                :,
                top : top + stride * (rows - 1) + 1 : stride,
                left : left + stride * (columns - 1) + 1 : stride,
            ]
            output += part @ np.asarray(kernel, "float64")[i, j]
    return output


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 6)])
@pytest.mark.parametrize(
    "kernel, stride, pad, dilation",
    [
        (4, 2, 1, 1),
        (4, 1, 1, 1),
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (3, 2, 0, 1),
        (1, 1, 0, 1),
        (5, 1, 2, 1),
        (3, 1, 2, 2),
        (3, 1, 3, 1),
    ],
)
def test_same_padding_on_every_side(size, kernel, stride, pad, dilation):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *size, 3)).astype("float32")
    layer = PaddedConv2D(
        5, kernel, pad=pad, strides=stride, dilation_rate=dilation
    )
    layer.build(images.shape)
    layer.bias.assign(rng.normal(size=5))
    expected = _convolution(
        images,
        np.asarray(layer.kernel),
        np.asarray(layer.bias),
        stride,
        pad,
        dilation,
    )
    np.testing.assert_allclose(layer(images), expected, atol=2e-5)
    assert layer.compute_output_shape(images.shape) == expected.shape
    unknown = layer.compute_output_shape((None, None, None, 3))
    assert unknown == (None, None, None, 5)
    symbolic = layer(keras.KerasTensor(images.shape))
    assert symbolic.shape == expected.shape
    # The size is not known in a graph.
    graph = tf.function(
        layer, input_signature=[tf.TensorSpec((None, None, None, 3))]
    )
    np.testing.assert_allclose(graph(images), expected, atol=2e-5)


def test_padded_convolution_configuration():
    layer = PaddedConv2D(5, 4, pad=1, strides=2, use_bias=False)
    config = layer.get_config()
    assert config["pad"] == 1 and "padding" not in config
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == config
    assert again.strides == (2, 2) and again.use_bias is False


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_residual_block(inplace, normalized):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 5, 4, 6)).astype("float32")
    block = ResidualBlock(
        7, use_batch_normalization=normalized, inplace_relu_residual=inplace
    )
    block.build(inputs.shape)
    for weight in block.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape))
    x = np.maximum(inputs.astype("float64"), 0)
    skip = x if inplace else inputs
    x = _convolution(x, *_weights(block.conv_1), 1, 1)
    x = np.maximum(_normalize(block.norm_1, x), 0)
    x = _convolution(x, *_weights(block.conv_2), 1, 0)
    expected = skip + _normalize(block.norm_2, x)
    np.testing.assert_allclose(block(inputs), expected, rtol=1e-4)
    assert block.compute_output_shape(inputs.shape) == inputs.shape
    again = ResidualBlock.from_config(block.get_config())
    again.build(inputs.shape)
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(inputs), block(inputs))


def _weights(layer):
    return np.asarray(layer.kernel), np.asarray(layer.bias)


def _normalize(layer, values):
    if layer is None:
        return values
    gamma, beta, mean, variance = (
        np.asarray(w, "float64") for w in layer.get_weights()
    )
    return (values - mean) / np.sqrt(variance + 1e-5) * gamma + beta
