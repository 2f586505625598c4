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
        signature: Under TensorFlow, the `tf.TensorSpec` of its one argument,
            or a structure of them. None: a graph for every size.

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
    that knows no size, for all others. On JAX there is one for each size.
    """
    if _as_it_is(model, inputs):
        return function(inputs)
    if keras.backend.backend() == "jax":
        kept = _functions(model).by_name
        if name not in kept:
            kept[name] = _compile_on_jax(model, function)
        return kept[name](inputs)
    import tensorflow as tf

    def of_any_size(x):
        last = x.shape[-1] if x.dtype.is_floating else None  # Channels.
        return (*[None] * (len(x.shape) - 2), last)

    tensors = keras.tree.flatten(inputs)
    shapes = tuple(tuple(x.shape[1:]) for x in tensors)
    if not is_first(model, name, shapes):
        shapes = tuple(of_any_size(x) for x in tensors)
    dtypes = tuple(x.dtype for x in tensors)
    signature = keras.tree.pack_sequence_as(
        inputs,
        [
            tf.TensorSpec((None, *shape), dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ],
    )
    key = (name, shapes, dtypes)
    return compiled(model, key, function, signature)(inputs)


def is_first(model, name: str, shape: tuple) -> bool:
    """Whether inputs of this shape, and no other, came first."""
    return _functions(model).first_shapes.setdefault(name, shape) == shape


def tile_signature(arguments, fixed: bool):
    """Signature of the functions of tiles, under TensorFlow.

    Args:
        arguments: See `_of_tiles` in `keras_vq.models.tiling`.
        fixed: Whether tiles have the size that these have, and no other.
    """
    import tensorflow as tf

    axes = len(arguments["sizes"])

    def part(x):
        sides = x.shape[1 : 1 + axes] if fixed else [None] * axes
        return tf.TensorSpec((None, *sides, *x.shape[1 + axes :]), x.dtype)

    def known(name, x):
        # Positions to attend to are those of the image, not of the tile.
        count = None if name in ("key", "value") else x.shape[1]
        return tf.TensorSpec((x.shape[0], count, *x.shape[2:]), x.dtype)

    return {
        "parts": keras.tree.map_structure(part, arguments["parts"]),
        "cores": tf.TensorSpec((None, axes, 2), "int32"),
        "sizes": tf.TensorSpec((axes,), "int32"),
        "known": [
            {name: known(name, x) for name, x in state.items()}
            for state in arguments["known"]
        ],
    }


def _functions(model) -> _Functions:
    if model._compiled_functions is None:
        model._compiled_functions = _Functions()
    return model._compiled_functions


def _as_it_is(model, inputs) -> bool:
    tensors = keras.tree.flatten(inputs)
    if any(map(keras.backend.is_keras_tensor, tensors)):
        return True
    if model.run_eagerly or current_tiles():
        return True
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if backend == "jax":
        import jax

        return any(isinstance(x, jax.core.Tracer) for x in tensors)
    return True


def _compile_on_jax(model, function):
    """A function of the weights as they are at each call."""
    import jax

    variables = model.variables

    @jax.jit
    def of_values(values, inputs):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs):
            return function(inputs)

    return lambda inputs: of_values([v.value for v in variables], inputs)


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
