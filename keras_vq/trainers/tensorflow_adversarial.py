"""Gradients of a generator and its discriminator on TensorFlow.

See `adversarial` for what they are of.
"""

import keras
import tensorflow as tf

from keras_vq.trainers.adversarial import (
    adaptive_weight,
    judgement,
    opposed_loss,
    result_of,
    scale_of,
    summed_logits,
)
from keras_vq.trainers.replicas import all_reduce, dense


def gradients(model, images, share):
    """Gradients of both networks for one part of the batch.

    Args:
        model: A compiled VQGAN.
        images: float32 tensor of shape (batch, height, width, channels).
        share: Scalar, this part's fraction of the whole batch.

    Returns:
        What `adversarial.result_of` returns, and the gradients times `share`,
        by the name of the optimizer's group.
    """
    optimizer, variables = model.optimizer_groups["gradients"]
    with tf.GradientTape() as tape:
        output = model(images, training=True, return_details=True)
        losses = model.latent_losses(output)
        latent = optimizer.scale_loss(model.total_loss(losses) * share)
        reconstruction = tf.cast(output["reconstruction"], tf.float32)

    fake = tf.stop_gradient(reconstruction)
    with tf.GradientTape(persistent=True) as judging:
        judging.watch(fake)
        errors = model.reconstruction_losses(images, fake)
        error = optimizer.scale_loss(model.total_loss(errors) * share)
        terms, logits = _judge(model, images, fake)
        adversarial = optimizer.scale_loss(terms["generator_loss"] * share)
        opposed = opposed_loss(model, terms, share)
    # A loss may have variables of its own, such as a learned scale.
    error_at_image, *direct = judging.gradient(error, [fake, *variables])
    adversarial_at_image = judging.gradient(adversarial, fake)

    terms["adaptive_weight"] = weight = _adaptive_weight(
        model,
        images,
        output["features"],
        (error_at_image, adversarial_at_image),
        share,
    )
    factor = weight * model.adversarial_weight()
    at_image = error_at_image + factor * adversarial_at_image
    found = tape.gradient(
        [reconstruction, latent],
        variables,
        output_gradients=[at_image, tf.ones_like(latent)],
    )
    found = [_sum(*pair) for pair in zip(found, direct, strict=True)]
    losses = {**errors, **losses}
    return result_of(
        model, losses, terms, output, reconstruction, logits * share
    ), {
        "gradients": dense(found),
        **_discriminator_gradients(model, judging, opposed),
    }


def discriminator_gradients(model, images, share):
    """Gradients of the discriminator alone; see `gradients`."""
    output = model(images, training=False, return_details=True)
    fake = tf.stop_gradient(tf.cast(output["reconstruction"], tf.float32))
    with tf.GradientTape() as judging:
        terms, logits = _judge(model, images, fake)
        opposed = opposed_loss(model, terms, share)
    losses = {
        **model.reconstruction_losses(images, fake),
        **model.latent_losses(output),
    }
    result = result_of(model, losses, terms, output, fake, logits * share)
    return result, _discriminator_gradients(model, judging, opposed)


def _judge(model, images, fake):
    """Terms of both losses, and the mean logits of real and fake images."""
    fake_logits = model.discriminator(fake, training=True)
    if not model.adversarial.r1_weight:
        real_logits = model.discriminator(images, training=True)
        return judgement(model, real_logits, fake_logits)
    real_logits, slopes = _slopes(model, images)
    return judgement(model, real_logits, fake_logits, slopes)


def _slopes(model, images):
    """Logits of images, and the gradient of each image's mean logit."""
    scale = scale_of(model.optimizer_groups["discriminator_gradients"][0])
    images = tf.convert_to_tensor(images)  # An array, if run eagerly.
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model.discriminator(images, training=True)
        total = summed_logits(logits) * scale
    return logits, tape.gradient(total, images) / scale


def _discriminator_gradients(model, tape, loss):
    name = "discriminator_gradients"
    _, variables = model.optimizer_groups[name]
    return {name: dense(tape.gradient(loss, variables))}


def _adaptive_weight(model, images, features, at_image, share):
    """The weight that makes both gradients at the last kernel alike.

    `at_image` are both gradients at the reconstruction, times `share`.
    """
    if not model.adversarial.adaptive_weight:
        return tf.constant(1.0)
    # The last layer once more, on a tape that knows nothing before it. What it
    # computes is not needed and is not computed, only its gradient is. The
    # kernel as a tensor, so that there is a gradient of a frozen one, too.
    kernel = model.last_layer.kernel
    value = tf.convert_to_tensor(kernel.value)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(value)
        with keras.StatelessScope(state_mapping=[(kernel, value)]):
            again = model.apply_last_layer(features, images)
        again = tf.cast(again, tf.float32)
    slopes = [
        tape.gradient(again, value, output_gradients=gradient)
        for gradient in at_image
    ]
    share = tf.convert_to_tensor(share, tf.float32)
    ours, theirs, share = all_reduce([*slopes, share])
    return adaptive_weight(model, ours, theirs, share)


def _sum(a, b):
    if a is None or b is None:
        return b if a is None else a
    return tf.convert_to_tensor(a) + tf.convert_to_tensor(b)
