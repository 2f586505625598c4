"""The fused kernel gives what Keras' synchronized layer gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import BatchNormalization
from keras_vq.layers.normalization import images_present


def _layer(cls, dtype="float32", **kwargs):
    layer = cls(momentum=0.9, epsilon=1e-5, dtype=dtype, **kwargs)
    layer.build((None, None, None, 6))
    for weight, low, high in zip(
        layer.weights, (0.5, -1, -2, 0.3), (2, 1, 2, 3), strict=True
    ):
        weight.assign(np.linspace(low, high, 6))
    return layer


def _step(layer, x, upstream, jit_compile):
    """Output, gradients and moving statistics of one training call."""

    @tf.function(jit_compile=jit_compile)
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, *(w.value for w in layer.trainable_weights)]
        return y, *tape.gradient(y, sources, tf.cast(upstream, y.dtype))

    y, *gradients = run(x, upstream)
    assert y.dtype == layer.compute_dtype
    values = [y, *gradients, *layer.non_trainable_weights]
    return [np.asarray(keras.ops.cast(v, "float32")) for v in values]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [("float32", 2e-5), ("mixed_bfloat16", 3e-2), ("mixed_float16", 4e-3)],
)
def test_equals_keras(dtype, tolerance, jit_compile):
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (5, 4, 3, 6)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    ours = _step(_layer(BatchNormalization, dtype), x, upstream, jit_compile)
    keras_layer = _layer(
        keras.layers.BatchNormalization, dtype, synchronized=True
    )
    theirs = _step(keras_layer, x, upstream, jit_compile)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_takes_the_kernel_for_one_replica_only(two_replicas):
    layer = _layer(BatchNormalization)

    def operations():
        graph = tf.function(lambda x: layer(x, training=True))
        concrete = graph.get_concrete_function(tf.TensorSpec((2, 4, 4, 6)))
        return {operation.type for operation in concrete.graph.get_operations()}

    assert "FusedBatchNormV3" in operations()
    with two_replicas.scope():
        layer = _layer(BatchNormalization)

    @tf.function
    def step(x):
        types = []

        def replica(x):
            y = layer(x, training=True)
            types.extend(op.type for op in y.graph.get_operations())
            return y

        result = two_replicas.run(replica, args=(x,))
        assert "FusedBatchNormV3" not in types
        return result

    step(tf.ones((2, 4, 4, 6)))


def test_one_value_and_inference():
    layer = _layer(BatchNormalization)
    x = np.full((1, 1, 1, 6), 3.0, "float32")
    np.testing.assert_allclose(layer(x, training=True)[0, 0, 0], layer.beta)
    np.testing.assert_allclose(
        layer.moving_variance, 0.9 * np.linspace(0.3, 3, 6), rtol=1e-6
    )
    before = layer.get_weights()
    layer(x)
    layer.trainable = False
    layer(x, training=True)
    for got, want in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "arguments, shape",
    [
        ({"scale": False}, (4, 3, 3, 2)),
        ({"center": False}, (4, 3, 3, 2)),
        ({"axis": 1}, (4, 3, 3, 2)),
        ({}, (4, 5)),
        ({}, (4, 5, 2)),
    ],
)
def test_what_the_kernel_cannot_do(arguments, shape):
    x = np.random.default_rng(0).normal(1, 2, shape).astype("float32")
    axes = tuple(
        i for i in range(x.ndim) if i != arguments.get("axis", -1) % x.ndim
    )
    y = np.asarray(BatchNormalization(**arguments)(x, training=True))
    want = x - x.mean(axes, keepdims=True)
    want /= np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, want, atol=1e-5)


def test_masked_positions_do_not_count():
    x = np.random.default_rng(0).normal(1, 2, (4, 3, 3, 2)).astype("float32")
    mask = np.ones((4, 3, 3), bool)
    mask[2:] = False
    y = BatchNormalization()(x, training=True, mask=mask)
    kept = np.asarray(y)[:2]
    np.testing.assert_allclose(kept.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(kept.std((0, 1, 2)), 1, atol=1e-4)


def test_replica_without_images(two_replicas):
    """Its stand-in changes nothing, whatever it and its gradient are."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (3, 4, 4, 6)).astype("float32")
    upstream = rng.normal(size=x.shape).astype("float32")
    keras_layer = _layer(keras.layers.BatchNormalization)
    wants = _step(keras_layer, x, upstream, False)
    with two_replicas.scope():
        layer = _layer(BatchNormalization)

    def replica(x, upstream, present):
        with tf.GradientTape() as tape, images_present(present):
            tape.watch(x)
            y = layer(x, training=True)
        sources = [x, *(w.value for w in layer.trainable_weights)]
        gradients = tape.gradient(y, sources, upstream)
        moving = [tf.identity(w.value) for w in layer.non_trainable_weights]
        return y, *gradients, *moving

    @tf.function
    def step(*args):
        return two_replicas.run(replica, args=args)

    def both(*values):
        values = [tf.convert_to_tensor(v) for v in values]
        return two_replicas.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group]
        )

    stand_in = np.full((1, 4, 4, 6), 50.0, "float32")
    values = step(
        both(x, stand_in),
        both(upstream, np.zeros_like(stand_in)),
        both(True, False),
    )
    values = [two_replicas.experimental_local_results(v) for v in values]
    for (got, _), want in zip(values, wants, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    (_, y), *gradients = values[:-2]
    for _, gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)
    # Not blown up by a small variance of the others' images either.
    plain = 50 / np.sqrt(1 + 1e-5) * np.linspace(0.5, 2, 6)
    want = np.broadcast_to(plain + np.linspace(-1, 1, 6), y.shape)
    np.testing.assert_allclose(y, want, rtol=1e-5)
    for first, second in values[-2:]:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(1, 4, 4, 6), (1, 6)])
def test_no_images_at_all(shape):
    layer = BatchNormalization()
    layer.build((None, *shape[1:]))
    layer.moving_mean.assign(np.linspace(-2, 1, 6))
    before = layer.get_weights()
    x = np.full(shape, 3.0, "float32")
    with images_present(tf.constant(False)):
        assert np.isfinite(layer(x, training=True)).all()
    for got, want in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)
    with images_present(tf.constant(True)):
        layer(x, training=True)
    np.testing.assert_allclose(
        layer.moving_mean, 0.9 * np.linspace(-2, 1, 6) + 0.3, rtol=1e-5
    )


def test_configuration():
    layer = BatchNormalization(momentum=0.8, name="norm")
    config = layer.get_config()
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert isinstance(again, BatchNormalization)
    assert again.get_config() == config and "synchronized" not in config
    assert (again.momentum, again.epsilon) == (0.8, 1e-5)
