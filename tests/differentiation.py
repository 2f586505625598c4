"""Gradients of the tests' own, on the backend that runs."""

import keras
import numpy as np


def gradients(function, inputs, variables) -> list:
    """Gradients of a scalar, as arrays.

    Args:
        function: Function of a tensor like `inputs`, which gives a scalar.
        inputs: Array.
        variables: List of `keras.Variable`.

    Returns:
        List of the gradients at the inputs and at each variable, or None.
    """
    if keras.backend.backend() == "jax":
        return _on_jax(function, inputs, variables)
    import tensorflow as tf

    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(inputs)
    return [
        None if gradient is None else np.asarray(tf.convert_to_tensor(gradient))
        for gradient in tape.gradient(value, [inputs, *variables])
    ]


def _on_jax(function, inputs, variables):
    import jax

    def of_values(inputs, values):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs):
            return function(inputs)

    values = [variable.value for variable in variables]
    differentiate = jax.grad(of_values, argnums=(0, 1))
    at_inputs, at_variables = differentiate(jax.numpy.asarray(inputs), values)
    return [np.asarray(gradient) for gradient in (at_inputs, *at_variables)]
