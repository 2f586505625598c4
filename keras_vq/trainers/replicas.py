"""The replicas of a `tf.distribute` strategy: their parts, and their sums."""

import contextlib

import keras
import tensorflow as tf

from keras_vq.layers.normalization import images_present
from keras_vq.trainers.gate import present


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


def all_reduce(values):
    """Sums every tensor of a structure over the replicas; keeps None."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    flat = keras.tree.flatten(values)
    reduced = iter(
        context.all_reduce(tf.distribute.ReduceOp.SUM, present(flat))
    )
    flat = [None if v is None else next(reduced) for v in flat]
    return keras.tree.pack_sequence_as(values, flat)


def dense(gradients) -> list:
    """Gradients as tensors; None stays.

    The gradient of a lookup in a codebook is sparse, and can neither be added
    nor clipped.
    """
    return [None if g is None else tf.convert_to_tensor(g) for g in gradients]
