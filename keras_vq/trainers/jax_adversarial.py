"""Gradients of a generator and its discriminator on JAX.

See `adversarial` for what they are of.
"""

import jax
from jax import numpy as jnp
from keras import ops

from keras_vq.trainers.adversarial import (
    adaptive_weight,
    judgement,
    opposed_loss,
    result_of,
    scale_of,
    summed_logits,
)


def gradients(model, values, images, share):
    """Gradients of both networks for one part of the batch.

    Args:
        model: A compiled VQGAN.
        values: `Values` of all its variables.
        images: float32 array of shape (batch, height, width, channels).
        share: Scalar, this part's fraction of the whole batch.

    Returns:
        What `adversarial.result_of` returns, the gradients times `share` by
        the name of the optimizer's group, and the values after the forward
        pass.
    """
    optimizer, variables = model.optimizer_groups["gradients"]

    def forward(trained):
        def run():
            output = model(images, training=True, return_details=True)
            losses = model.latent_losses(output)
            latent = optimizer.scale_loss(model.total_loss(losses) * share)
            reconstruction = ops.cast(output["reconstruction"], "float32")
            return (reconstruction, latent), (output, losses)

        (found, details), after = values.having(variables, trained).run(run)
        return found, (*details, values.changes(after, but=variables))

    found, pull_back, details = jax.vjp(
        forward, values.of(variables), has_aux=True
    )
    (fake, latent), (output, losses, changes) = found, details
    values = values.after(changes)

    # A loss may have variables of its own, such as a learned scale.
    errors, error_at_image, direct = _errors(model, values, images, fake, share)
    judged = _judge(model, values, images, fake, share)
    terms, at_image = judged["terms"], (error_at_image, judged["at_image"])
    terms["adaptive_weight"] = weight = _adaptive_weight(
        model, values, images, output["features"], at_image, share
    )
    further, _ = values.run(model.adversarial_weight)
    at_image = error_at_image + weight * further * judged["at_image"]
    (found,) = pull_back((at_image, jnp.ones_like(latent)))
    found = [a + b for a, b in zip(found, direct, strict=True)]
    losses = {**errors, **losses}
    result = result_of(model, losses, terms, output, fake, judged["logits"])
    gradients = {
        "gradients": found,
        "discriminator_gradients": judged["gradients"],
    }
    return result, gradients, judged["values"]


def discriminator_gradients(model, values, images, share):
    """Gradients of the discriminator alone; see `gradients`."""

    def run():
        output = model(images, training=False, return_details=True)
        fake = ops.cast(output["reconstruction"], "float32")
        errors = model.reconstruction_losses(images, fake)
        return output, fake, {**errors, **model.latent_losses(output)}

    (output, fake, losses), _ = values.run(run)
    judged = _judge(model, values, images, fake, share)
    terms, logits = judged["terms"], judged["logits"]
    result = result_of(model, losses, terms, output, fake, logits)
    gradients = {"discriminator_gradients": judged["gradients"]}
    return result, gradients, judged["values"]


def _errors(model, values, images, fake, share):
    """Losses of the reconstruction, and their gradients there and beyond."""
    optimizer, variables = model.optimizer_groups["gradients"]

    def error(fake, trained):
        def run():
            errors = model.reconstruction_losses(images, fake)
            scaled = optimizer.scale_loss(model.total_loss(errors) * share)
            return scaled, errors

        found, _ = values.having(variables, trained).run(run)
        return found

    differentiate = jax.grad(error, argnums=(0, 1), has_aux=True)
    (at_image, direct), errors = differentiate(fake, values.of(variables))
    return errors, at_image, direct


def _judge(model, values, images, fake, share) -> dict:
    """What the discriminator makes of images and reconstructions.

    Returns:
        Dict of the `terms` of both losses; the mean `logits` times `share`;
        the gradients of the adversarial loss `at_image`; the discriminator's
        `gradients`; and the `values` after its forward passes.
    """
    generator, _ = model.optimizer_groups["gradients"]
    _, variables = model.optimizer_groups["discriminator_gradients"]

    def judge(fake, trained):
        after = values.having(variables, trained)
        fake_logits, after = after.run(
            lambda: model.discriminator(fake, training=True)
        )
        take = _real_logits
        if model.adversarial.r1_weight:
            take = _real_logits_and_slopes
        (real_logits, slopes), after = take(model, after, images)

        def run():
            terms, logits = judgement(model, real_logits, fake_logits, slopes)
            adversarial = generator.scale_loss(terms["generator_loss"] * share)
            opposed = opposed_loss(model, terms, share)
            return (adversarial, opposed), (terms, logits)

        (losses, details), after = after.run(run)
        return losses, (*details, values.changes(after, but=variables))

    losses, pull_back, (terms, logits, changes) = jax.vjp(
        judge, fake, values.of(variables), has_aux=True
    )
    one, zero = jnp.ones_like(losses[0]), jnp.zeros_like(losses[0])
    return {
        "terms": terms,
        "logits": logits * share,
        "at_image": pull_back((one, zero))[0],
        "gradients": pull_back((zero, one))[1],
        "values": values.after(changes),
    }


def _real_logits(model, values, images):
    logits, after = values.run(
        lambda: model.discriminator(images, training=True)
    )
    return (logits, None), after


def _real_logits_and_slopes(model, values, images):
    """Logits of images, and the gradient of each image's mean logit."""
    optimizer, _ = model.optimizer_groups["discriminator_gradients"]
    scale, _ = values.run(lambda: scale_of(optimizer))

    def total(images):
        (logits, _), after = _real_logits(model, values, images)
        return summed_logits(logits) * scale, (logits, values.changes(after))

    differentiate = jax.grad(total, has_aux=True)
    slopes, (logits, changes) = differentiate(jnp.asarray(images))
    return (logits, slopes / scale), values.after(changes)


def _adaptive_weight(model, values, images, features, at_image, share):
    """The weight that makes both gradients at the last kernel alike.

    `at_image` are both gradients at the reconstruction, times `share`.
    """
    if not model.adversarial.adaptive_weight:
        return jnp.ones(())
    # The last layer once more, as a function of its kernel alone, which may be
    # frozen. What it computes is not needed and is not computed, only its
    # gradient is.
    kernel = model.last_layer.kernel

    def last_layer(value):
        again, _ = values.having([kernel], [value]).run(
            lambda: model.apply_last_layer(features, images)
        )
        return ops.cast(again, "float32")

    _, pull_back = jax.vjp(last_layer, *values.of([kernel]))
    (ours,), (theirs,) = (pull_back(gradient) for gradient in at_image)
    weight, _ = values.run(lambda: adaptive_weight(model, ours, theirs, share))
    return weight
