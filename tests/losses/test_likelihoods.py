import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vq.losses import DiscretizedLogisticNLL, GaussianNLL

LEVELS = (np.arange(256) / 127.5 - 1).astype("float32")
SCALES = [0.001, 0.004, 0.03, 0.5, 20.0, 1000.0]
BOTH = [GaussianNLL, DiscretizedLogisticNLL]


def nll(loss, images, reconstruction):
    """Values of a batch of single numbers."""
    images, reconstruction = np.broadcast_arrays(images, reconstruction)
    return loss(
        images.reshape(-1, 1).astype("float32"),
        reconstruction.reshape(-1, 1).astype("float32"),
    ).numpy()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("location", [-1.3, -1.0, -0.996, 0.0, 0.31, 1.0, 4.0])
def test_logistic_levels_sum_to_one(scale, location):
    loss = DiscretizedLogisticNLL(scale)
    values = nll(loss, LEVELS, location)
    assert np.isfinite(values).all() and (values >= 0).all()
    total = np.exp(-values.astype("float64")).sum()
    np.testing.assert_allclose(total, 1.0, rtol=2e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_logistic_against_scipy(scale):
    rng = np.random.default_rng(0)
    location = rng.uniform(-1.1, 1.1, 256).astype("float32")
    upper = np.where(np.arange(256) == 255, np.inf, LEVELS + 1 / 255.0)
    lower = np.where(np.arange(256) == 0, -np.inf, LEVELS - 1 / 255.0)
    args = location.astype("float64"), scale
    # Of two tails the small one, which does not cancel.
    mass = np.where(
        lower > args[0],
        scipy.stats.logistic.sf(lower, *args)
        - scipy.stats.logistic.sf(upper, *args),
        scipy.stats.logistic.cdf(upper, *args)
        - scipy.stats.logistic.cdf(lower, *args),
    )
    representable = mass > 1e-290
    values = nll(DiscretizedLogisticNLL(scale), LEVELS, location)
    np.testing.assert_allclose(
        values[representable],
        -np.log(mass[representable]),
        rtol=2e-5,
        atol=2e-5,
    )


def test_logistic_far_tail_is_linear_and_finite():
    loss = DiscretizedLogisticNLL(0.001)
    # Distance from the midpoint next to the level, over the scale.
    want = (2.0 - 1 / 255) / 0.001
    np.testing.assert_allclose(nll(loss, -1.0, 1.0), want, rtol=1e-5)


def test_logistic_takes_the_nearest_level():
    loss = DiscretizedLogisticNLL(0.01)
    off = np.clip(LEVELS + 0.003, -1, 1.01)
    np.testing.assert_array_equal(nll(loss, off, 0.2), nll(loss, LEVELS, 0.2))


@pytest.mark.parametrize("scale", SCALES)
def test_gaussian_against_scipy(scale):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, 500).astype("float32")
    others = images + scale * rng.normal(size=500).astype("float32")
    # In levels of 0..255 the density is 127.5 times lower.
    want = -scipy.stats.norm.logpdf(
        (images.astype("float64") + 1) * 127.5,
        (others.astype("float64") + 1) * 127.5,
        scale * 127.5,
    )
    got = nll(GaussianNLL(scale), images, others)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_unit_gaussian_has_the_gradient_of_half_the_squared_error():
    images, others = tf.constant([[0.3]]), tf.Variable([[-0.4]])
    with tf.GradientTape() as tape:
        loss = GaussianNLL()(images, others)
    np.testing.assert_allclose(tape.gradient(loss, others), [[-0.7]], 1e-6)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("scale", [0.00092, 1.0, 1090.0])
