"""What both networks learn from, where a discriminator takes part.

There is one forward pass of the generator and one backward pass. Both losses
that depend on the reconstruction are taken back to the reconstruction first;
their gradients there, with those at the last kernel that follow from them,
give the adaptive weight, and one combination of them goes back through the
networks. The discriminator learns from the same reconstruction.

How gradients are found, each backend knows: see `tensorflow_adversarial` and
`jax_adversarial`.
"""

import keras
from keras import ops

from keras_vq.losses.adversarial import r1_penalty


def judgement(model, real_logits, fake_logits, slopes=None):
    """Terms of both losses, and the mean logits of real and fake images.

    Args:
        model: A compiled VQGAN.
        real_logits: Float tensor of shape `(batch, ...)`, of images.
        fake_logits: Float tensor of that shape, of reconstructions.
        slopes: Gradient of `summed_logits` at the images, where there is an
            R1 penalty.
    """
    terms = model.discriminator_losses(real_logits, fake_logits)
    if slopes is not None:
        penalty = ops.mean(r1_penalty(slopes))
        terms["r1_penalty"] = _found_as_gradient(model, penalty)
        weight = model.adversarial.r1_weight
        terms["discriminator_loss"] += weight * terms["r1_penalty"]
    return terms, ops.stack([terms["real_logits"], terms["fake_logits"]])


def summed_logits(logits):
    """Sum over the images of each image's mean logit."""
    axes = list(range(1, len(logits.shape)))
    return ops.sum(ops.mean(logits, axes))


def _found_as_gradient(model, penalty):
    """The penalty, or 0 where the slopes went beyond float16.

    That is what a loss scale finds its value by: as with other gradients the
    losses must be finite then. Those of the penalty itself are not, 0 * inf.
    """
    optimizer, _ = model.optimizer_groups["discriminator_gradients"]
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return penalty
    return ops.where(ops.isfinite(penalty), penalty, 0.0)


def opposed_loss(model, terms, share):
    """What the discriminator minimizes for one part of the batch."""
    optimizer, _ = model.optimizer_groups["discriminator_gradients"]
    return optimizer.scale_loss(terms["discriminator_loss"] * share)


def adaptive_weight(model, ours, theirs, share):
    """The weight that makes both gradients at the last kernel alike.

    Args:
        model: A compiled VQGAN.
        ours: Gradient of the reconstruction's losses at the last kernel.
        theirs: That of the adversarial loss.
        share: Scalar, the fraction of the batch that both are of: a
            micro-batch, on all replicas together.
    """
    # One without images has no gradients either.
    scale = scale_of(model.optimizer_groups["gradients"][0])
    scale *= ops.where(share > 0.0, share, 1.0)
    ours, theirs = _norm(ours) / scale, _norm(theirs) / scale
    weight = ours / (theirs + 1e-4)
    weight = ops.clip(weight, 0.0, model.adversarial.max_adaptive_weight)
    # Gradients beyond float16 are what a loss scale finds its value by: let
    # them be found as gradients, which they reach as 0 * inf.
    return ops.where(ops.isfinite(weight), weight, 0.0)


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


def scale_of(optimizer):
    """The factor of an optimizer's loss scale."""
    return optimizer.scale_loss(ops.ones((), "float32"))


def result_of(model, losses, terms, output, reconstruction, logits) -> dict:
    """What a step of both networks says of one part of the batch.

    Args:
        model: A compiled VQGAN.
        losses: Dict of the generator's losses, without the adversarial one.
        terms: Dict of the further terms that are logged.
        output: What the model gives with `return_details=True`.
        reconstruction: float32 tensor.
        logits: The mean logits, times this part's share of the batch.

    Returns:
        What `generator_losses` returns, with further terms under `losses`,
        and `statistics` as `update_from` takes them.
    """
    statistics = {"logits": logits}
    if "statistics" in output:
        statistics["quantizer"] = output["statistics"]
    losses = {**losses, "loss": model.total_loss(losses)}
    return {
        "losses": {**losses, **terms},
        "reconstruction": reconstruction,
        "indices": output["indices"],
        "statistics": statistics,
    }
