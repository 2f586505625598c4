"""The gate: a step takes its update, or leaves everything as it was.

A step with anything non-finite changes no weight, slot, average, batch
statistic or code, on no replica. What was not finite is recorded in the model's
training state, inside of the graph and only at such a step, so that a healthy
step pays for a few sums and nothing else; `NonFiniteSteps` reads the record now
and then.
"""

import functools

import keras
import tensorflow as tf

from keras_vq.trainers.replicas import all_reduce, present


def non_finite(model, images, losses, gradients, statistics, guarded):
    """Which of `model.gate_terms` are not finite, on any replica.

    Args:
        model: The model in training.
        images: The images of this replica.
        losses: Dict of scalar losses by name.
        gradients: Dict of lists of gradients or None, by the name of their
            group.
        statistics: The quantizer's statistics, summed over the replicas.
        guarded: `Guard` of the variables that the forward pass assigns.

    Returns:
        int32 tensor of zeros and ones, in the order of `model.gate_terms`.
    """
    replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    # A sum is finite only if all its terms are, and is cheaper to look at. For
    # gradients it is that of the squares, which optimizers keep: where those
    # of the summed gradient overflow, its slots would never recover.
    sums = {
        "images": tf.reduce_sum(images),
        **losses,
        "batch_statistics": guarded.change(),
        # Equal on all replicas already, and found by each.
        "codebook_statistics": _sum(
            [tf.reduce_sum(s) for s in present(keras.tree.flatten(statistics))]
        ),
        "learning_rate": _sum(
            [
                keras.ops.convert_to_tensor(optimizer.learning_rate)
                for optimizer, _ in model.optimizer_groups.values()
            ]
        ),
    }
    for name, group in gradients.items():
        squares = [tf.nn.l2_loss(g) for g in present(group)]
        sums[name] = _sum(squares) * float(2 * replicas**2)
    sums = tf.stack(
        [
            tf.cast(sums.get(name, 0.0), tf.float32)
            for name in model.gate_terms[:-1]
        ]
    )
    bad = tf.cast(~tf.math.is_finite(sums), tf.float32)
    bad = tf.cast(all_reduce([bad])[0] > 0, tf.int32)
    return tf.pad(bad, [[0, 1]])


def _sum(tensors):
    if not tensors:
        return 0.0
    return tf.add_n([tf.cast(t, tf.float32) for t in tensors])


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
            lambda: _skip_update(model, bad),
        )
        return

    def in_cross_replica_context(strategy, bad, gradients, statistics):
        def take():
            strategy.extended.call_for_each_replica(
                update, args=(gradients, statistics)
            )

        bad = strategy.experimental_local_results(bad)[0]
        tf.cond(tf.reduce_sum(bad) == 0, take, lambda: _skip_update(model, bad))

    tf.distribute.get_replica_context().merge_call(
        in_cross_replica_context, args=(bad, gradients, statistics)
    )


def _apply_update(model, gradients, statistics):
    for name, group in gradients.items():
        if present(group):
            optimizer, variables = model.optimizer_groups[name]
            optimizer.apply(group, variables)
    model.update_from(statistics)
    if model.weight_average is not None:
        model.weight_average.update()


def _skip_update(model, bad):
    """Records the step, and lowers the loss scale where that is the cause."""
    bad, in_a_row = _blame_the_scale(model, bad)
    step, log = tf.identity(model.steps.value), model.skipped_log
    goes_on = tf.cast(log.value[-1, 0] == step - 1, tf.int32)
    model.skipped_in_a_row.assign(
        model.skipped_in_a_row.value * goes_on + in_a_row
    )
    bits = tf.constant([2**i for i in range(len(model.gate_terms))])
    row = tf.stack([step, tf.reduce_sum(bad * bits)])
    log.assign(tf.concat([log.value[1:], row[None]], 0))
    counts = model.skipped_by_term
    counts.assign(
        counts.value + tf.pad(bad, [[0, counts.shape[0] - bad.shape[0]]])
    )
    model.skipped_steps.assign(model.skipped_steps.value + 1)


def _blame_the_scale(model, bad):
    """`bad`, and 1 if the step counts as one of several in a row, else 0.

    Finite losses whose scaled gradients overflow are what a loss scale finds
    its value by: it is halved then, down to 1, where it helps no more. Other
    causes leave it alone: a bad image in every hundredth batch would otherwise
    bring it to 0, and with it, without a word, all gradients in float16.
    """
    found = tf.zeros((), bad.dtype)
    lowered = []
    for name, (optimizer, _) in model.optimizer_groups.items():
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            overflow = tf.logical_and(
                bad[model.gate_terms.index(name)] > 0,
                optimizer.dynamic_scale.value > 1.0,
            )
            lowered.append((optimizer, overflow))
            found += tf.cast(overflow, bad.dtype)
    if not lowered:
        return bad, 1
    # All that is bad are gradients, each of which has a scale to lower.
    blame = tf.logical_and(found > 0, tf.reduce_sum(bad) == found)
    for optimizer, overflow in lowered:
        lower = tf.logical_and(blame, overflow)
        _halve_scale(optimizer, lower)
    blamed = tf.constant([0] * (len(model.gate_terms) - 1) + [1])
    return tf.where(blame, blamed, bad), 1 - tf.cast(blame, tf.int32)


def _halve_scale(optimizer, condition):
    counter, scale = optimizer.step_counter, optimizer.dynamic_scale
    zero = tf.zeros_like(counter.value)
    counter.assign(tf.where(condition, zero, counter.value))
    scale.assign(tf.where(condition, scale.value * 0.5, scale.value))


def batch_statistics(model) -> list:
    """Variables that the forward pass itself assigns.

    Random states are left out: to go on with them does no harm.
    """
    weights = model.non_trainable_weights
    kept = {id(w) for w in [*model.quantizer_weights, *model.training_state]}
    return [w for w in weights if id(w) not in kept and w.trainable is False]


class Guard:
    """Puts variables back to their values at the time it was made."""

    def __init__(self, variables):
        self.saved = [(v, tf.identity(v.value)) for v in variables]

    def change(self):
        """A number that is not finite if one of them has become so."""
        changes = []
        for variable, value in self.saved:
            if keras.backend.is_float_dtype(variable.dtype):
                # What was infinite before, such as a constant of somebody's
                # layer, says nothing.
                before, now = tf.reduce_sum(value), variable.value
                sound = tf.math.is_finite(before)
                changes.append(
                    tf.where(sound, tf.reduce_sum(now), tf.zeros_like(before))
                )
        return _sum(changes)

    def restore_unless(self, condition):
        for variable, value in self.saved:
            variable.assign(tf.where(condition, variable.value, value))
