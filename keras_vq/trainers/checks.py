"""What `compile` and `fit` refuse, with a sentence that says why."""

import warnings

import keras
import numpy as np

# Arguments of optimizers that Keras accepts and gets wrong, or fails with,
# under a tf.distribute strategy, and what to use instead.
_REFUSED_UNDER_A_STRATEGY = {
    "gradient_accumulation_steps": "compile(accumulation_steps=...)",
    "ema_overwrite_frequency": "compile(weight_ema=...)",
    "clipnorm": "compile(clipnorm=...)",
    "global_clipnorm": "compile(clipnorm=...)",
    "clipvalue": "compile(clipnorm=...)",
}


def check_optimizer(optimizer, strategy):
    """Refuses options that go wrong under a strategy of several replicas."""
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for name, instead in _REFUSED_UNDER_A_STRATEGY.items():
        value = getattr(optimizer, name, None)
        if value is not None:
            raise ValueError(
                f"The optimizer's `{name}` works on each replica by itself "
                "(or fails) under a tf.distribute strategy. Use "
                f"`{instead}` instead. Received: {name}={value}"
            )


def check_steps_per_execution(steps, strategy):
    """Refuses several steps an execution under a strategy: Keras fails."""
    if steps > 1 and strategy is not None:
        raise ValueError(
            "Keras cannot run several steps in one execution under a "
            "tf.distribute strategy. Leave `steps_per_execution` at 1. "
            f"Received: steps_per_execution={steps}"
        )


def check_distribution():
    """Refuses Keras' own distribution on TensorFlow, which does nothing."""
    if keras.backend.backend() != "tensorflow":
        return
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "`keras.distribution` has no effect on the TensorFlow backend: "
            "training would run on one device only. Build and compile the "
            "model in the scope of a `tf.distribute.MirroredStrategy` instead."
        )


def check_weights(arguments: dict):
    """Refuses weights of examples, which no loss here takes."""
    for name in ("sample_weight", "class_weight"):
        if arguments.get(name) is not None:
            raise ValueError(
                f"`{name}` is not taken by `fit`: every image counts alike. "
                f"Received: {name}={type(arguments[name]).__name__}"
            )


def is_dataset(x) -> bool:
    """Whether `x` is a `tf.data.Dataset`, without importing TensorFlow."""
    return hasattr(x, "element_spec") and hasattr(x, "take")


def first_batch(x, batch_size: int | None = None):
    """First batch of what `fit` takes, or None if it cannot be looked at."""
    if isinstance(x, keras.utils.PyDataset):
        return _images_of(x[0]) if len(x) else None
    if is_dataset(x):
        for batch in x.take(1):
            return _images_of(batch)
        return None
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return x[: batch_size or 32]
    return None


def _images_of(batch):
    return batch[0] if isinstance(batch, (tuple, list)) else batch


def check_finite(images, first: int = 0):
    """Refuses images of which a codebook would become NaN.

    Args:
        images: Batch of images.
        first: Number of its first image, for the message.
    """
    images = keras.ops.convert_to_numpy(images)
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            "The codebook can start from finite images only, and image "
            f"{first + int(np.argmin(finite))} of the data (from 0) is not "
            f"finite, nor are {(~finite).sum() - 1} others of its batch. Leave "
            "them out, or mend what makes them."
        )


def warn_about_range(images):
    """Warns if images look like [0, 1], which trains, but badly."""
    images = keras.ops.convert_to_numpy(images)
    if images.size and np.min(images) >= 0:
        warnings.warn(
            "No value of the first batch is negative: are these images in "
            "[0, 1]? keras_vq models take images in [-1, 1], which "
            "`model.preprocess(uint8_images)` and `keras_vq.data` give. "
            f"Received: values from {np.min(images):.3g} to "
            f"{np.max(images):.3g}",
            stacklevel=3,
        )
