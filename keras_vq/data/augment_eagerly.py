"""Augmentation outside of TensorFlow, made of the batch's numbers alone."""

import warnings

import numpy as np

from keras_vq.data.augment import (
    GLOBAL_RANGE,
    generator_states,
    prepare_layer,
    wrong_result,
)
from keras_vq.data.engine import needs_tensorflow


def make_augmentation(options, shape):
    """Returns a function of NumPy images and seeds.

    Args:
        options: The pipeline's `Options`, with `augment`.
        shape: Height, width and channels of one image before augmentation.

    Returns:
        A function that takes float32 images with values 0 to 255 and two
        int64 seeds, and returns float32 images within 0 to 255; whether its
        result follows from the arguments alone; and the shape of one image
        after augmentation.

    Raises:
        ImportError: If it can only be done by TensorFlow, which is missing.
        ValueError: If the result is no batch of images with the same
            channels, or if an endless dataset is asked for while the layer
            draws from a state that cannot be replayed.
    """
    if options.augment == "random_resized_crop":
        after = (*options.image_size, shape[2])
        return _by_tensorflow(options, shape), True, after
    apply = _from_layer(options.augment, shape)

    def augment(images, seeds):
        return np.clip(apply(images, seeds), 0, 255).astype(np.float32)

    return augment, *_try_out(augment, options, shape)


def _by_tensorflow(options, shape):
    needs_tensorflow("`augment='random_resized_crop'` is KerasCV's layer, and")
    import tensorflow as tf

    from keras_vq.data.augment import make_augmentation

    function, _ = make_augmentation(options, shape)
    function = tf.function(function, autograph=False)

    def augment(images, seeds):
        with tf.device("CPU:0"):
            images = tf.convert_to_tensor(images)
            return function(images, tf.convert_to_tensor(seeds)).numpy()

    return augment


def _from_layer(layer, shape):
    import keras
    from keras.src.random.seed_generator import global_seed_generator

    is_layer = prepare_layer(layer, shape)
    states = generator_states(layer) if is_layer else []

    def apply(images, seeds):
        scope = keras.StatelessScope(initialize_variables=False)
        for number, variable in enumerate(states):
            state = seeds + np.array([number * 7919, 0])
            scope.state_mapping[id(variable)] = _as(state, variable)
        # Each of grain's threads has a global generator of its own.
        state = global_seed_generator().state
        scope.state_mapping[id(state)] = _as(seeds % GLOBAL_RANGE, state)
        images = keras.ops.convert_to_tensor(images)
        with scope:
            result = layer(images, training=True) if is_layer else layer(images)
        return keras.ops.convert_to_numpy(result)

    return apply


def _as(seeds, variable):
    import keras

    # Seeds are 32 bits wide; int32 states take the lower 31.
    limit = 2**31 - 1 if variable.dtype == "int32" else 2**32
    return keras.ops.convert_to_tensor(
        (seeds % limit).astype(variable.dtype), variable.dtype
    )


def _try_out(augment, options, shape):
    """Whether the result follows from the arguments, and its shape.

    Here no graph tells what a function draws from.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    images = generator.integers(0, 256, (8, *shape)).astype(np.float32)
    seeds = np.array([1, 2], np.int64)
    first, second = (augment(images.copy(), seeds) for _ in range(2))
    if first.ndim != 4 or first.shape[::3] != (8, shape[2]):
        raise wrong_result(first.shape, shape, options.augment)
    if np.array_equal(first, second):
        return True, first.shape[1:]
    reason = (
        f"The augmentation {options.augment!r} draws random numbers from a "
        "hidden state: the same batch comes out different the second time, "
        "and cannot be made again. Use `keras.random` with a "
        "`keras.random.SeedGenerator`, as Keras' own layers do."
    )
    if options.repeat:
        raise ValueError(f"{reason} Received: repeat=True")
    warnings.warn(reason, stacklevel=2)
    return False, first.shape[1:]
