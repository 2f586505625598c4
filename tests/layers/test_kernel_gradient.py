"""Convolutions with another gradient of the kernel, against PyTorch's."""

import numpy as np
import pytest
import tensorflow as tf
import torch_vqgan as reference

from keras_vq.layers import PaddedConv2D, kernel_gradient


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    """As on a processor with AVX2, and for images of any size."""
    monkeypatch.setattr(kernel_gradient, "vectors_are_of_avx2", lambda: True)
    monkeypatch.setattr(kernel_gradient, "_MIN_CHANNELS", 8)
    monkeypatch.setattr(kernel_gradient, "_MIN_POSITIONS", 1)


def _layer(channels, filters, size=3, **kwargs):
    layer = PaddedConv2D(filters, size, pad=size // 2, **kwargs)
    layer.build((None, None, None, channels))
    return layer


def _images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _gradient_operations(layer, *sides):
    """How often a gradient of the kernel is TensorFlow's own."""

    @tf.function(
        input_signature=[
            tf.TensorSpec(
                (None, *sides, layer.groups * layer.kernel.shape[2]),
                layer.compute_dtype,
            )
        ]
    )
    def gradients(x):
        with tf.GradientTape() as tape:
            y = layer(x)
        return tape.gradient(y, layer.kernel.value)

    graph = gradients.get_concrete_function().graph
    return sum(o.type == "Conv2DBackpropFilter" for o in graph.get_operations())


@pytest.mark.parametrize("known", ["eager", "sides", "sides and batch"])
@pytest.mark.parametrize(
    "shape, filters",
    [
        ((2, 5, 7, 8), 9),
        ((3, 4, 1, 12), 8),
        ((1, 1, 6, 8), 16),
        ((2, 6, 5, 8), 3),
        ((1, 3, 1, 10), 7),
    ],
)
def test_outputs_and_gradients(shape, filters, known):
    layer = _layer(shape[-1], filters)
    variables = reference.layer_variables(layer, "layer")
    weights = reference.randomize(variables)
    function = layer
    if known != "eager":
        batch = shape[0] if known == "sides and batch" else None
        signature = [tf.TensorSpec((batch, *shape[1:]))]
        function = tf.function(layer, input_signature=signature)
    reference.assert_same(
        function,
        lambda x: reference.conv(weights, "layer", x, padding=1),
        _images(*shape),
        variables,
        weights,
    )
    assert _gradient_operations(layer, *shape[1:3]) == 0


@pytest.mark.parametrize("filters", [3, 8])
def test_gradient_of_gradient(filters):
    layer = _layer(8, filters)
    variables = reference.layer_variables(layer, "layer")
    weights = reference.randomize(variables)
    images, upstream = _images(2, 4, 5, 8), _images(2, 4, 5, filters, seed=1)
    with tf.GradientTape() as outer:
        x = tf.constant(images)
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            outputs = tf.square(layer(x))
        slopes = inner.gradient(outputs, [x, layer.kernel.value], upstream)
        total = sum(tf.reduce_sum(s**2) for s in slopes)
    got = outer.gradient(total, [x, layer.kernel.value, layer.bias.value])
    torch = reference.torch
    x = reference.images_to_torch(images)
    outputs = reference.conv(weights, "layer", x, padding=1).square()
    kernel, bias = list(weights.values())
    slopes = torch.autograd.grad(
        outputs,
        [x, kernel],
        reference.images_to_torch(upstream).detach(),
        create_graph=True,
    )
    total = sum(s.square().sum() for s in slopes)
    at_x, *want = torch.autograd.grad(total, [x, kernel, bias])
    reference.assert_close(got[0], reference.images_from_torch(at_x))
    reference.assert_close(
        got[1], want[0].permute(2, 3, 1, 0).numpy(), name="kernel"
    )
    reference.assert_close(got[2], want[1].numpy(), name="bias")


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the kernels that were treated so."""
    found, function = [], kernel_gradient.convolution

    def convolution(inputs, kernel):
        found.append(tuple(kernel.shape))
        return function(inputs, kernel)

    monkeypatch.setattr(kernel_gradient, "convolution", convolution)
    return found


@pytest.mark.parametrize(
    "filters, arguments",
    [
        (8, {"size": 1}),
        (8, {"size": 5}),
        (8, {"strides": 2}),
        (8, {"dilation_rate": 2}),
        (8, {"groups": 2}),
        # Too many for patches, too few for a product.
        (7, {}),
        (8, {"dtype": "float16"}),
    ],
)
def test_others_are_left_to_tensorflow(filters, arguments, calls, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_FEW_FILTERS", 6)
    images = _images(2, 5, 5, 16)
    _layer(16, filters, **arguments)(images)
    assert calls == []
    _layer(16, 8)(images)
    assert calls == [(3, 3, 16, 8)]


def test_unknown_sizes_and_other_processors(calls, monkeypatch):
    layer = _layer(8, 8)
    assert _gradient_operations(layer, None, 5) == 1
    monkeypatch.setattr(kernel_gradient, "vectors_are_of_avx2", lambda: False)
    assert _gradient_operations(layer, 5, 5) == 1
    assert calls == []
