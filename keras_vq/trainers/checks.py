"""What `compile` and `fit` refuse, with a sentence that says why."""

import numbers
import warnings

import keras
import numpy as np

# Arguments of optimizers that Keras accepts and gets wrong, or fails with,
# under a tf.distribute strategy, and what to use instead.
# Enlarging with bicubic filters goes a little beyond 1.
_LARGEST = 1.5

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
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral):
        raise ValueError(
            "`steps_per_execution` must be a positive integer; Keras 3 has no "
            f'"auto". Received: steps_per_execution={steps!r}'
        )
    if steps > 1 and strategy is not None:
        raise ValueError(
            "Keras cannot run several steps in one execution under a "
            "tf.distribute strategy. Leave `steps_per_execution` at 1. "
            f"Received: steps_per_execution={steps}"
        )


def check_distribution():
    """Refuses what of Keras' own distribution was not made to work."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    if keras.backend.backend() == "jax":
        if not isinstance(distribution, keras.distribution.DataParallel):
            raise ValueError(
                "keras_vq models train under `keras.distribution."
                "DataParallel`, and under no other distribution of Keras. "
                f"Received: {type(distribution).__name__}"
            )
    elif keras.backend.backend() == "tensorflow":
        raise ValueError(
            "`keras.distribution` has no effect on the TensorFlow backend: "
            "training would run on one device only. Build and compile the "
            "model in the scope of a `tf.distribute.MirroredStrategy` instead."
        )


def check_weights(method: str, *data, **weights):
    """Refuses weights of examples, which no loss here takes.

    Args:
        method: Name of the method that was called, for the message.
        *data: What it takes images from, as far as it can be looked at
            without reading it; `check_batch` looks at the rest.
        **weights: Arguments that would weight examples, by name.

    Raises:
        ValueError: If there are any.
    """
    for name, value in weights.items():
        if value is not None:
            raise ValueError(
                f"`{name}` is not taken by `{method}`: every image counts "
                f"alike. Received: {name}={type(value).__name__}"
            )
    for source in data:
        check_batch(getattr(source, "element_spec", source))


def check_batch(batch):
    """Refuses a batch, or what describes one, with weights of examples."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 3:
        return
    weights = batch[2]
    # A data set has a mark of its own for None.
    if weights is None or type(weights).__name__ == "NoneTensorSpec":
        return
    raise ValueError(
        "The third element of a batch weights its images, which is not taken: "
        "every image counts alike. Give images, or (images, anything). "
        f"Received: a batch of {len(batch)} elements"
    )


def check_adapted(model):
    """Refuses a step with a codebook of random numbers."""
    if not model._is_ready():
        raise ValueError(
            "The codebook, or the discriminator, has no start values yet, and "
            "one step after another on random ones would not give it any. "
            "Call `model.adapt(images)` once before `train_on_batch`. (`fit` "
            "does it by itself.)"
        )


def warn_unless_adapted(model, method: str):
    """Warns once if a model is used with a codebook of random numbers."""
    if model._codebook_looked_at:
        return
    try:
        adapted = model._is_adapted()
    except Exception:  # Only eager values can be looked at.
        return
    model._codebook_looked_at = True
    if not adapted:
        warnings.warn(
            f"`{method}` runs on a codebook of random numbers: this model was "
            "neither trained nor loaded with weights. Call `fit`, or "
            "`model.adapt(images)`, first.",
            stacklevel=5,
        )


def is_dataset(x) -> bool:
    """Whether `x` is a `tf.data.Dataset`, without importing TensorFlow."""
    return hasattr(x, "element_spec") and hasattr(x, "take")


def first_batch(x, batch_size: int | None = None):
    """First batch of what `fit` takes, or None if it cannot be looked at.

    Raises:
        ValueError: If it can, and there is none.
    """
    if isinstance(x, keras.utils.PyDataset):
        # Without a number, there is no end.
        if x.num_batches is None or x.num_batches:
            return _images_of(x[0])
        raise _empty(x)
    if is_dataset(x):
        for batch in x.take(1):
            return _images_of(batch)
        raise _empty(x)
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return x[: batch_size or 32]
    if _can_be_read_again(x):
        for batch in x:
            return _images_of(batch)
        raise _empty(x)
    return None


def _can_be_read_again(x) -> bool:
    """Whether `x` is a loader, such as grain's, and not its iterator."""
    if not hasattr(x, "__iter__") or isinstance(x, (list, tuple, dict, str)):
        return False
    if hasattr(x, "element_spec"):
        return False  # Distributed by tf.distribute: it has no plain batches.
    return iter(x) is not x


def _empty(x):
    return ValueError(
        "The data set is empty: expected one batch of images or more. Do its "
        "files match, is a batch with `drop_remainder` larger than the data? "
        f"Received: {type(x).__name__} without batches"
    )


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
    """Warns if images are not in [-1, 1], which trains, but badly."""
    images = keras.ops.convert_to_numpy(images)
    if not images.size:
        return
    low, high = np.min(images), np.max(images)
    if max(-low, high) > _LARGEST:
        found = "The first batch has values outside of [-1, 1]."
    elif low >= 0:
        found = (
            "No value of the first batch is negative: are these images in "
            "[0, 1]?"
        )
    else:
        return
    warnings.warn(
        f"{found} keras_vq models take images in [-1, 1], which "
        "`model.preprocess(uint8_images)` and `keras_vq.data` give. "
        f"Received: values from {low:.3g} to {high:.3g}",
        stacklevel=3,
    )
