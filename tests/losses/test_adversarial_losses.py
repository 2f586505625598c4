"""Adversarial losses against torch, NumPy and closed forms."""

import math

import numpy as np
import pytest
from keras import ops

from keras_vq.losses.adversarial import (
    discriminator_accuracy,
    get_adversarial_loss,
    lecam_penalty,
    r1_penalty,
    update_lecam_anchors,
)

NAMES = ("hinge", "vanilla", "non_saturating")


def _logits(shape=(4, 3, 2, 1), seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, shape).astype("float32")


def _torch_losses(name, real, fake):
    """Of each image, with torch's own binary cross-entropy."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functional = torch.nn.functional
    real, fake = (torch.tensor(x).double().flatten(1) for x in (real, fake))
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)

    def entropy(logits, targets):
        return functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        ).mean(1)

    if name == "hinge":
        critic = torch.clamp(1 - real, min=0) + torch.clamp(1 + fake, min=0)
        critic = 0.5 * critic.mean(1)
    else:
        critic = 0.5 * (entropy(real, ones) + entropy(fake, zeros))
    if name == "non_saturating":
        return critic, entropy(fake, ones)
    return critic, -fake.mean(1)


@pytest.mark.parametrize("scale", [2.0, 100.0])
@pytest.mark.parametrize("name", NAMES)
def test_equal_torch(name, scale):
    real, fake = _logits(scale=scale), _logits(seed=1, scale=scale)
    loss = get_adversarial_loss(name)
    critic, generator = _torch_losses(name, real, fake)
    got = loss.discriminator(real, fake)
    assert got.shape == (4,)
    np.testing.assert_allclose(got, critic, rtol=1e-5, atol=1e-7)
    got = loss.generator(fake)
    assert got.shape == (4,)
    np.testing.assert_allclose(got, generator, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "name, critic, generator",
    [
        ("hinge", 1.0, 0.0),
        ("vanilla", math.log(2), 0.0),
        ("non_saturating", math.log(2), math.log(2)),
    ],
)
def test_of_a_discriminator_that_tells_nothing(name, critic, generator):
    loss = get_adversarial_loss(name)
    zeros = np.zeros((2, 5), "float32")
    np.testing.assert_allclose(loss.discriminator(zeros, zeros), critic)
    np.testing.assert_allclose(loss.generator(zeros), generator)


def test_one_logit_per_image():
    real, fake = _logits((6,)), _logits((6,), seed=1)
    for name in NAMES:
        loss = get_adversarial_loss(name)
        critic, generator = _torch_losses(name, real[:, None], fake[:, None])
        np.testing.assert_allclose(
            loss.discriminator(real, fake), critic, rtol=1e-5
        )
        np.testing.assert_allclose(loss.generator(fake), generator, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_computed_in_float32(dtype):
    """Means over many logits would overflow or stall in 16 bits."""
    real = ops.cast(np.full((1, 100_000), 3.0), dtype)
    fake = ops.cast(np.full((1, 100_000), -3.0), dtype)
    for name in NAMES:
        loss = get_adversarial_loss(name)
        for got, want in (
            (loss.discriminator(real, fake), [0, math.log1p(math.exp(-3))]),
            (loss.generator(fake), [3, math.log1p(math.exp(3))]),
        ):
            assert got.dtype == "float32"
            assert np.isclose(float(got[0]), want, rtol=1e-4, atol=1e-6).any()
    penalty = r1_penalty(ops.cast(np.full((1, 10, 10, 1), 300.0), dtype))
    assert penalty.dtype == "float32"
    np.testing.assert_allclose(penalty, 0.5 * 100 * 300**2, rtol=1e-2)
    assert discriminator_accuracy(real, fake).dtype == "float32"
    anchors = update_lecam_anchors(ops.zeros((3,)), real, fake)
    assert anchors.dtype == "float32"
    assert lecam_penalty(real, fake, anchors).dtype == "float32"


def test_unknown_name():
    for name in ("wgan", None, {}):
        with pytest.raises(ValueError, match="'hinge', 'vanilla'.*Received"):
            get_adversarial_loss(name)


def test_accuracy():
    real = np.array([[1.0, 2.0, -1.0, 3.0], [0.0] * 4, [5.0] * 4], "float32")
    fake = np.array([[-1.0, 2.0, 1.0, -3.0], [0.0] * 4, [-5.0] * 4], "float32")
    accuracy = discriminator_accuracy(real, fake)
    np.testing.assert_allclose(accuracy, [(0.75 + 0.5) / 2, 0.5, 1.0])


def test_r1_of_a_linear_discriminator():
    """The gradient of sum(w x) is w, whatever x."""
    w = _logits((1, 4, 5, 3))
    gradients = np.repeat(w, 6, axis=0)
    gradients[2] *= 3
    want = 0.5 * np.square(w).sum() * np.array([1, 1, 9, 1, 1, 1])
    np.testing.assert_allclose(r1_penalty(gradients), want, rtol=1e-5)


def test_lecam():
    real, fake = _logits(), _logits(seed=1)
    anchors = np.float32([0.5 * 0.3, 0.5 * -0.2, 0.5])
    r, f = real.reshape(4, -1), fake.reshape(4, -1)
    want = np.square(np.maximum(r + 0.2, 0)).mean(1)
    want += np.square(np.maximum(0.3 - f, 0)).mean(1)
    np.testing.assert_allclose(
        lecam_penalty(real, fake, anchors), want, rtol=1e-5
    )


def test_lecam_anchors_are_averages_from_the_first_step_on():
    """sum of decay^(n - i) x_i over sum of decay^(n - i)."""
    anchors, decay = np.zeros(3, "float32"), 0.9
    reals, fakes = [], []
    for step in range(5):
        real, fake = _logits(seed=step) + 1, _logits(seed=100 + step) - 1
        anchors = update_lecam_anchors(anchors, real, fake, decay)
        reals.append(real.mean(dtype="float64"))
        fakes.append(fake.mean(dtype="float64"))
        weights = decay ** np.arange(step + 1)[::-1]
        got = np.asarray(anchors)
        for sum_, values in zip(got[:2], (reals, fakes), strict=True):
            want = np.average(values, weights=weights)
            np.testing.assert_allclose(sum_ / got[2], want, rtol=1e-5)
    means = update_lecam_anchors(anchors, reals[0], fakes[0], decay)
    want = update_lecam_anchors(
        anchors, _logits() + 1, _logits(seed=100) - 1, decay
    )
    np.testing.assert_allclose(means, want, rtol=1e-5)


def test_lecam_before_the_first_update():
    real, fake = _logits(), _logits(seed=1)
    want = np.square(np.maximum(real, 0)).reshape(4, -1).mean(1)
    want += np.square(np.maximum(-fake, 0)).reshape(4, -1).mean(1)
    got = lecam_penalty(real, fake, np.zeros(3, "float32"))
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_lecam_decay(decay):
    with pytest.raises(ValueError, match=f"Received: decay={decay}"):
        update_lecam_anchors(np.zeros(3), _logits(), _logits(), decay)


def test_only_logits_have_gradients():
    import tensorflow as tf

    real, fake = tf.constant(_logits()), tf.constant(_logits(seed=1))
    anchors = tf.constant([0.1, 0.1, 0.5])
    with tf.GradientTape(persistent=True) as tape:
        for tensor in (real, fake, anchors):
            tape.watch(tensor)
        new = update_lecam_anchors(anchors, real, fake)
        penalty = tf.reduce_sum(lecam_penalty(real, fake, new))
    assert tape.gradient(new, [real, fake, anchors]) == [None] * 3
    assert tape.gradient(penalty, anchors) is None
    want = 2 * np.maximum(real - new[1] / new[2], 0) / 6
    np.testing.assert_allclose(tape.gradient(penalty, real), want, rtol=1e-5)
    want = -2 * np.maximum(new[0] / new[2] - fake, 0) / 6
    np.testing.assert_allclose(tape.gradient(penalty, fake), want, rtol=1e-5)
