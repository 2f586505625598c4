"""The parts of a batch: one for each replica, split into micro-batches.

Every part counts by its share of the images, and may have none: at the end of
an epoch a replica or a micro-batch can be left without.
"""

import contextlib

import keras
import tensorflow as tf

from keras_vq.layers.normalization import images_present


def share_of(part, whole):
    """Which fraction of the images of `whole` those of `part` are."""
    if part is whole:
        return 1.0
    count = tf.cast(tf.shape(whole)[0], tf.float32)
    return tf.cast(tf.shape(part)[0], tf.float32) / tf.maximum(count, 1.0)


def share_of_replica(images):
    """Share of this replica in the global batch, its number, how many."""
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return 1.0, 0, 1
    count = tf.cast(tf.shape(images)[0], tf.float32)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    share = count / tf.maximum(total, 1.0)
    return share, context.replica_id_in_sync_group, replicas


def split(images, parts: int) -> list:
    """Micro-batches whose sizes differ by one at most."""
    if parts == 1:
        return [images]
    count = tf.shape(images)[0]
    bounds = [count * i // parts for i in range(parts + 1)]
    return [
        images[start:end]
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def at_least_one(model, images, training):
    """`images`, or one grey image where there could be none and are none.

    Convolutions fail on an empty batch. The grey image counts nowhere: see
    `of_images` and `without_padding`, and the share of its losses is 0.
    """
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    if replicas == 1 and (model.accumulation_steps == 1 or not training):
        return images
    rest = [[0, 0]] * (len(images.shape) - 1)
    missing = tf.maximum(1 - tf.shape(images)[0], 0)
    return tf.pad(images, [[0, missing], *rest])


def of_images(padded, images):
    """Context in which moments over `padded` are those of the `images`."""
    if padded is images:
        return contextlib.nullcontext()
    return images_present(tf.shape(images)[0] > 0)


def without_padding(result: dict, padded, images) -> dict:
    """What a model says of `padded`, for the `images` that there are."""
    if padded is images:
        return result
    count = tf.shape(images)[0]
    for name in ("reconstruction", "indices"):
        result[name] = tf.nest.map_structure(lambda x: x[:count], result[name])
    if result.get("statistics") is not None:
        there = tf.cast(count > 0, tf.float32)
        result["statistics"] = tf.nest.map_structure(
            lambda s: s * there, result["statistics"]
        )
    return result


def mean_of_terms(results, parts, images):
    """Means of the loss terms over all images of the parts."""
    if len(results) == 1:
        return results[0]["losses"]
    terms = None
    for result, part in zip(results, parts, strict=True):
        share = share_of(part, images)
        weighted = {name: t * share for name, t in result["losses"].items()}
        terms = add(terms, weighted)
    return terms


def add(total, values):
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


def concatenated(results, name):
    """The parts' tensors under one name as those of the whole batch."""
    if len(results) == 1:
        return results[0][name]
    values = [result[name] for result in results]
    return tf.nest.map_structure(lambda *v: tf.concat(v, 0), *values)
