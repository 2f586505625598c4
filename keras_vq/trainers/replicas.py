"""Sums over the replicas of a `tf.distribute` strategy."""

import keras
import tensorflow as tf


def present(gradients) -> list:
    """The gradients that there are: a variable may have none."""
    return [g for g in gradients if g is not None]


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
