import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq import losses
from keras_vq.losses import get_reconstruction_loss

NAMES = ["mse", "l1", "gaussian", "discretized_logistic"]


def pair(n=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, n, 6, 5, 3)
    return rng.uniform(-1, 1, shape).astype("float32")


@keras.saving.register_keras_serializable(package="test")
def fourth_power(images, reconstruction):
    return (images - reconstruction) ** 4


@pytest.mark.parametrize("name,function", [("mse", np.square), ("l1", np.abs)])
def test_means_per_image(name, function):
    images, others = pair()
    want = function(images.astype("float64") - others).mean((1, 2, 3))
    loss = get_reconstruction_loss(name)
    for jit in (None, False, True):
        call = loss if jit is None else tf.function(loss, jit_compile=jit)
        got = call(tf.constant(images), tf.constant(others))
        assert got.shape == (4,) and got.dtype == tf.float32
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 7), (3, 9, 2), (3, 2, 4, 4, 1)])
def test_any_rank(name, shape):
    images = np.zeros(shape, "float32")
    assert get_reconstruction_loss(name)(images, images).shape == (3,)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_batch_and_size(name):
    image = keras.Input((None, None, 3))
    loss = get_reconstruction_loss(name)
    assert loss(image, image).shape == (None,)
    spec = tf.TensorSpec((None, None, None, 3))
    graph = tf.function(loss, input_signature=[spec, spec])
    images, others = pair()
    np.testing.assert_allclose(
        graph(images, others), loss(images, others), rtol=1e-6
    )
    assert graph(images[:0], others[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_cast_first(name, dtype):
    images, others = pair()
    half = tf.cast(others, dtype)
    loss = get_reconstruction_loss(name)
    got = loss(images, half)
    assert got.dtype == tf.float32
    want = loss(images, tf.cast(half, "float32"))
    np.testing.assert_array_equal(got, want)


def test_policies_leave_the_losses_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        loss = get_reconstruction_loss("discretized_logistic")
    finally:
        keras.config.set_dtype_policy(before)
    assert loss.compute_dtype == "float32"
    images, others = pair()
    want = get_reconstruction_loss("discretized_logistic")(images, others)
    np.testing.assert_array_equal(loss(images, others), want)


@pytest.mark.parametrize(
    "function",
    [
        fourth_power,
        lambda a, b: tf.reduce_mean((a - b) ** 4, axis=-1),
        lambda a, b: tf.reduce_mean((a - b) ** 4, axis=(1, 2, 3)),
    ],
)
def test_callables_with_trailing_axes(function):
    images, others = pair()
    want = ((images - others).astype("float64") ** 4).mean((1, 2, 3))
    got = get_reconstruction_loss(function)(images, others)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_scalar_stands_for_every_image():
    images, others = pair()
    loss = get_reconstruction_loss(lambda a, b: tf.reduce_mean((a - b) ** 2))
    want = np.full(4, np.mean((images - others) ** 2))
    np.testing.assert_allclose(loss(images, others), want, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", None])
def test_keras_losses_are_not_reduced(reduction):
    images, others = pair()
    huber = keras.losses.Huber(delta=0.5, reduction=reduction)
    error = np.abs(images - others).astype("float64")
    want = np.where(error <= 0.5, error**2 / 2, 0.5 * (error - 0.25))
    got = get_reconstruction_loss(huber)(images, others)
    np.testing.assert_allclose(got, want.mean((1, 2, 3)), rtol=1e-5)


def test_keras_losses_are_not_divided_by_the_replicas(two_replicas):
    images, others = pair()
    loss = get_reconstruction_loss(keras.losses.MeanSquaredError())
    values = tf.function(
        lambda: two_replicas.run(
            lambda: loss(tf.constant(images), tf.constant(others))
        )
    )()
    want = ((images - others).astype("float64") ** 2).mean((1, 2, 3))
    for value in two_replicas.experimental_local_results(values):
        np.testing.assert_allclose(value, want, rtol=1e-5)


@pytest.mark.parametrize(
    "identifier",
    [
        *NAMES,
        fourth_power,
        keras.losses.Huber(delta=0.3),
        losses.GaussianNLL(0.2, learn_scale=True),
        losses.DiscretizedLogisticNLL(0.03, learn_scale=False),
    ],
)
def test_serialization(identifier):
    images, others = pair()
    loss = get_reconstruction_loss(identifier)
    stored = losses.serialize_reconstruction_loss(loss)
    assert (stored == identifier) == isinstance(identifier, str)
    copy = get_reconstruction_loss(stored)
    assert type(copy) is type(loss) and copy is not loss
    assert len(copy.trainable_weights) == len(loss.trainable_weights)
    np.testing.assert_array_equal(copy(images, others), loss(images, others))
    direct = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert direct.get_config() == loss.get_config()


def test_an_object_is_returned_as_it_is():
    loss = losses.SquaredError(name="mine")
    assert get_reconstruction_loss(loss) is loss


@pytest.mark.parametrize("identifier", ["mae", 3, None, keras.losses.Huber])
def test_unknown_losses(identifier):
    with pytest.raises(ValueError, match="'mse', 'l1', 'gaussian'.*Received"):
        get_reconstruction_loss(identifier)


@pytest.mark.parametrize("name", [*NAMES, fourth_power])
def test_shape_and_dtype_errors(name):
    images, others = pair()
    loss = get_reconstruction_loss(name)
    for wrong in (others[..., :1], others[:1], others[0], others[:, :3]):
        with pytest.raises(ValueError, match="same shape"):
            loss(images, wrong)
    with pytest.raises(ValueError, match="uint8.*preprocess"):
        loss(np.zeros((4, 6, 5, 3), "uint8"), others)


def test_a_result_without_batch_axis():
    images, others = pair()
    loss = get_reconstruction_loss(lambda a, b: tf.zeros((3, 6)))
    with pytest.raises(ValueError, match="batch of 4 images.*\\(3, 6\\)"):
        loss(images, others)
