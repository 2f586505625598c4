"""The blocks of VQGAN against PyTorch: outputs and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch_vqgan as reference

from keras_vq.layers import attention as attention_module
from keras_vq.layers import resampling
from keras_vq.layers.attention import SpatialAttention
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.group_residual import GroupResidualBlock
from keras_vq.layers.resampling import DownsamplingConv2D, UpsamplingConv2D

LAYERS = {
    "residual": lambda **kw: GroupResidualBlock(12, groups=4, **kw),
    "attention": lambda **kw: SpatialAttention(groups=4, **kw),
}


def _images(*shape, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(mean, 1.0, shape).astype("float32")


def _built(layer, channels):
    """The layer, its variables by name, and torch's tensors."""
    layer.build((None, None, None, channels))
    variables = reference.layer_variables(layer, "layer")
    return layer, variables, reference.randomize(variables)


def _graph(layer, channels):
    """The layer in a graph that knows no sizes."""
    signature = [tf.TensorSpec((None, None, None, channels))]
    return tf.function(layer, input_signature=signature)


@pytest.mark.parametrize("sums", ["product", "mean"])
@pytest.mark.parametrize(
    "shape, groups", [((2, 5, 7, 12), 4), ((1, 3, 2, 6), 6)]
)
def test_group_normalization(shape, groups, sums, monkeypatch):
    if sums == "mean":
        monkeypatch.setattr(
            "keras_vq.layers.group_normalization.tensorflow_on_processor",
            lambda: False,
        )
    layer, variables, weights = _built(GroupNormalization(groups), shape[-1])
    reference.assert_same(
        layer,
        lambda x: reference.norm(weights, "layer", x, groups),
        _images(*shape, mean=3.0),
        variables,
        weights,
    )


def test_group_normalization_has_float32_statistics():
    """Squares of 300 are no float16."""
    layer, variables, weights = _built(
        GroupNormalization(4, dtype="mixed_float16"), 8
    )
    assert {str(v.dtype) for v in variables.values()} == {"float32"}
    images = 300 + 4 * _images(2, 6, 5, 8)
    outputs = layer(images.astype("float16"))
    assert outputs.dtype == "float16"
    images = reference.images_to_torch(images.astype("float16"))
    want = reference.norm(weights, "layer", images, 4)
    reference.assert_close(outputs, reference.images_from_torch(want), 2e-3)


@pytest.mark.parametrize(
    "arguments, shape",
    [({}, (3, 5, 8)), ({"scale": False}, (3, 4, 5, 8)), ({}, (3, 8))],
)
def test_group_normalization_of_other_inputs(arguments, shape):
    x = _images(*shape)
    grouped = x.reshape(3, -1, 4, 2)
    want = grouped - grouped.mean((1, 3), keepdims=True)
    want /= np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    outputs = GroupNormalization(4, **arguments)(x)
    np.testing.assert_allclose(outputs, want.reshape(shape), atol=1e-5)


@pytest.mark.parametrize("channels", [8, 12])
def test_residual_block(channels):
    layer, variables, weights = _built(LAYERS["residual"](), channels)
    has_shortcut = "layer.nin_shortcut.weight" in variables
    assert has_shortcut == (channels != 12)
    reference.assert_same(
        layer,
        lambda x: reference.residual(weights, "layer", x, 4),
        _images(2, 5, 4, channels),
        variables,
        weights,
    )
    assert layer.compute_output_shape((2, 5, 4, channels)) == (2, 5, 4, 12)


@pytest.mark.parametrize("limit", [2**22, 80])
@pytest.mark.parametrize("known", [True, False])
def test_attention(known, limit, monkeypatch):
    """35 positions at once, and in portions of 2, of which the last has 1."""
    monkeypatch.setattr(attention_module, "_MAX_WEIGHTS", limit)
    layer, variables, weights = _built(LAYERS["attention"](), 8)
    reference.assert_same(
        layer if known else _graph(layer, 8),
        lambda x: reference.attention(weights, "layer", x, 4),
        _images(2, 5, 7, 8),
        variables,
        weights,
    )


def test_attention_in_portions_never_holds_all_weights(monkeypatch):
    monkeypatch.setattr(attention_module, "_MAX_WEIGHTS", 2**8)
    layer, _, _ = _built(LAYERS["attention"](), 8)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, x)

    graph = step.get_concrete_function(tf.TensorSpec((2, 8, 16, 8))).graph
    graphs = [graph, *(f.graph for f in graph._functions.values())]
    shapes = {
        tuple(output.shape)
        for g in graphs
        for operation in g.get_operations()
        for output in operation.outputs
        if output.shape.rank == 3
    }
    # 128 positions, 2 rows at a time.
    assert (2, 2, 128) in shapes and (2, 128, 128) not in shapes


