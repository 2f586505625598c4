"""Adversarial losses and regularizers: functions of logits, in float32.

Logits have the shape `(batch, ...)`, one or many per image; the larger, the
more real. Each loss is one value per image, the mean over its logits, so that
a trainer can weigh every image by one over the *global* batch size.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops


class AdversarialLoss(NamedTuple):
    """The two functions of an adversarial loss.

    Attributes:
        discriminator: Function of (real logits, fake logits), what the
            discriminator minimizes; float32 values of shape (batch,).
        generator: Function of (fake logits), what the generator minimizes;
            float32 values of shape (batch,).
    """

    discriminator: Callable
    generator: Callable


def hinge_discriminator_loss(real_logits, fake_logits):
    """Hinge loss: real logits above 1 and fake ones below -1 cost nothing.

    Args:
        real_logits: Float tensor of shape `(batch, ...)`, of images.
        fake_logits: Float tensor of that shape, of reconstructions.

    Returns:
        float32 values of shape `(batch,)`: half the sum of
        `mean(relu(1 - real))` and `mean(relu(1 + fake))`; 1 where all logits
        are 0.

    Reference:
        [Lim and Ye, 2017](https://arxiv.org/abs/1705.02894).
    """
    real, fake = _float32(real_logits), _float32(fake_logits)
    return 0.5 * (_mean(ops.relu(1.0 - real)) + _mean(ops.relu(1.0 + fake)))


def logistic_discriminator_loss(real_logits, fake_logits):
    """Cross-entropy of telling real from fake, `"vanilla"`.

    Args:
        real_logits: Float tensor of shape `(batch, ...)`, of images.
        fake_logits: Float tensor of that shape, of reconstructions.

    Returns:
        float32 values of shape `(batch,)`: half the sum of
        `mean(softplus(-real))` and `mean(softplus(fake))`; log(2) where all
        logits are 0.

    Reference:
        [Goodfellow et al., 2014](https://arxiv.org/abs/1406.2661).
    """
    real, fake = _float32(real_logits), _float32(fake_logits)
    return 0.5 * (_mean(ops.softplus(-real)) + _mean(ops.softplus(fake)))


def linear_generator_loss(fake_logits):
    """The negative mean of the logits of reconstructions.

    Args:
        fake_logits: Float tensor of shape `(batch, ...)`.

    Returns:
        float32 values of shape `(batch,)`.
    """
    return -_mean(_float32(fake_logits))


def non_saturating_generator_loss(fake_logits):
    """Cross-entropy of reconstructions being taken for real.

    Unlike the linear loss it stops pushing where the discriminator already
    takes a reconstruction for real.

    Args:
        fake_logits: Float tensor of shape `(batch, ...)`.

    Returns:
        float32 values of shape `(batch,)`: `mean(softplus(-fake))`.

    Reference:
        [Goodfellow et al., 2014](https://arxiv.org/abs/1406.2661), section 3.
    """
    return _mean(ops.softplus(-_float32(fake_logits)))


_LOSSES = {
    "hinge": AdversarialLoss(hinge_discriminator_loss, linear_generator_loss),
    "vanilla": AdversarialLoss(
        logistic_discriminator_loss, linear_generator_loss
    ),
    "non_saturating": AdversarialLoss(
        logistic_discriminator_loss, non_saturating_generator_loss
    ),
}


def get_adversarial_loss(name: str) -> AdversarialLoss:
    """Returns the adversarial loss of that name.

    Args:
        name: `"hinge"` (VQGAN's), `"vanilla"` (logistic loss of the
            discriminator, linear loss of the generator) or
            `"non_saturating"` (logistic loss of both).

    Returns:
        An `AdversarialLoss`, the functions `discriminator` and `generator`.

    Raises:
        ValueError: If nothing is known under that name.

    Example:
    >>> loss = get_adversarial_loss("hinge")
    >>> loss.discriminator(real_logits, fake_logits).shape
    (8,)
    """
    if isinstance(name, str) and name in _LOSSES:
        return _LOSSES[name]
    names = ", ".join(repr(known) for known in _LOSSES)
    raise ValueError(
        f"The adversarial loss must be one of {names}. Received: {name!r}"
    )


def discriminator_accuracy(real_logits, fake_logits):
    """How often the discriminator tells real from fake.

    Args:
        real_logits: Float tensor of shape `(batch, ...)`, of images.
        fake_logits: Float tensor of that shape, of reconstructions.

    Returns:
        float32 values in [0, 1] of shape `(batch,)`: the mean of the fraction
        of real logits above 0 and of fake ones not above 0. Telling nothing
        gives 0.5.
    """
    real, fake = _float32(real_logits), _float32(fake_logits)
    right = _mean(ops.cast(real > 0, "float32"))
    return 0.5 * (right + _mean(ops.cast(fake <= 0, "float32")))


def r1_penalty(gradients):
    """Penalty on how steep the discriminator is at real images.

    Only the arithmetic: each backend has its own way to the gradients. They
    are those of an image's logit (the mean over its patches), summed over the
    batch, with respect to the images, and without the factor of a loss scale.

    Args:
        gradients: Float tensor of shape `(batch, height, width, channels)`.

    Returns:
        float32 values of shape `(batch,)`: half the squared norm of each
        image's gradient, so that its weight is the paper's gamma.

    Reference:
        [Mescheder et al., 2018](https://arxiv.org/abs/1801.04406), section 4.1.

    Example:
    ```python
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = discriminator(images, training=True)
        total = ops.sum(ops.mean(logits, axis=(1, 2, 3)))
    penalty = r1_penalty(tape.gradient(total, images))
    ```
    """
    gradients = _float32(gradients)
    axes = tuple(range(1, len(gradients.shape)))
    return 0.5 * ops.sum(ops.square(gradients), axis=axes)


def lecam_penalty(real_logits, fake_logits, anchors):
    """LeCam penalty: keeps logits near moving averages of the other side.

    It helps where images are few. Real logits are drawn down to the average
    of the fake ones, and fake ones up to that of the real ones, once they
    have gone past it.

    Args:
        real_logits: Float tensor of shape `(batch, ...)`, of images.
        fake_logits: Float tensor of that shape, of reconstructions.
        anchors: float32 tensor of shape `(3,)`, see `update_lecam_anchors`.
            Constants to the gradient.

    Returns:
        float32 values of shape `(batch,)`: the sum of
        `mean(relu(real - fake_average) ** 2)` and
        `mean(relu(real_average - fake) ** 2)`.

    Reference:
        [Tseng et al., 2021](https://arxiv.org/abs/2104.03310),
        with the `relu` of the authors' code.

    Example:
    ```python
    anchors = ops.zeros((3,))
    anchors = update_lecam_anchors(anchors, real_logits, fake_logits)
    penalty = lecam_penalty(real_logits, fake_logits, anchors)
    ```
    """
    real, fake = _float32(real_logits), _float32(fake_logits)
    anchors = ops.stop_gradient(_float32(anchors))
    # Before the first update all three are 0, and so are the averages.
    averages = anchors[:2] / ops.maximum(anchors[2], 1e-12)
    return _mean(ops.square(ops.relu(real - averages[1]))) + _mean(
        ops.square(ops.relu(averages[0] - fake))
    )


def update_lecam_anchors(
    anchors, real_logits, fake_logits, decay: float = 0.99
):
    """Moving averages of the logits, one step on.

    A pure function: the caller keeps the state, updates it once per step and
    before the penalty, as the authors do. Only the means of the logits count,
    so under several replicas, or under accumulation, pass the means over the
    whole batch as scalars.

    Args:
        anchors: float32 tensor of shape `(3,)`, zeros at the start: decayed
            sums of real and of fake means, and of their weights. The sums
            divided by the weight are averages from the first step on.
        real_logits: Float tensor of any shape, of images.
        fake_logits: Float tensor of any shape, of reconstructions.
        decay: Float in [0, 1), how much of the past a step keeps.

    Returns:
        The new anchors, without gradient.

    Raises:
        ValueError: If `decay` lies outside of [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(
            f"`decay` must lie in [0, 1), such as 0.99. Received: decay={decay}"
        )
    real, fake = (
        ops.mean(_float32(real_logits)),
        ops.mean(_float32(fake_logits)),
    )
    new = ops.stack([real, fake, ops.ones_like(real)])
    return ops.stop_gradient(decay * _float32(anchors) + (1.0 - decay) * new)


def _float32(values):
    return ops.cast(values, "float32")


def _mean(values):
    """Mean over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values
