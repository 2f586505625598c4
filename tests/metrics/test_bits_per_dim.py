import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vq.losses import (
    DiscretizedLogisticNLL,
    GaussianNLL,
    get_reconstruction_loss,
)
from keras_vq.metrics import BitsPerDim, bind_likelihood


def batch(n=6, seed=0):
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (n, 5, 4, 3))
    images = (levels / 127.5 - 1).astype("float32")
    others = images + 0.1 * rng.normal(size=images.shape).astype("float32")
    return levels, images, others


def logistic_bits(levels, others, scale):
    """Bits of every value, from SciPy's distribution in float64."""
    upper = np.where(levels == 255, np.inf, (levels + 0.5) / 127.5 - 1)
    lower = np.where(levels == 0, -np.inf, (levels - 0.5) / 127.5 - 1)
    args = others.astype("float64"), scale
    cdf = scipy.stats.logistic.cdf
    return -np.log2(cdf(upper, *args) - cdf(lower, *args))


@pytest.mark.parametrize("jit", [False, True])
def test_discretized_logistic_against_scipy(jit):
    metric = BitsPerDim(DiscretizedLogisticNLL(scale=0.05))
    update = tf.function(metric.update_state, jit_compile=jit)
    wanted = []
    for n in (6, 2):
        levels, images, others = batch(n, seed=n)
        update(images, others)
        wanted += [logistic_bits(levels, others, 0.05)]
    want = np.concatenate(wanted).mean()
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)


def test_gaussian_is_the_mass_of_a_level_where_it_is_wide():
    levels, images, others = batch()
    metric = BitsPerDim(GaussianNLL(scale=0.1), code_bits=0.25)
    metric.update_state(images, others)
    args = others.astype("float64"), 0.1
    cdf = scipy.stats.norm.cdf
    mass = cdf((levels + 0.5) / 127.5 - 1, *args) - cdf(
        (levels - 0.5) / 127.5 - 1, *args
    )
    want = -np.log2(mass).mean() + 0.25
    np.testing.assert_allclose(metric.result(), want, rtol=1e-4)


def test_unit_gaussian_has_a_floor():
    _, images, _ = batch()
    metric = BitsPerDim("gaussian")
    metric.update_state(images, images)
    floor = 0.5 * np.log2(2 * np.pi) + np.log2(127.5)
    np.testing.assert_allclose(metric.result(), floor, rtol=1e-6)
    assert 8.31 < floor < 8.33


def test_guessing_uniformly_costs_eight_bits():
    _, images, _ = batch()
    images = np.clip(images, -0.9, 0.9)
    metric = BitsPerDim(DiscretizedLogisticNLL(scale=400.0))
    metric.update_state(images, np.zeros_like(images))
    # So wide a distribution puts nearly all of its mass on the two ends.
    assert float(metric.result()) > 16
    fair = BitsPerDim(DiscretizedLogisticNLL(scale=0.3))
    fair.update_state(images, np.zeros_like(images))
    assert 7.5 < float(fair.result()) < 8.5


def test_weights_empty_batches_and_nothing_seen():
    levels, images, others = batch()
    metric = BitsPerDim(DiscretizedLogisticNLL(scale=0.05), code_bits=0.5)
    assert float(metric.result()) == 0.0
    metric.update_state(images[:0], others[:0])
    assert float(metric.result()) == 0.0
    weights = np.array([1, 0, 2, 0, 0, 1.0])
    metric.update_state(images, others, sample_weight=weights)
    bits = logistic_bits(levels, others, 0.05).mean((1, 2, 3))
    want = np.average(bits, weights=weights) + 0.5
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)


def test_replicas_equal_one_device(two_replicas):
    _, images, others = batch(7)
    with two_replicas.scope():
        metric = BitsPerDim(DiscretizedLogisticNLL(scale=0.05), code_bits=0.5)

    @tf.function
    def step(pair):
        two_replicas.run(
            lambda x: metric.update_state(x[0], x[1]), args=(pair,)
        )

    pair = np.stack([images, others])
    step(
        two_replicas.experimental_distribute_values_from_function(
            lambda ctx: tf.constant(
                pair[:, 5:] if ctx.replica_id_in_sync_group else pair[:, :5]
            )
        )
    )
    single = BitsPerDim(DiscretizedLogisticNLL(scale=0.05), code_bits=0.5)
    single.update_state(images, others)
    np.testing.assert_allclose(metric.result(), single.result(), rtol=1e-6)


@pytest.mark.parametrize(
    "likelihood", ["discretized_logistic", GaussianNLL(0.2)]
)
def test_configuration(likelihood):
    metric = BitsPerDim(likelihood, code_bits=0.1, name="mine")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert (copy.name, copy.code_bits) == ("mine", 0.1)
    assert copy.get_config() == metric.get_config()
    _, images, others = batch()
    metric.update_state(images, others)
    copy.update_state(images, others)
    assert float(copy.result()) == float(metric.result()) > 0


def test_a_copy_has_no_scale_of_its_own():
    metric = BitsPerDim(GaussianNLL(0.2, learn_scale=True))
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    _, images, others = batch()
    with pytest.raises(ValueError, match="metric.bind"):
        copy.update_state(images, others)
    copy.bind(metric.likelihood)
    copy.update_state(images, others)
    assert float(copy.result()) > 0


def test_bound_to_the_loss_of_a_model():
    loss = GaussianNLL(0.2, learn_scale=True)
    free, fixed = BitsPerDim(), BitsPerDim("gaussian")
    bind_likelihood([[keras.metrics.Mean()], {"a": free, "b": fixed}], loss)
    bind_likelihood(None, loss)
    assert free.likelihood is loss and fixed.likelihood is not loss
    bind_likelihood([free, "mse"], get_reconstruction_loss("mse"))
    with pytest.raises(ValueError, match="need a likelihood"):
        bind_likelihood([BitsPerDim()], get_reconstruction_loss("mse"))


@pytest.mark.parametrize("identifier", ["mse", keras.losses.Huber()])
def test_other_losses_are_refused(identifier):
    with pytest.raises(ValueError, match="need a likelihood.*Received"):
        BitsPerDim(identifier)