@pytest.mark.parametrize("size", [(6, 4), (7, 4), (5, 3), (2, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_downsampling(known, size):
    layer = DownsamplingConv2D(5)
    layer.build((None, None, None, 3))
    variables = reference.layer_variables(layer, "downsample")
    weights = reference.randomize(variables)
    images = _images(2, *size, 3)
    reference.assert_same(
        layer if known else _graph(layer, 3),
        lambda x: reference.downsample(weights, "downsample", x),
        images,
        variables,
        weights,
    )
    want = (2, size[0] // 2, size[1] // 2, 5)
    assert layer.compute_output_shape(images.shape) == want
    assert layer.compute_output_shape((None,) * 3 + (3,)) == (None,) * 3 + (5,)


@pytest.mark.parametrize("size", [(6, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize("at_once", [True, False])
def test_upsampling(at_once, size, monkeypatch):
    monkeypatch.setattr(resampling, "_MIN_POSITIONS", 1 if at_once else 10**9)
    layer = UpsamplingConv2D(5)
    layer.build((None, None, None, 3))
    variables = reference.layer_variables(layer, "upsample")
    weights = reference.randomize(variables)
    images = _images(2, *size, 3)
    reference.assert_same(
        layer if at_once else _graph(layer, 3),
        lambda x: reference.upsample(weights, "upsample", x),
        images,
        variables,
        weights,
    )
    want = (2, 2 * size[0], 2 * size[1], 5)
    assert layer.compute_output_shape(images.shape) == want


def _gradients_of(layer, variables):
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(tf.cast(y, "float32") ** 2)
        return tape.gradient(total, [x, *(v.value for v in variables)])

    return step


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("kind", LAYERS)
def test_checkpointing(kind, policy):
    """The same gradients; the forward pass is in the graph a second time."""
    gradients, products = [], []
    for checkpointing in (False, True):
        layer = LAYERS[kind](gradient_checkpointing=checkpointing, dtype=policy)
        layer, variables, _ = _built(layer, 8)
        images = tf.constant(_images(2, 4, 5, 8))
        step = _gradients_of(layer, list(variables.values()))
        gradients.append(step(images))
        graph = step.get_concrete_function(images).graph
        kinds = [operation.type for operation in graph.get_operations()]
        products.append(kinds.count("Conv2D"))
    assert products[1] >= 2 * products[0] - 1 and products[0] >= 3
    for got, want in zip(*gradients[::-1], strict=True):
        scale = np.abs(want).max() + 1e-3
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", LAYERS)
def test_mixed_precision(kind, policy):
    layer, variables, weights = _built(LAYERS[kind](dtype=policy), 8)
    assert {str(v.dtype) for v in variables.values()} == {"float32"}
    images = _images(2, 5, 4, 8)
    outputs = layer(images)
    assert outputs.dtype == layer.compute_dtype
    block = getattr(reference, kind)
    want = block(weights, "layer", reference.images_to_torch(images), 4)
    reference.assert_close(
        keras.ops.cast(outputs, "float32"),
        reference.images_from_torch(want),
        {"mixed_float16": 3e-3, "mixed_bfloat16": 3e-2}[policy],
    )


@pytest.mark.parametrize(
    "layer",
    [
        GroupNormalization(4, name="norm"),
        GroupResidualBlock(12, groups=4, gradient_checkpointing=True),
        SpatialAttention(groups=4, gradient_checkpointing=True),
        DownsamplingConv2D(5, use_bias=False),
        UpsamplingConv2D(5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration(layer):
    images = _images(2, 4, 4, 8)
    want = layer(images)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(images), want)


def test_frozen_blocks_stay_frozen():
    for make in LAYERS.values():
        layer, _, _ = _built(make(trainable=False), 8)
        assert layer.weights and not layer.trainable_weights


def test_kernels_start_as_in_torch():
    """Uniform up to 1 / sqrt(9 * 64), and every layer its own."""
    layer = GroupResidualBlock(64)
    layer.build((None, None, None, 64))
    for conv in (layer.conv_1, layer.conv_2):
        values = np.asarray(conv.kernel)
        assert np.abs(values).max() <= 1 / 24
        np.testing.assert_allclose(values.std(), 1 / 24 / 3**0.5, rtol=0.02)
        assert not np.any(conv.bias)
    assert np.any(np.asarray(layer.conv_1.kernel) != layer.conv_2.kernel)
