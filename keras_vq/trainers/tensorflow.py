"""How one training step is taken on TensorFlow.

The model says what its losses are (`generator_losses`, pure functions); this
module says how a step is taken with them, on one device or on the replicas of
a `tf.distribute` strategy:

    micro-batches -> losses x share of the batch -> gradients and statistics,
    summed -> all-reduced -> clipped -> the gate -> optimizer, codebook and
    weight average, once.

Three things differ from Keras' own step, because Keras' own is wrong with a
codebook, under accumulation or with an uneven last batch:

- Every part of the batch counts by its share of the images, not by 1 over the
  number of parts; a replica left without images counts nothing.
- The codebook is updated once a step from the summed statistics.
- One gate stands before everything a step changes (see `gate`): with anything
  non-finite anywhere, weights, slots, iterations, batch statistics, codebook,
  averages and metrics stay as they were, on all replicas alike.
"""

import keras
import tensorflow as tf

from keras_vq.layers.quantizers.slots import statistics_slot
from keras_vq.trainers import gate
from keras_vq.trainers.replicas import all_reduce, present
from keras_vq.trainers.workers import reducible


def train_step(model, data):
    """Takes one training step and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    # Without a batch, at the end of data of unknown length, nothing counts.
    with tf.control_dependencies([images]):
        model.steps.assign_add(1)
    variables = model.trainable_variables
    guarded = gate.Guard(gate.batch_statistics(model))

    share, replica, replicas = _share_of_replica(images)
    parts = _split(images, model.accumulation_steps)
    results, gradients, statistics = [], None, None
    for index, part in enumerate(parts):
        slot = replica * len(parts) + index
        with statistics_slot(slot, replicas * len(parts)):
            result, part_gradients = _gradients(
                model, part, variables, share * _share(part, images)
            )
        gradients = _add(gradients, part_gradients)
        statistics = _add(statistics, result.pop("statistics"))
        results.append(result)

    terms = _weighted_terms(results, parts, images)
    statistics = all_reduce(statistics)
    bad = gate.non_finite(model, images, terms, gradients, statistics, guarded)
    finite = tf.reduce_sum(bad) == 0
    if model.clipnorm is not None:
        gradients = _clip(model, all_reduce(gradients), replicas)
    gate.take_or_leave(model, bad, gradients, statistics)
    guarded.restore_unless(finite)

    guarded = gate.Guard(model.metrics_variables)
    reconstruction = _concat([r["reconstruction"] for r in results])
    indices = tf.nest.map_structure(
        lambda *i: _concat(i), *[r["indices"] for r in results]
    )
    _update_metrics(model, images, terms, reconstruction, indices)
    guarded.restore_unless(finite)
    return reducible(model.get_metrics_result())


def test_step(model, data):
    """Evaluates one batch and returns the logs."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    result = _losses(model, images, training=False)
    terms = {**result["losses"], "loss": model.total_loss(result["losses"])}
    _update_metrics(
        model, images, terms, result["reconstruction"], result["indices"]
    )
    return reducible(model.get_metrics_result())


def _losses(model, images, training):
    """What the model says of images, of which there may be none.

    The last batch of an epoch may leave a replica or a micro-batch without
    images, and convolutions fail on an empty batch: they get one grey image
    then, which counts nowhere.
    """
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    if replicas == 1 and (model.accumulation_steps == 1 or not training):
        return model.generator_losses(images, training=training)
    count = tf.shape(images)[0]
    rest = [[0, 0]] * (len(images.shape) - 1)
    padded = tf.pad(images, [[0, tf.maximum(1 - count, 0)], *rest])
    result = model.generator_losses(padded, training=training)
    for name in ("reconstruction", "indices"):
        result[name] = tf.nest.map_structure(lambda x: x[:count], result[name])
    if training:
        there = tf.cast(count > 0, tf.float32)
        result["statistics"] = tf.nest.map_structure(
            lambda s: s * there, result["statistics"]
        )
    return result


def _gradients(model, images, variables, share):
    """Losses and statistics of one part, and gradients times its share."""
    with tf.GradientTape() as tape:
        result = _losses(model, images, training=True)
        loss = model.total_loss(result["losses"])
        scaled = model.optimizer.scale_loss(loss * share)
    result["losses"]["loss"] = loss
    # Dense ones: the gradient of a lookup in a codebook is sparse, and can
    # neither be added nor clipped.
    gradients = [
        None if g is None else tf.convert_to_tensor(g)
        for g in tape.gradient(scaled, variables)
    ]
    return result, gradients


# Shares of the batch


def _share(part, whole):
    """Which fraction of `whole` the images of `part` are."""
    if part is whole:
        return 1.0
    count = tf.cast(tf.shape(whole)[0], tf.float32)
    return tf.cast(tf.shape(part)[0], tf.float32) / tf.maximum(count, 1.0)


def _share_of_replica(images):
    """Share of this replica in the global batch, its number, how many."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return 1.0, 0, 1
    count = tf.cast(tf.shape(images)[0], tf.float32)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    share = count / tf.maximum(total, 1.0)
    return share, context.replica_id_in_sync_group, replicas


def _split(images, parts: int) -> list:
    """Micro-batches whose sizes differ by one at most."""
    if parts == 1:
        return [images]
    count = tf.shape(images)[0]
    bounds = [count * i // parts for i in range(parts + 1)]
    return [
        images[start:end]
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _weighted_terms(results, parts, images):
    if len(results) == 1:
        return results[0]["losses"]
    terms = None
    for result, part in zip(results, parts, strict=True):
        share = _share(part, images)
        weighted = {name: t * share for name, t in result["losses"].items()}
        terms = _add(terms, weighted)
    return terms


def _add(total, values):
    """Sum of two like structures; None, no gradient, is a zero."""
    if total is None:
        return values
    flat = [
        b if a is None else a if b is None else a + b
        for a, b in zip(
            keras.tree.flatten(total), keras.tree.flatten(values), strict=True
        )
    ]
    return keras.tree.pack_sequence_as(total, flat)


def _concat(tensors):
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, 0)


# Clipping


def _clip(model, gradients, replicas):
    """Clips the gradients of the whole batch by their global norm.

    The optimizer sums over the replicas once more: hence 1 / replicas.
    """
    squares = [tf.reduce_sum(tf.square(g)) for g in present(gradients)]
    norm = tf.sqrt(tf.add_n(squares))
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        norm = norm / model.optimizer.dynamic_scale
    factor = model.clipnorm / tf.maximum(norm, model.clipnorm) / replicas
    return [None if g is None else g * factor for g in gradients]


# Metrics


def _update_metrics(model, images, terms, reconstruction, indices):
    model.update_trackers(terms, indices, batch_size=tf.shape(images)[0])
    model.compute_metrics(
        x=images, y=images, y_pred=reconstruction, sample_weight=None
    )
