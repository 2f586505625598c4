"""Augmentation whose random numbers follow from the batch alone.

A Keras layer draws from a `SeedGenerator`, a variable that every call moves
on. On an engine's threads its value would depend on timing, and after a resume
it would start anew. So the layer is called in a `keras.StatelessScope`, with
the generators' state replaced by numbers made of the seed and the position
of the batch's first example. The layer's own state is never touched.
"""

import warnings

# From TensorFlow's registry: ops that draw from a state of their own.
_STATEFUL = {
    "Multinomial",
    "ParameterizedTruncatedNormal",
    "RandomGamma",
    "RandomPoissonV2",
    "RandomShuffle",
    "RandomStandardNormal",
    "RandomUniform",
    "RandomUniformInt",
    "RngReadAndSkip",
    "StatefulStandardNormalV2",
    "StatefulUniform",
    "StatefulUniformInt",
    "TruncatedNormal",
    "EagerPyFunc",
    "PyFunc",
}
# Keras' global generator draws numbers below this (SeedGenerator.next).
GLOBAL_RANGE = 933199


def make_augmentation(options, shape):
    """Returns a function of (images, seeds) for use inside `Dataset.map`.

    Args:
        options: The pipeline's `Options`, with `augment`.
        shape: Height, width and channels of one image before augmentation.

    Returns:
        A function that takes float32 images with values 0 to 255 and two
        int64 seeds, and returns float32 images within 0 to 255; and whether
        its result follows from the arguments alone.

    Raises:
        ValueError: If the result is no batch of images with the same
            channels, or if an endless dataset is asked for while the layer
            draws from a state that cannot be replayed.
    """
    import tensorflow as tf

    if options.augment == "random_resized_crop":
        apply = random_resized_crop(options.image_size)
    else:
        apply = _from_layer(options.augment, shape)

    def augment(images, seeds):
        images = tf.cast(apply(images, seeds), tf.float32)
        return tf.clip_by_value(images, 0.0, 255.0)

    with tf.device("CPU:0"):
        traced = tf.function(augment, autograph=False).get_concrete_function(
            tf.TensorSpec((None, *shape), tf.float32),
            tf.TensorSpec((2,), tf.int64),
        )
    _check_result(traced, shape, options.augment)
    return augment, _follows_from_arguments(traced, options)


def _from_layer(layer, shape):
    import keras
    import tensorflow as tf
    from keras.src.random.seed_generator import global_seed_generator

    is_layer = prepare_layer(layer, shape)
    if is_layer:
        _add_generators_of_tensorflow(layer)

    def apply(images, seeds):
        scope = keras.StatelessScope(initialize_variables=False)
        for number, variable in enumerate(generator_states(layer)):
            state = seeds + tf.constant([number * 7919, 0], tf.int64)
            scope.state_mapping[id(variable)] = _as(state, variable)
        state = global_seed_generator().state
        small = tf.math.floormod(seeds, GLOBAL_RANGE)
        scope.state_mapping[id(state)] = _as(small, state)
        with scope:
            return layer(images, training=True) if is_layer else layer(images)

    return apply


def _as(seeds, variable):
    import tensorflow as tf

    # Seeds are 32 bits wide; int32 states take the lower 31.
    if variable.dtype == "int32":
        seeds = tf.math.floormod(seeds, 2**31 - 1)
    return tf.cast(seeds, variable.dtype)


def prepare_layer(layer, shape) -> bool:
    """Builds an augmentation that is a layer; says whether it is one.

    Args:
        layer: A Keras layer or a function.
        shape: Height, width and channels of an image.
    """
    import keras

    if not isinstance(layer, keras.Layer):
        return False
    if not layer.built:
        layer(keras.Input(shape))
    if layer.compute_dtype != "float32":
        warnings.warn(
            f"The augmentation layer {layer.name!r} computes in "
            f"{layer.compute_dtype}, which rounds the images. Create it "
            "with dtype='float32'.",
            stacklevel=2,
        )
    return True


