"""The gate on TensorFlow: with one condition for all replicas.

What was not finite is recorded inside of the graph and only at such a step, so
that a healthy step pays for a few sums and nothing else.
"""

import functools

import tensorflow as tf

from keras_vq.trainers import gate
from keras_vq.trainers.gate import present
from keras_vq.trainers.replicas import all_reduce
from keras_vq.trainers.tensorflow_adam import in_one_operation


def non_finite(model, images, losses, gradients, statistics, guarded):
    """Which of `model.gate_terms` are not finite, on any replica.

    Args:
        model: The model in training.
        images: The images of this replica.
        losses: Dict of scalar losses by name.
        gradients: Dict of lists of gradients or None, by the name of their
            group.
        statistics: The quantizer's statistics, summed over the replicas: equal
            on all of them already, and found by each.
        guarded: `Guard` of the variables that the forward pass assigns.

    Returns:
        int32 tensor of zeros and ones, in the order of `model.gate_terms`.
    """
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    change = guarded.change()
    sums = gate.sums_by_term(model, images, losses, statistics, change)
    for name, group in gradients.items():
        # The squares, which optimizers keep: where those of the summed
        # gradient overflow, its slots would never recover.
        squares = [tf.nn.l2_loss(g) for g in present(group)]
        sums[name] = gate.total(squares) * float(2 * replicas**2)
    return gate.as_record(all_reduce([gate.not_finite(model, sums)])[0])


def take_or_leave(model, bad, gradients, statistics):
    """Takes the update if nothing is `bad`, or leaves everything as it is.

    A mask on the loss would not do: with zero gradients AdamW still moves the
    weights. The condition stands in cross-replica context, as that of Keras'
    LossScaleOptimizer does, because optimizers merge the replicas and that
    cannot happen inside of a condition.
    """
    update = functools.partial(_apply_update, model)
    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(
            tf.reduce_sum(bad) == 0,
            lambda: update(gradients, statistics),
            lambda: gate.record_skip(model, bad),
        )
        return

    def in_cross_replica_context(strategy, bad, gradients, statistics):
        def take():
            strategy.extended.call_for_each_replica(
                update, args=(gradients, statistics)
            )

        bad = strategy.experimental_local_results(bad)[0]
        tf.cond(
            tf.reduce_sum(bad) == 0, take, lambda: gate.record_skip(model, bad)
        )

    tf.distribute.get_replica_context().merge_call(
        in_cross_replica_context, args=(bad, gradients, statistics)
    )


def _apply_update(model, gradients, statistics):
    for name, group in gradients.items():
        if present(group):
            optimizer, variables = model.optimizer_groups[name]
            with in_one_operation(optimizer):
                optimizer.apply(group, variables)
    gate.update_what_follows(model, statistics)


class Guard:
    """Puts variables back to their values at the time it was made."""

    def __init__(self, variables):
        self.saved = [(v, tf.identity(v.value)) for v in variables]

    def change(self):
        """A number that is not finite if one of them has become so."""
        variables = [variable for variable, _ in self.saved]
        before = [value for _, value in self.saved]
        after = [variable.value for variable in variables]
        return gate.change_of(variables, before, after)

    def restore_unless(self, condition):
        for variable, value in self.saved:
            variable.assign(tf.where(condition, variable.value, value))
