"""Normalization and swish in few passes, against PyTorch's two layers."""

import keras
import numpy as np
import pytest
import small_vqgan
import tensorflow as tf
import torch_vqgan as reference

from keras_vq.layers import normalized_swish as module
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.normalized_swish import _in_few_passes, normalized_swish
from keras_vq.layers.processor import plain_operations


@pytest.fixture(params=["plain", "xla"])
def passes(request, monkeypatch):
    """Runs a test with the operations of small and of large images."""
    if request.param == "xla":
        monkeypatch.setattr(module, "_MIN_SIZE_FOR_XLA", 0)
    return request.param


def _built(channels, groups, **kwargs):
    layer = GroupNormalization(groups, **kwargs)
    layer.build((None, None, None, channels))
    variables = reference.layer_variables(layer, "layer")
    return layer, variables, reference.randomize(variables)


def _images(*shape):
    rng = np.random.default_rng(0)
    return rng.normal(3.0, 2.0, shape).astype("float32")


@pytest.mark.parametrize("size", ["eager", "graph", "graph of any size"])
@pytest.mark.parametrize(
    "shape, groups", [((2, 5, 7, 12), 4), ((1, 3, 2, 6), 6), ((3, 4, 1, 8), 1)]
)
def test_outputs_and_gradients(shape, groups, size, passes):
    layer, variables, weights = _built(shape[-1], groups)
    assert _in_few_passes(layer, tf.constant(_images(*shape)))

    def function(images):
        return normalized_swish(layer, images)

    if size != "eager":
        sides = (None, None) if size == "graph of any size" else shape[1:3]
        signature = [tf.TensorSpec((None, *sides, shape[-1]))]
        function = tf.function(function, input_signature=signature)
        known = size == "graph" and passes == "xla"
        assert _has_xla(function.get_concrete_function()) == known
    reference.assert_same(
        function,
        lambda x: reference.swish(reference.norm(weights, "layer", x, groups)),
        _images(*shape),
        variables,
        weights,
    )


@pytest.mark.parametrize("graph", [False, True])
def test_gradient_of_gradient(graph, passes):
    """A penalty on gradients would otherwise be silently wrong."""
    layer, variables, weights = _built(8, 4)
    images = _images(2, 3, 5, 8)
    upstream = np.random.default_rng(1).normal(size=images.shape)

    def penalty(images):
        with tf.GradientTape() as outer:
            sources = [images, *(v.value for v in variables.values())]
            outer.watch(images)
            with tf.GradientTape() as inner:
                inner.watch(images)
                outputs = normalized_swish(layer, images)
            slope = inner.gradient(
                outputs, images, tf.constant(upstream, "float32")
            )
            total = tf.reduce_sum(tf.square(slope))
        return outer.gradient(total, sources)

    if graph:
        penalty = tf.function(penalty)
    got = penalty(tf.constant(images))
    x = reference.images_to_torch(images)
    outputs = reference.swish(reference.norm(weights, "layer", x, 4))
    torch = reference.torch
    (slope,) = torch.autograd.grad(
        outputs,
        x,
        reference.images_to_torch(upstream).detach(),
        create_graph=True,
    )
    total = slope.square().sum()
    dx, *want = torch.autograd.grad(total, [x, *weights.values()])
    reference.assert_close(got[0], reference.images_from_torch(dx))
    for ours, theirs in zip(got[1:], want, strict=True):
        reference.assert_close(ours, theirs.numpy())


def test_plain_operations(monkeypatch):
    monkeypatch.setattr(module, "_MIN_SIZE_FOR_XLA", 0)
    layer, _, _ = _built(8, 4)

    def traced():
        function = tf.function(lambda x: normalized_swish(layer, x))
        return function.get_concrete_function(tf.TensorSpec((None, 3, 5, 8)))

    assert _has_xla(traced())
    with plain_operations():
        assert not _has_xla(traced())
    assert _has_xla(traced())


@pytest.mark.soak
def test_other_programs_get_plain_operations(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_MIN_SIZE_FOR_XLA", 0)
    model = small_vqgan.make()
    images = keras.InputSpec(shape=(None, 8, 8, 3), dtype="float32")
    function = tf.function(lambda x: model(x, training=False))
    signature = tf.TensorSpec((None, 8, 8, 3))
    assert _has_xla(function.get_concrete_function(signature))
    path = str(tmp_path / "saved")
    model.export(path, input_signature=[images], verbose=False)
    for name in ("serve", "encode"):
        endpoint = getattr(tf.saved_model.load(path), name)
        for function in endpoint.concrete_functions:
            assert not _has_xla(function)


def _has_xla(function):
    graph = function.graph.as_graph_def()
    functions = [f.node_def for f in graph.library.function]
    return any(
        "_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b
        for nodes in [graph.node, *functions]
        for node in nodes
    )


def test_half_precision_takes_the_two_layers():
    layer, _, weights = _built(8, 4, dtype="mixed_float16")
    images = _images(2, 3, 5, 8).astype("float16")
    outputs = normalized_swish(layer, tf.constant(images))
    assert outputs.dtype == "float16"
    x = reference.images_to_torch(images)
    want = reference.swish(reference.norm(weights, "layer", x, 4))
    reference.assert_close(outputs, reference.images_from_torch(want), 2e-3)
