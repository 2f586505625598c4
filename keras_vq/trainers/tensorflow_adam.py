"""Adam on TensorFlow, in one operation a variable.

Keras writes Adam as some 25 operations for each variable. They pass over
gradient, weights and slots a dozen times, and tracing them is half of what a
large model's first step takes. TensorFlow has one kernel for it, for the same
formula.
"""

import contextlib
import functools

import keras
import tensorflow as tf


@contextlib.contextmanager
def in_one_operation(optimizer):
    """Within it, Keras' own Adam and AdamW apply gradients by one kernel.

    All else is as Keras does it: learning rate, weight decay, clipping,
    averages, loss scale. Other optimizers, subclasses of these and `amsgrad`
    are left alone.

    Args:
        optimizer: Keras optimizer.
    """
    adam = getattr(optimizer, "inner_optimizer", optimizer)
    kinds = (keras.optimizers.Adam, keras.optimizers.AdamW)
    if type(adam) not in kinds or adam.amsgrad:
        yield
        return
    step = tf.cast(adam.iterations + 1, "float32")
    decays = (adam.beta_1, adam.beta_2)
    powers = [tf.pow(tf.constant(beta, step.dtype), step) for beta in decays]
    adam.update_step = functools.partial(_update_step, adam, powers)
    try:
        yield
    finally:
        # The replicas of a strategy enter together, and share the optimizer.
        vars(adam).pop("update_step", None)


def _update_step(adam, powers, gradient, variable, learning_rate):
    """`Adam.update_step`, given the powers of both decays at this step."""
    if isinstance(gradient, tf.IndexedSlices):
        type(adam).update_step(adam, gradient, variable, learning_rate)
        return
    index = adam._get_variable_index(variable)
    kind = variable.dtype
    first_power, second_power = (tf.cast(power, kind) for power in powers)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=adam._momentums[index].value.handle,
        v=adam._velocities[index].value.handle,
        beta1_power=first_power,
        beta2_power=second_power,
        lr=tf.cast(learning_rate, kind),
        beta1=tf.constant(adam.beta_1, kind),
        beta2=tf.constant(adam.beta_2, kind),
        epsilon=tf.constant(adam.epsilon, kind),
        grad=tf.cast(gradient, kind),
    )
