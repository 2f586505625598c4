"""The gate: a step takes its update, or leaves everything as it was.

A step with anything non-finite changes no weight, slot, average, batch
statistic or code, on no replica. What was not finite is recorded in the model's
training state, by the compiled step itself; `NonFiniteSteps` reads the record
now and then. Here is what is looked at and what is recorded; how a step that
was taken is left again, each backend knows: see `tensorflow_gate` and `jax`.
"""

import keras
from keras import ops


def present(gradients) -> list:
    """The gradients that there are: a variable may have none."""
    return [g for g in gradients if g is not None]


def sums_by_term(model, images, losses, statistics, change) -> dict:
    """A number for each of `model.gate_terms`, finite only if all of it is.

    A sum is finite only if all its terms are, and is cheaper to look at.

    Args:
        model: The model in training.
        images: The images of this replica.
        losses: Dict of scalar losses by name.
        statistics: What `model.update_from` takes.
        change: What `change_of` gives for the forward pass.

    Returns:
        Dict of scalars, without those of the gradients and the loss scale.
    """
    statistics = present(keras.tree.flatten(statistics))
    groups = model.optimizer_groups.values()
    return {
        "images": ops.sum(images),
        **losses,
        "batch_statistics": change,
        "codebook_statistics": total([ops.sum(s) for s in statistics]),
        "learning_rate": total(
            [ops.convert_to_tensor(o.learning_rate) for o, _ in groups]
        ),
    }


def not_finite(model, sums: dict):
    """Where those numbers are not finite, as float32 zeros and ones.

    Args:
        model: The model in training.
        sums: What `sums_by_term` gives, and the sum of the squared gradients
            under the name of each of `model.optimizer_groups`.

    Returns:
        Tensor in the order of `model.gate_terms`, without the last one.
    """
    values = [
        ops.cast(sums.get(name, 0.0), "float32")
        for name in model.gate_terms[:-1]
    ]
    finite = ops.isfinite(ops.stack(values))
    return ops.cast(ops.logical_not(finite), "float32")


def as_record(not_finite):
    """Counts of `not_finite`, for all of `model.gate_terms`, 0 or 1 each.

    The last one, the loss scale, is blamed by `record_skip` alone.
    """
    return ops.pad(ops.cast(not_finite > 0, "int32"), ((0, 1),))


def total(tensors):
    """Sum of tensors in float32; 0 of none."""
    if not tensors:
        return 0.0
    return ops.sum(ops.stack([ops.cast(t, "float32") for t in tensors]))


def change_of(variables, before, after):
    """A number that is not finite if one of the variables has become so."""
    changes = []
    for variable, old, new in zip(variables, before, after, strict=True):
        if keras.backend.is_float_dtype(variable.dtype):
            # What was infinite before, such as a constant of somebody's
            # layer, says nothing.
            old = ops.sum(old)
            sound = ops.isfinite(old)
            changes.append(ops.where(sound, ops.sum(new), ops.zeros_like(old)))
    return total(changes)


def batch_statistics(model) -> list:
    """Variables that the forward pass itself assigns.

    Random states are left out: to go on with them does no harm.
    """
    weights = model.non_trainable_weights
    kept = {id(w) for w in [*model.quantizer_weights, *model.training_state]}
    return [w for w in weights if id(w) not in kept and w.trainable is False]


def update_what_follows(model, statistics) -> None:
    """Takes what a step changes after the optimizers."""
    model.update_from(statistics)
    if model.weight_average is not None:
        model.weight_average.update()


def record_skip(model, bad) -> None:
    """Records the step, and lowers the loss scale where that is the cause.

    Args:
        model: The model in training.
        bad: int32 tensor of zeros and ones; see `as_record`.
    """
    bad, in_a_row = _blame_the_scale(model, bad)
    step, log = model.steps.value + 0, model.skipped_log
    goes_on = ops.cast(log.value[-1, 0] == step - 1, "int32")
    model.skipped_in_a_row.assign(
        model.skipped_in_a_row.value * goes_on + in_a_row
    )
    bits = ops.convert_to_tensor(
        [2**i for i in range(len(model.gate_terms))], "int32"
    )
    row = ops.stack([step, ops.sum(bad * bits)])
    log.assign(ops.concatenate([log.value[1:], row[None]], 0))
    counts = model.skipped_by_term
    missing = counts.shape[0] - len(model.gate_terms)
    counts.assign(counts.value + ops.pad(bad, ((0, missing),)))
    model.skipped_steps.assign(model.skipped_steps.value + 1)


def _blame_the_scale(model, bad):
    """`bad`, and 1 if the step counts as one of several in a row, else 0.

    Finite losses whose scaled gradients overflow are what a loss scale finds
    its value by: it is halved then, down to 1, where it helps no more. Other
    causes leave it alone: a bad image in every hundredth batch would otherwise
    bring it to 0, and with it, without a word, all gradients in float16.
    """
    found, lowered = 0, []
    for name, (optimizer, _) in model.optimizer_groups.items():
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            overflow = ops.logical_and(
                bad[model.gate_terms.index(name)] > 0,
                optimizer.dynamic_scale.value > 1.0,
            )
            lowered.append((optimizer, overflow))
            found += ops.cast(overflow, "int32")
    if not lowered:
        return bad, 1
    # All that is bad are gradients, each of which has a scale to lower.
    blame = ops.logical_and(found > 0, ops.sum(bad) == found)
    for optimizer, overflow in lowered:
        _halve_scale(optimizer, ops.logical_and(blame, overflow))
    blamed = ops.convert_to_tensor(
        [0] * (len(model.gate_terms) - 1) + [1], "int32"
    )
    return ops.where(blame, blamed, bad), 1 - ops.cast(blame, "int32")


def _halve_scale(optimizer, condition):
    counter, scale = optimizer.step_counter, optimizer.dynamic_scale
    zero = ops.zeros_like(counter.value)
    counter.assign(ops.where(condition, zero, counter.value))
    scale.assign(ops.where(condition, scale.value * 0.5, scale.value))
