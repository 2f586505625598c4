"""How one training step is taken on JAX.

The model says what its losses are; this module says how a step is taken with
them, as `tensorflow` does for that backend. Keras compiles the step as one
function, of the values of all variables and a batch to new values and the logs:

    micro-batches -> losses x share of the batch -> gradients and statistics,
    summed -> clipped -> optimizers, codebook and weight average, once -> the
    gate, which takes the new values or leaves the old ones.

With `keras.distribution.DataParallel` the batch is one array over all devices
and every sum is one over all of it: nothing here has to know.

What a discriminator changes is in `jax_adversarial`.
"""

import jax
import keras
from keras import ops

from keras_vq.layers.quantizers.slots import statistics_slot
from keras_vq.trainers import batches, gate, jax_adversarial
from keras_vq.trainers.clipping import clip
from keras_vq.trainers.devices import spread
from keras_vq.trainers.jax_values import Values
from keras_vq.trainers.phases import Phase


def train_step(model, state, data):
    """Takes one training step; returns the logs and the new state."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    groups = [
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    ]
    values = Values.of_state(groups, state)
    _, start = values.run(lambda: model.steps.assign_add(1))

    terms, output, gradients, statistics, values = _of_batch(
        model, start, images
    )
    bad = _non_finite(
        model, images, terms, gradients, statistics, (start, values)
    )
    taken = _updated(model, values, gradients, statistics)
    _, taken = taken.run(lambda: model.update_metrics(images, terms, output))
    # To go on with other random numbers does no harm.
    seeds = _random_states(model)
    left = start.having(seeds, values.of(seeds))
    _, left = left.run(lambda: gate.record_skip(model, bad))
    values = taken.where(ops.sum(bad) == 0, left)
    logs, _ = values.run(model.get_metrics_result)
    return logs, tuple(values.of(group) for group in groups)


def test_step(model, state, data):
    """Evaluates one batch; returns the logs and the new state."""
    images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    images = spread(images)
    groups = [
        model.trainable_variables,
        model.non_trainable_variables,
        model.metrics_variables,
    ]

    def evaluate():
        result = model.generator_losses(images, training=False)
        losses = result["losses"]
        terms = {**losses, "loss": model.total_loss(losses)}
        model.update_metrics(images, terms, result)
        return model.evaluation_logs(model.get_metrics_result())

    logs, values = Values.of_state(groups, state).run(evaluate)
    return logs, tuple(values.of(group) for group in groups)


def _of_batch(model, values, images):
    """What all micro-batches give together.

    Returns:
        The loss terms, as means; the reconstruction and the indices of the
        batch; sums of gradients and of statistics; and the values after the
        forward passes.
    """
    count = model.accumulation_steps
    if count > 1 and images.shape[0] % count == 0:
        return _in_a_loop(model, values, images)
    parts, total = batches.split(images, count), None
    parts = [(i, part) for i, part in enumerate(parts) if part.shape[0]]
    outputs = []
    for index, part in parts:
        share = batches.share_of(part, images)
        output, sums, values = _of_part(model, values, part, index, share)
        total = batches.add(total, sums)
        outputs.append(output)
    terms, gradients, statistics = total
    return terms, batches.whole(outputs), gradients, statistics, values


def _in_a_loop(model, values, images):
    """`_of_batch` of equal parts, one after the other.

    Written out, the parts would not depend on each other, and XLA would keep
    the activations of all of them at once.
    """
    count = model.accumulation_steps
    parts = ops.reshape(images, (count, -1, *images.shape[1:]))

    def take(changes, index, part):
        output, sums, after = _of_part(
            model, values.after(changes), part, index, 1 / count
        )
        return values.changes(after), sums, output

    def body(carry, part):
        changes, total = carry
        changes, sums, output = take(changes, *part)
        return (changes, batches.add(total, sums)), output

    # The loop must know beforehand what a part changes, and how large it is.
    changed, sums, _ = jax.eval_shape(lambda: take({}, 0, parts[0]))
    zeros = jax.tree.map(lambda x: ops.zeros(x.shape, x.dtype), sums)
    (changes, total), outputs = jax.lax.scan(
        body,
        (values.named(changed), zeros),
        (ops.arange(count, dtype="int32"), parts),
    )
    output = jax.tree.map(lambda x: ops.reshape(x, (-1, *x.shape[2:])), outputs)
    terms, gradients, statistics = total
    return terms, output, gradients, statistics, values.after(changes)


def _of_part(model, values, part, index, share):
    """Output, sums (of terms, gradients, statistics) and values of a part."""
    with statistics_slot(index, model.accumulation_steps):
        result, gradients, values = _gradients(
            model, values, spread(part), share
        )
    terms = {name: term * share for name, term in result["losses"].items()}
    output = {name: result[name] for name in ("reconstruction", "indices")}
    return output, (terms, gradients, result["statistics"]), values


def _gradients(model, values, images, share):
    """What the model says of one part, and gradients times its share.

    The gradients are lists by name, one for each of `model.optimizer_groups`
    that a step of the present phase concerns. Batch statistics are those after
    the forward pass.
    """
    take = _autoencoder_gradients
    if model.phase is Phase.DISCRIMINATOR:
        take = jax_adversarial.discriminator_gradients
    elif model.phase is Phase.BOTH:
        take = jax_adversarial.gradients
    return take(model, values, images, share)


def _autoencoder_gradients(model, values, images, share):
    optimizer, variables = model.optimizer_groups["gradients"]

    def scaled_loss(trained):
        def run():
            result = model.generator_losses(images, training=True)
            loss = model.total_loss(result["losses"])
            result["losses"]["loss"] = loss
            return optimizer.scale_loss(loss * share), result

        (scaled, result), after = values.having(variables, trained).run(run)
        return scaled, (result, values.changes(after, but=variables))

    differentiate = jax.grad(scaled_loss, has_aux=True)
    found, (result, changes) = differentiate(values.of(variables))
    result["statistics"] = {"quantizer": result["statistics"]}
    return result, {"gradients": found}, values.after(changes)


def _non_finite(model, images, terms, gradients, statistics, values):
    """Which of `model.gate_terms` are not finite: int32 zeros and ones."""
    before, after = values
    forward = gate.batch_statistics(model)
    change = gate.change_of(forward, before.of(forward), after.of(forward))
    sums, _ = before.run(
        lambda: gate.sums_by_term(model, images, terms, statistics, change)
    )
    for name, group in gradients.items():
        # The squares, which optimizers keep: where one of them overflows, its
        # slots would never recover.
        sums[name] = gate.total([ops.sum(ops.square(g)) for g in group])
    return gate.as_record(gate.not_finite(model, sums))


def _updated(model, values, gradients, statistics):
    """The values after the optimizers and all that follows them."""
    gradients, _ = values.run(lambda: clip(model, gradients))
    for name, group in gradients.items():
        optimizer, variables = model.optimizer_groups[name]
        if variables:
            trained, slots = optimizer.stateless_apply(
                values.of(optimizer.variables), group, values.of(variables)
            )
            values = values.having(variables, trained)
            values = values.having(optimizer.variables, slots)
    _, values = values.run(lambda: gate.update_what_follows(model, statistics))
    return values


def _random_states(model) -> list:
    known = {id(v) for v in model.weights}
    if model.weight_average is not None:
        known |= {id(v) for v in model.weight_average.variables}
    return [v for v in model.non_trainable_variables if id(v) not in known]
