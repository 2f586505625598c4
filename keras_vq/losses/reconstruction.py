"""Reconstruction losses: one float32 value per image, whatever the loss."""

import keras
from keras import ops

_INTEGERS_REFUSED = (
    "Expected floating point images in [-1, 1]. Received: {name} of dtype "
    "{dtype}. Convert them first, e.g. with `model.preprocess(images)`."
)


class ReconstructionLoss(keras.layers.Layer):
    """Base of the losses that compare images with their reconstruction.

    Calling one gives a value per image: the mean over all other axes, float32
    whatever the dtype policy. Nothing is reduced over the batch, so that the
    trainer can weigh every image by one over the *global* batch size.

    The losses are layers, because some of them own a weight (a learned scale):
    a model that holds one as an attribute trains, saves and loads that weight
    with its own. Subclasses define `elements(images, reconstruction)`, which
    gives the loss of every value (or of every position).

    Call arguments:
        images: Floats of shape (B, ...), usually (B, H, W, C) in [-1, 1].
        reconstruction: Floats of the same shape.
    """

    def __init__(self, name=None, **kwargs):
        kwargs.pop("dtype", None)
        super().__init__(name=name, dtype="float32", **kwargs)
        # Weights are made in `__init__`: a loss has no input shape to wait
        # for, and optimizers are built before the first batch.
        self.built = True

    def call(self, images, reconstruction):
        images, reconstruction = checked_pair(images, reconstruction)
        return mean_per_example(self.elements(images, reconstruction), images)

    def elements(self, images, reconstruction):
        """Returns the loss of every value, of shape (B, ...)."""
        raise NotImplementedError

    def compute_output_shape(self, images_shape, reconstruction_shape=None):
        return (images_shape[0],)

    def get_config(self):
        config = super().get_config()
        config.pop("dtype")  # always float32
        return config


@keras.saving.register_keras_serializable(package="keras_vq")
class SquaredError(ReconstructionLoss):
    """Mean squared error per image, `"mse"`.

    The mean runs over height, width and channels, so that weights of the
    codebook terms keep their meaning at any resolution.

    Args:
        name: str. Name of the loss.

    Example:
    >>> keras_vq.losses.SquaredError()(images, reconstruction).shape
    (8,)
    """

    def elements(self, images, reconstruction):
        return ops.square(images - reconstruction)


@keras.saving.register_keras_serializable(package="keras_vq")
class AbsoluteError(ReconstructionLoss):
    """Mean absolute error per image, `"l1"`.

    Args:
        name: str. Name of the loss.

    Example:
    >>> keras_vq.losses.AbsoluteError()(images, reconstruction).shape
    (8,)
    """

    def elements(self, images, reconstruction):
        return ops.abs(images - reconstruction)


@keras.saving.register_keras_serializable(package="keras_vq")
class CallableLoss(ReconstructionLoss):
    """Any function of images and reconstruction as a reconstruction loss.

    Args:
        function: Callable or keras.losses.Loss. What it returns may have the
            shape (B,), or (B, ...) with axes that are averaged. A scalar is
            accepted too and stands for every image of the batch, but then
            images cannot be weighted one by one. Of a `keras.losses.Loss` the
            method `call` is used, because calling the object itself reduces
            over the batch and divides by the number of replicas.
        name: str. Name of the loss.

    Example:
    >>> loss = keras_vq.losses.CallableLoss(keras.losses.Huber(delta=0.1))
    >>> loss(images, reconstruction).shape
    (8,)
    """

    def __init__(self, function, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.function = function

    def elements(self, images, reconstruction):
        if isinstance(self.function, keras.losses.Loss):
            return self.function.call(images, reconstruction)
        return self.function(images, reconstruction)

    def get_config(self):
        config = super().get_config()
        config["function"] = keras.saving.serialize_keras_object(self.function)
        # `keras.losses.Huber(delta=...)` and others leave the arguments out of
        # their configuration and would come back with the defaults.
        arguments = getattr(self.function, "_fn_kwargs", None)
        if arguments:
            config["arguments"] = arguments
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        arguments = config.pop("arguments", None)
        function = config["function"]
        if isinstance(function, dict):
            function = keras.saving.deserialize_keras_object(function)
        if arguments:
            function._fn_kwargs = arguments
        return cls(**{**config, "function": function})


def mean_per_example(values, images):
    """Averages loss values over all axes but the first.

    Args:
        values: Tensor of shape (), (B,) or (B, ...).
        images: Tensor of shape (B, ...), which gives the batch size.

    Returns:
        float32 tensor of shape (B,).

    Raises:
        ValueError: If the first axis of `values` is not the batch.
    """
    values = ops.cast(ops.convert_to_tensor(values), "float32")
    if len(values.shape) == 0:
        return ops.broadcast_to(values, (ops.shape(images)[0],))
    have, want = values.shape[0], images.shape[0]
    if None not in (have, want) and have != want:
        raise ValueError(
            "A reconstruction loss must return a scalar or values whose first "
            f"axis is the batch of {want} images. Received: "
            f"shape={tuple(values.shape)}"
        )
    if len(values.shape) == 1:
        return values
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def checked_pair(images, reconstruction):
    """Returns both as float32, or says what is wrong with them."""
    pair = []
    for name, value in (
        ("images", images),
        ("reconstruction", reconstruction),
    ):
        value = ops.convert_to_tensor(value)
        dtype = keras.backend.standardize_dtype(value.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise ValueError(_INTEGERS_REFUSED.format(name=name, dtype=dtype))
        pair.append(ops.cast(value, "float32"))
    shapes = [tuple(value.shape) for value in pair]
    same = len(shapes[0]) == len(shapes[1]) and all(
        a == b or a is None or b is None for a, b in zip(*shapes, strict=True)
    )
    if not same:
        raise ValueError(
            "Expected images and reconstruction of the same shape. Received: "
            f"images.shape={shapes[0]}, reconstruction.shape={shapes[1]}"
        )
    return pair