@pytest.mark.parametrize("jit", [False, True])
def test_gradients_are_finite_at_extremes(cls, scale, jit):
    loss = cls(scale, learn_scale=True)
    images = np.repeat(np.array([-1, -0.5, 0.98, 1.0]), 8).reshape(-1, 1)
    others = np.tile([-1e4, -50, -1, -0.5, 0, 0.5, 1, 1e4], 4).reshape(-1, 1)
    others = tf.Variable(others.astype("float32"))

    @tf.function(jit_compile=jit)
    def gradients():
        with tf.GradientTape() as tape:
            value = loss(tf.constant(images, "float32"), others)
        return value, *tape.gradient(value, [others, *loss.trainable_weights])

    value, by_location, by_scale = gradients()
    for tensor in (value, by_location, by_scale):
        assert np.isfinite(tensor).all()
    # The location is pulled towards the image, wherever it is. (The first and
    # the last level of the logistic pull it outwards: theirs is a whole tail.)
    error = others.numpy() - images
    inside = (np.abs(error) > 0.01) & (np.abs(images) < 1)
    assert (np.sign(by_location)[inside] * np.sign(error)[inside] >= 0).all()


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("beyond", [-30.0, 30.0])
def test_a_scale_beyond_the_bounds_is_held_and_comes_back(cls, beyond):
    loss = cls(0.1, learn_scale=True)
    loss.trainable_weights[0].assign(beyond)
    bound = cls(np.exp(np.sign(beyond) * 7.0), learn_scale=False)
    # Errors that are too large for the lower bound, too small for the upper.
    others = np.zeros((3, 1), "float32")
    images = others + (0.5 if beyond < 0 else 0.0)
    with tf.GradientTape() as tape:
        value = loss(images, others)
    np.testing.assert_allclose(value, bound(images, others), rtol=1e-5)
    gradient = tape.gradient(value, loss.trainable_weights[0])
    assert float(gradient) * beyond > 0


def test_learned_scale_becomes_the_best_scale():
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.5, 0.5, (8, 500)).astype("float32")
    others = images + 0.07 * rng.normal(size=images.shape).astype("float32")
    loss = GaussianNLL(1.0, learn_scale=True)
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(loss.trainable_weights)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(images, others))
        gradients = tape.gradient(value, loss.trainable_weights)
        optimizer.apply(gradients, loss.trainable_weights)

    for _ in range(300):
        step()
    best = np.sqrt(np.mean((images - others) ** 2))
    np.testing.assert_allclose(np.exp(loss.log_scale), best, rtol=1e-3)


@keras.saving.register_keras_serializable(package="test")
class Owner(keras.Model):
    """A model that owns a loss, trained by Keras' own step."""

    def __init__(self, likelihood, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = likelihood
        self.dense = keras.layers.Dense(3)
        self(keras.Input((3,)))

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x, y, y_pred, *args, **kwargs):
        return keras.ops.mean(self.likelihood(y, y_pred))

    def get_config(self):
        likelihood = keras.saving.serialize_keras_object(self.likelihood)
        return {**super().get_config(), "likelihood": likelihood}

    @classmethod
    def from_config(cls, config):
        likelihood = config.pop("likelihood")
        return cls(keras.saving.deserialize_keras_object(likelihood), **config)


@pytest.mark.parametrize("cls", BOTH)
def test_the_owner_trains_and_saves_the_scale(cls, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (64, 3)).astype("float32")
    model = Owner(cls(0.1, learn_scale=True))
    assert len(model.trainable_weights) == 3
    model.compile("adam")
    model.fit(images, images, epochs=2, verbose=0)
    learned = float(model.likelihood.log_scale)
    assert learned != pytest.approx(np.log(0.1), abs=1e-4)
    path = tmp_path / "model.keras"
    model.save(path)
    copy = keras.saving.load_model(path)
    assert float(copy.likelihood.log_scale) == learned
    np.testing.assert_array_equal(
        copy.likelihood(images, copy(images)),
        model.likelihood(images, model(images)),
    )


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("scale", [0, -1, 1e-4, 1e4, float("nan")])
def test_impossible_scales(cls, scale):
    with pytest.raises(ValueError, match="`scale` must lie.*Received"):
        cls(scale)
