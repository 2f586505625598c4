"""How one training step is taken on TensorFlow.

The model says what its losses are (`generator_losses`, pure functions); this
module says how a step is taken with them, on one device or on the replicas of
a `tf.distribute` strategy:

    micro-batches -> losses x share of the batch -> gradients and statistics,
    summed -> all-reduced -> clipped -> the gate -> optimizers, codebook and
    weight average, once.

Three things differ from Keras' own step, because Keras' own is wrong with a
codebook, under accumulation or with an uneven last batch:

- Every part of the batch counts by its share of the images, not by 1 over the
  number of parts; a replica left without images counts nothing.
- The codebook is updated once a step from the summed statistics.
- One gate stands before everything a step changes (see `gate`): with anything
  non-finite anywhere, weights, slots, iterations, batch statistics, codebook,
  averages and metrics stay as they were, on all replicas alike.

What of that a discriminator changes is in `adversarial`.
"""

import keras
import tensorflow as tf

from keras_vq.layers.quantizers.slots import statistics_slot
from keras_vq.trainers import adversarial, batches, gate
from keras_vq.trainers.phases import Phase
from keras_vq.trainers.replicas import all_reduce, dense, present
from keras_vq.trainers.workers import reducible


def train_step(model, data):
    """Takes one training step and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    # Without a batch, at the end of data of unknown length, nothing counts.
    with tf.control_dependencies([images]):
        model.steps.assign_add(1)
    guarded = gate.Guard(gate.batch_statistics(model))

    share, replica, replicas = batches.share_of_replica(images)
    parts = batches.split(images, model.accumulation_steps)
    results, gradients, statistics = [], None, None
    for index, part in enumerate(parts):
        slot = replica * len(parts) + index
        with statistics_slot(slot, replicas * len(parts)):
            result, part_gradients = _gradients(
                model, part, share * batches.share_of(part, images)
            )
        gradients = batches.add(gradients, part_gradients)
        statistics = batches.add(statistics, result.pop("statistics"))
        results.append(result)

    terms = batches.mean_of_terms(results, parts, images)
    statistics = all_reduce(statistics)
    bad = gate.non_finite(model, images, terms, gradients, statistics, guarded)
    finite = tf.reduce_sum(bad) == 0
    if model.clipnorm is not None:
        gradients = _clip(model, all_reduce(gradients), replicas)
    gate.take_or_leave(model, bad, gradients, statistics)
    guarded.restore_unless(finite)

    guarded = gate.Guard(model.metrics_variables)
    reconstruction = batches.concatenated(results, "reconstruction")
    indices = batches.concatenated(results, "indices")
    _update_metrics(model, images, terms, reconstruction, indices)
    guarded.restore_unless(finite)
    return reducible(model.get_metrics_result())


def test_step(model, data):
    """Evaluates one batch and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    padded = batches.at_least_one(model, images, training=False)
    result = model.generator_losses(padded, training=False)
    result = batches.without_padding(result, padded, images)
    terms = {**result["losses"], "loss": model.total_loss(result["losses"])}
    _update_metrics(
        model, images, terms, result["reconstruction"], result["indices"]
    )
    return reducible(model.evaluation_logs(model.get_metrics_result()))


def _gradients(model, images, share):
    """What the model says of one part, and gradients times its share.

    The gradients are lists by name, one for each of `model.optimizer_groups`
    that a step of the present phase concerns.
    """
    padded = batches.at_least_one(model, images, training=True)
    take = _autoencoder_gradients
    if model.phase is Phase.DISCRIMINATOR:
        take = adversarial.discriminator_gradients
    elif model.phase is Phase.BOTH:
        take = adversarial.gradients
    with batches.of_images(padded, images):
        result, gradients = take(model, padded, share)
    return batches.without_padding(result, padded, images), gradients


def _autoencoder_gradients(model, images, share):
    optimizer, variables = model.optimizer_groups["gradients"]
    with tf.GradientTape() as tape:
        result = model.generator_losses(images, training=True)
        loss = model.total_loss(result["losses"])
        scaled = optimizer.scale_loss(loss * share)
    result["losses"]["loss"] = loss
    result["statistics"] = {"quantizer": result["statistics"]}
    return result, {"gradients": dense(tape.gradient(scaled, variables))}


def _clip(model, gradients, replicas):
    """Clips the gradients of the whole batch by each network's global norm.

    The optimizers sum over the replicas once more: hence 1 / replicas.
    """
    return {
        name: _clipped(model, model.optimizer_groups[name][0], group, replicas)
        for name, group in gradients.items()
    }


def _clipped(model, optimizer, gradients, replicas):
    if not present(gradients):
        return gradients  # Everything is frozen.
    squares = [tf.reduce_sum(tf.square(g)) for g in present(gradients)]
    norm = tf.sqrt(tf.add_n(squares))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        norm = norm / optimizer.dynamic_scale
    factor = model.clipnorm / tf.maximum(norm, model.clipnorm) / replicas
    return [None if g is None else g * factor for g in gradients]


def _update_metrics(model, images, terms, reconstruction, indices):
    model.update_trackers(terms, indices, batch_size=tf.shape(images)[0])
    model.compute_metrics(
        x=images, y=images, y_pred=reconstruction, sample_weight=None
    )
