"""Gradients of a generator and its discriminator on TensorFlow.

There is one forward pass of the generator and one backward pass. Both losses
that depend on the reconstruction are taken back to the reconstruction first;
their gradients there, with those at the last kernel that follow from them,
give the adaptive weight, and one combination of them goes back through the
networks. The discriminator learns from the same reconstruction.
"""

import keras
import tensorflow as tf

from keras_vq.losses.adversarial import r1_penalty
from keras_vq.trainers.replicas import all_reduce, dense


def gradients(model, images, share):
    """Gradients of both networks for one part of the batch.

    Args:
        model: A compiled VQGAN.
        images: float32 tensor of shape (batch, height, width, channels).
        share: Scalar, this part's fraction of the whole batch.

    Returns:
        What `generator_losses` returns, with further terms under `losses`,
        and the gradients times `share`, by the name of the optimizer's group.
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
        opposed = _opposed_loss(model, terms, share)
    # A loss may have variables of its own, such as a learned scale.
    error_at_image, *direct = judging.gradient(error, [fake, *variables])
    adversarial_at_image = judging.gradient(adversarial, fake)

    weight = _adaptive_weight(
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
    losses["loss"] = model.total_loss(losses)
    result = {
        "losses": {**losses, **terms, "adaptive_weight": weight},
        "reconstruction": reconstruction,
        "indices": output["indices"],
        "statistics": {
            "quantizer": output["statistics"],
            "logits": logits * share,
        },
    }
    return result, {
        "gradients": dense(found),
        **_discriminator_gradients(model, judging, opposed),
    }


def discriminator_gradients(model, images, share):
    """Gradients of the discriminator alone; see `gradients`."""
    output = model(images, training=False, return_details=True)
    fake = tf.stop_gradient(tf.cast(output["reconstruction"], tf.float32))
    with tf.GradientTape() as judging:
        terms, logits = _judge(model, images, fake)
        opposed = _opposed_loss(model, terms, share)
    losses = {
        **model.reconstruction_losses(images, fake),
        **model.latent_losses(output),
    }
    losses["loss"] = model.total_loss(losses)
    result = {
        "losses": {**losses, **terms},
        "reconstruction": fake,
        "indices": output["indices"],
        "statistics": {"logits": logits * share},
    }
    return result, _discriminator_gradients(model, judging, opposed)


def _judge(model, images, fake):
    """Terms of both losses, and the mean logits of real and fake images."""
    fake_logits = model.discriminator(fake, training=True)
    options = model.adversarial
    if options.r1_weight:
        real_logits, slopes = _slopes(model, images)
    else:
        real_logits = model.discriminator(images, training=True)
    terms = model.discriminator_losses(real_logits, fake_logits)
    if options.r1_weight:
        terms["r1_penalty"] = _found_as_gradient(
            model, tf.reduce_mean(r1_penalty(slopes))
        )
        terms["discriminator_loss"] += options.r1_weight * terms["r1_penalty"]
    return terms, tf.stack([terms["real_logits"], terms["fake_logits"]])


def _slopes(model, images):
    """Logits of images, and the gradient of each image's mean logit."""
    scale = _scale(model.optimizer_groups["discriminator_gradients"][0])
    images = tf.convert_to_tensor(images)  # An array, if run eagerly.
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model.discriminator(images, training=True)
        axes = list(range(1, len(logits.shape)))
        total = tf.reduce_sum(tf.reduce_mean(logits, axes)) * scale
    return logits, tape.gradient(total, images) / scale


def _found_as_gradient(model, penalty):
    """The penalty, or 0 where the slopes went beyond float16.

    That is what a loss scale finds its value by: as with other gradients the
    losses must be finite then. Those of the penalty itself are not, 0 * inf.
    """
    optimizer, _ = model.optimizer_groups["discriminator_gradients"]
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return penalty
    return tf.where(tf.math.is_finite(penalty), penalty, 0.0)


def _opposed_loss(model, terms, share):
    optimizer, _ = model.optimizer_groups["discriminator_gradients"]
    return optimizer.scale_loss(terms["discriminator_loss"] * share)


def _discriminator_gradients(model, tape, loss):
    name = "discriminator_gradients"
    _, variables = model.optimizer_groups[name]
    return {name: dense(tape.gradient(loss, variables))}


def _adaptive_weight(model, images, features, at_image, share):
    """The weight that makes both gradients at the last kernel alike.

    `at_image` are both gradients at the reconstruction, times `share`.
    """
    options = model.adversarial
    if not options.adaptive_weight:
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
    *slopes, share = all_reduce([*slopes, tf.convert_to_tensor(share)])
    # A micro-batch is a part of the batch, on all replicas together; one
    # without images has no gradients either.
    scale = _scale(model.optimizer_groups["gradients"][0])
    scale *= tf.where(share > 0.0, share, 1.0)
    ours, theirs = (tf.norm(slope) / scale for slope in slopes)
    weight = ours / (theirs + 1e-4)
    weight = tf.clip_by_value(weight, 0.0, options.max_adaptive_weight)
    # Gradients beyond float16 are what a loss scale finds its value by: let
    # them be found as gradients, which they reach as 0 * inf.
    return tf.where(tf.math.is_finite(weight), weight, 0.0)


def _scale(optimizer):
    """The factor of an optimizer's loss scale."""
    return optimizer.scale_loss(tf.constant(1.0))


def _sum(a, b):
    if a is None or b is None:
        return b if a is None else a
    return tf.convert_to_tensor(a) + tf.convert_to_tensor(b)
