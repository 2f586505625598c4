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

What of that a discriminator changes is in `tensorflow_adversarial`.
"""

import keras
import tensorflow as tf

from keras_vq.layers.quantizers.slots import statistics_slot
from keras_vq.trainers import (
    batches,
    gate,
    replicas,
    tensorflow_adversarial,
    tensorflow_gate,
)
from keras_vq.trainers.clipping import clip
from keras_vq.trainers.phases import Phase
from keras_vq.trainers.replicas import all_reduce, dense
from keras_vq.trainers.workers import reducible


def train_step(model, data):
    """Takes one training step and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    # Without a batch, at the end of data of unknown length, nothing counts.
    with tf.control_dependencies([images]):
        model.steps.assign_add(1)
    guarded = tensorflow_gate.Guard(gate.batch_statistics(model))

    share, replica, count = replicas.share_of_replica(images)
    parts = batches.split(images, model.accumulation_steps)
    results, gradients, statistics = [], None, None
    for index, part in enumerate(parts):
        slot = replica * len(parts) + index
        with statistics_slot(slot, count * len(parts)):
            result, part_gradients = _gradients(
                model, part, share * batches.share_of(part, images)
            )
        gradients = batches.add(gradients, part_gradients)
        statistics = batches.add(statistics, result.pop("statistics"))
        results.append(result)

    terms = batches.mean_of_terms(results, parts, images)
    statistics = all_reduce(statistics)
    bad = tensorflow_gate.non_finite(
        model, images, terms, gradients, statistics, guarded
    )
    finite = tf.reduce_sum(bad) == 0
    if model.clipnorm is not None:
        gradients = clip(model, all_reduce(gradients), count)
    tensorflow_gate.take_or_leave(model, bad, gradients, statistics)
    guarded.restore_unless(finite)

    guarded = tensorflow_gate.Guard(model.metrics_variables)
    model.update_metrics(images, terms, batches.whole(results))
    guarded.restore_unless(finite)
    return reducible(model.get_metrics_result())


def test_step(model, data):
    """Evaluates one batch and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    padded = replicas.at_least_one(model, images, training=False)
    result = model.generator_losses(padded, training=False)
    result = replicas.without_padding(result, padded, images)
    terms = {**result["losses"], "loss": model.total_loss(result["losses"])}
    model.update_metrics(images, terms, result)
    return reducible(model.evaluation_logs(model.get_metrics_result()))


def _gradients(model, images, share):
    """What the model says of one part, and gradients times its share.

    The gradients are lists by name, one for each of `model.optimizer_groups`
    that a step of the present phase concerns.
    """
    padded = replicas.at_least_one(model, images, training=True)
    take = _autoencoder_gradients
    if model.phase is Phase.DISCRIMINATOR:
        take = tensorflow_adversarial.discriminator_gradients
    elif model.phase is Phase.BOTH:
        take = tensorflow_adversarial.gradients
    with replicas.of_images(padded, images):
        result, gradients = take(model, padded, share)
    return replicas.without_padding(result, padded, images), gradients


def _autoencoder_gradients(model, images, share):
    optimizer, variables = model.optimizer_groups["gradients"]
    with tf.GradientTape() as tape:
        result = model.generator_losses(images, training=True)
        loss = model.total_loss(result["losses"])
        scaled = optimizer.scale_loss(loss * share)
    result["losses"]["loss"] = loss
    result["statistics"] = {"quantizer": result["statistics"]}
    found = dense(tape.gradient(scaled, variables))
    return result, {"gradients": found}
