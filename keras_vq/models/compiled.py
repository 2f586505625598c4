"""A model's functions, compiled at their first call."""

import functools

import keras

from keras_vq.layers.whole_image import current_tiles


class _Functions:
    """What Keras leaves alone: it would track a dict, and copy it."""

    def __init__(self):
        self.by_name = {}
        self.first_shapes = {}


def compiled(model, name, function, signature=None):
    """`function`, compiled once for the model and kept with it.

    Args:
        model: A `VQAutoencoder`. What is changed in its layers counts from
            the next `model.compile` on, as in `predict`; weights count at once.
        name: What the function is kept under.
        function: Callable of tensors.
        signature: Under TensorFlow, the `tf.TensorSpec` of its one argument.
            None: a graph for every size.

    Returns:
        Callable like `function`.
    """
    kept = _functions(model)
    if name not in kept.by_name:
        kept.by_name[name] = _compile(function, signature)
    return kept.by_name[name]


def run(model, name: str, function, inputs):
    """`function(inputs)`, compiled where that is faster and changes nothing.

    Eager operations keep all that they have computed until Python lets go of
    it, and fuse nothing: VQGAN's encoder takes 1.4 times as long with them.
    Inside of other functions, and in `run_eagerly`, it is called as it is.

    There are two graphs: one for images of the size that came first, and one
    that knows no size, for all others.
    """
    if _as_it_is(model, inputs):
        return function(inputs)
    import tensorflow as tf

    shape = tuple(inputs.shape[1:])
    first = _functions(model).first_shapes.setdefault(name, shape)
    if shape != first:
        last = shape[-1] if inputs.dtype.is_floating else None  # Channels.
        shape = (*[None] * (len(shape) - 1), last)
    signature = tf.TensorSpec((None, *shape), inputs.dtype)
    key = (name, shape, inputs.dtype)
    return compiled(model, key, function, signature)(inputs)


def _functions(model) -> _Functions:
    if model._compiled_functions is None:
        model._compiled_functions = _Functions()
    return model._compiled_functions


def _as_it_is(model, inputs) -> bool:
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return (
        keras.backend.is_keras_tensor(inputs)
        or not tf.executing_eagerly()
        or model.run_eagerly
        or bool(current_tiles())
    )


def _compile(function, signature):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # TensorFlow counts tracings by the code of a function, and warns; as
        # an object of its own, that of each model counts by itself.
        function = functools.partial(function)
        return tf.function(function, signature and [signature])
    if backend == "torch":
        import torch

        return torch.no_grad()(function)
    return function