def _add_generators_of_tensorflow(layer):
    """With another backend, Keras makes a second generator for tf.data."""
    import keras

    for part in layer._flatten_layers():
        if hasattr(part, "_get_seed_generator") and hasattr(part, "generator"):
            with_backend = getattr(part, "backend", None)
            if with_backend and keras.backend.backend() != "tensorflow":
                with_backend.set_backend("tensorflow")
                try:
                    part._get_seed_generator("tensorflow")
                finally:
                    with_backend.reset()


def generator_states(layer) -> list:
    """Returns the state variables of all seed generators in a layer."""
    import keras

    if not isinstance(layer, keras.Layer):
        return []
    states = [
        v for v in layer.variables if v.path.endswith("seed_generator_state")
    ]
    for part in layer._flatten_layers():
        copies = getattr(part, "_backend_generators", {})
        states += [generator.state for generator in copies.values()]
    return states


def _check_result(traced, shape, augment):
    result = traced.structured_outputs.shape
    if result.rank != 4 or result[3] != shape[2] or None in result[1:]:
        raise wrong_result(result, shape, augment)


def wrong_result(received, shape, augment) -> ValueError:
    """The error of an augmentation that does not give images."""
    return ValueError(
        "`augment` must return images of one size with "
        f"{shape[2]} channel(s). Received: shape={tuple(received)} from "
        f"{augment!r}"
    )


def _follows_from_arguments(traced, options):
    graph = traced.graph.as_graph_def()
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    stateful = sorted({node.op for node in nodes} & _STATEFUL)
    if not stateful:
        return True
    reason = (
        f"The augmentation {options.augment!r} draws random numbers with "
        f"{', '.join(stateful)}, whose state is hidden, so that its batches "
        "cannot be made again. Use `keras.random` with a "
        "`keras.random.SeedGenerator`, as Keras' own layers do."
    )
    if options.repeat:
        raise ValueError(f"{reason} Received: repeat=True")
    warnings.warn(reason, stacklevel=2)
    return False


def random_resized_crop(size):
    """Returns KerasCV's `RandomCropAndResize` as a function of (images, seeds).

    The layer decides where each image is cut (80 to 100 % of the area, aspect
    ratio 3/4 to 4/3; pass the layer itself for others). Its random numbers
    are replaced by stateless ones, and all images of the batch are cut in one
    operation instead of one by one.

    Args:
        size: Height and width of the result.

    Raises:
        ImportError: If `keras-cv` is not installed.
    """
    import tensorflow as tf

    try:
        from keras_cv.core import FactorSampler
        from keras_cv.layers import RandomCropAndResize
    except ImportError:
        raise ImportError(
            "`augment='random_resized_crop'` needs keras-cv: "
            "`pip install keras_vq[cv]`."
        ) from None

    class Drawn(FactorSampler):
        """Takes the next prepared numbers instead of drawing."""

        def __init__(self, lower=0.0, upper=1.0, numbers=None):
            self.lower, self.upper = lower, upper
            self.numbers = numbers

        def __call__(self, shape=(), dtype="float32"):
            return self.uniform(shape, self.lower, self.upper)

        def uniform(self, shape, minval, maxval, dtype=None):
            return minval + (maxval - minval) * self.numbers.pop(0)

    numbers = []
    layer = RandomCropAndResize(
        size,
        crop_area_factor=Drawn(0.8, 1.0, numbers),
        aspect_ratio_factor=Drawn(3 / 4, 4 / 3, numbers),
        dtype="float32",
    )
    layer._random_generator = Drawn(numbers=numbers)

    def apply(images, seeds):
        count = tf.shape(images)[0]
        drawn = tf.random.stateless_uniform((4, count), seeds)
        numbers[:] = tf.unstack(drawn, axis=0)
        boxes = layer.get_random_transformation()
        return tf.image.crop_and_resize(
            images,
            tf.stack(boxes[0], axis=1),
            tf.range(count),
            size,
            method=layer.interpolation,
        )

    return apply
