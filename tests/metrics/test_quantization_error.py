import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.metrics import QuantizationError


def batch(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, n, 4, 3, 8)).astype("float32")


@pytest.mark.parametrize("jit", [False, True])
def test_over_uneven_batches(jit):
    metric = QuantizationError()
    update = tf.function(metric.update_state, jit_compile=jit)
    pairs = [batch(n, seed=n) for n in (5, 2)]
    for latents, quantized in pairs:
        update(latents, quantized)
    pairs = np.concatenate(pairs, axis=1).astype("float64")
    want = np.mean((pairs[0] - pairs[1]) ** 2)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)


def test_mask_and_weights_multiply():
    latents, quantized = batch()
    rng = np.random.default_rng(1)
    mask = rng.random((5, 4, 3)) < 0.6
    weights = rng.random(5).astype("float32")
    metric = QuantizationError()
    metric.update_state(latents, quantized, mask, weights)
    errors = ((latents - quantized) ** 2).mean(-1)
    want = np.average(errors, weights=mask * weights[:, None, None])
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)


def test_padding_may_hold_anything():
    latents, quantized = batch()
    mask = np.ones((5, 4), bool)
    mask[:, 2:] = False
    want = ((latents - quantized)[:, :2] ** 2).mean()
    latents[:, 2:] = np.nan
    metric = QuantizationError()
    metric.update_state(latents, quantized, mask=mask)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)


def test_empty_and_half_precision():
    metric = QuantizationError()
    metric.update_state(batch()[0][:0], batch()[1][:0])
    assert float(metric.result()) == 0.0
    # 300 squared is beyond float16.
    half = tf.constant([[300.0, 0.0]], "float16")
    metric.update_state(half, tf.zeros_like(half))
    assert float(metric.result()) == 45_000.0


def test_replicas_equal_one_device(two_replicas):
    parts = [batch(n, seed=n) for n in (5, 2)]
    with two_replicas.scope():
        metric = QuantizationError()

    @tf.function
    def step(pair):
        two_replicas.run(
            lambda x: metric.update_state(x[0], x[1]), args=(pair,)
        )

    step(
        two_replicas.experimental_distribute_values_from_function(
            lambda ctx: tf.constant(parts[ctx.replica_id_in_sync_group])
        )
    )
    pairs = np.concatenate(parts, axis=1).astype("float64")
    want = np.mean((pairs[0] - pairs[1]) ** 2)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-6)


def test_configuration_and_errors():
    metric = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(QuantizationError(name="mine"))
    )
    assert isinstance(metric, QuantizationError) and metric.name == "mine"
    latents, quantized = batch()
    with pytest.raises(ValueError, match="same shape.*Received"):
        metric.update_state(latents, quantized[..., :1])
