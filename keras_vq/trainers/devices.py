"""Several devices on JAX, with `keras.distribution.DataParallel`.

A batch is one array over all devices there, and so is every sum over it. What
is left to do is to keep each micro-batch on all devices, and batches of any
size out of the way of Keras, which can only divide them evenly.
"""

import contextlib

import keras

_HOW_TO = (
    "Call `keras.distribution.set_distribution(keras.distribution."
    "DataParallel())` before the model, its encoder and decoder, and the "
    "optimizer are made, and leave it set."
)


def data_parallel():
    """The `keras.distribution.DataParallel` that is set on JAX, or None."""
    if keras.backend.backend() != "jax":
        return None
    found = keras.distribution.distribution()
    is_one = isinstance(found, keras.distribution.DataParallel)
    return found if is_one else None


def number_of_devices() -> int:
    """Devices that share a batch by `keras.distribution`."""
    distribution = data_parallel()
    return 1 if distribution is None else distribution.num_model_replicas


def check_variables(variables) -> None:
    """Refuses variables on other devices than the batches will be on.

    Args:
        variables: List of `keras.Variable`.

    Raises:
        ValueError: If one was made before the distribution was set.
    """
    count = number_of_devices()
    if count == 1:
        return
    for variable in variables:
        if len(variable.value.sharding.device_set) != count:
            raise ValueError(
                "The model was not made under the distribution that is set. "
                f"{_HOW_TO} Received: `{variable.path}` on "
                f"{len(variable.value.sharding.device_set)} of {count} devices"
            )


def check_batch(images, first, batch_size: int | None, steps=None) -> None:
    """Refuses batches that do not divide evenly, as far as can be seen.

    Args:
        images: What `fit` was given.
        first: Its first batch, or None where that cannot be looked at.
        batch_size: Integer, for arrays, or None for Keras' 32.
        steps: Integer, steps of an epoch; None for all that there are.

    Raises:
        ValueError: If a batch has another number of images than a multiple of
            the number of devices.
    """
    count = number_of_devices()
    if count == 1:
        return
    last = getattr(images, "partial_batch_size", None)
    if hasattr(images, "shape"):
        last = len(images) % (batch_size or 32)
    sizes = [] if first is None else [len(first)]
    # So many steps may end an epoch before its last batch.
    sizes += [last] if last and not steps else []
    for size in sizes:
        if size % count:
            raise _uneven(size, count)


@contextlib.contextmanager
def named_uneven_batches():
    """Context in which JAX' refusal of an uneven batch gets a sentence.

    Of those that `check_batch` could not see: nothing of ours comes between
    the loader, Keras and JAX.
    """
    try:
        yield
    except ValueError as error:
        count = number_of_devices()
        if count > 1 and "evenly divide" in str(error):
            raise _uneven("another number of", count) from error
        raise


def _uneven(images, count):
    return ValueError(
        f"A batch of {images} images cannot be shared evenly by {count} "
        "devices. Let every batch of `fit` be a multiple of that: choose the "
        "batch size so, and drop the last batch of an epoch (`drop_remainder`)"
    )


@contextlib.contextmanager
def any_batch_size():
    """Context in which Keras takes batches of any size.

    It gives all of a batch to every device, and `spread` divides what can be
    divided. Not for training: it copies more.
    """
    distribution = data_parallel()
    if distribution is None or isinstance(distribution, _WholeBatches):
        yield
        return
    with _WholeBatches(distribution).scope():
        yield


class _WholeBatches(keras.distribution.DataParallel):
    def __init__(self, distribution):
        super().__init__(
            device_mesh=distribution.device_mesh, auto_shard_dataset=False
        )

    def get_data_layout(self, data_shape):
        axes = [None] * len(data_shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def divided(self, data_shape):
        """Layout of a batch that divides evenly."""
        return super().get_data_layout(data_shape)


def spread(images):
    """A batch, or a part of one, divided among all devices if it can be."""
    distribution = data_parallel()
    if distribution is None:
        return images
    if images.shape[0] % distribution.num_model_replicas:
        return images
    layout = getattr(distribution, "divided", distribution.get_data_layout)
    return keras.distribution.distribute_tensor(images, layout(images.shape))
