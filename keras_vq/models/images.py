"""Between uint8 images and what the networks take, and sizes that fit."""

import keras
import numpy as np
from keras import ops


def preprocess(images):
    """uint8 images to float32 in [-1, 1].

    Args:
        images: uint8 array or tensor of any shape, or anything that NumPy
            makes an array of, such as a Pillow image.

    Returns:
        float32 of the same shape and kind, `images / 127.5 - 1`.

    Raises:
        ValueError: If the images are not uint8.
    """
    if not hasattr(images, "dtype"):
        images = np.asarray(images)
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8":
        raise ValueError(
            "`preprocess` takes uint8 images in [0, 255]; float images in "
            f"[-1, 1] need none. Received: dtype {dtype}"
        )
    if isinstance(images, np.ndarray):
        return images.astype("float32") / np.float32(127.5) - np.float32(1)
    # A table, because compilers turn a division by a constant into a product,
    # which rounds otherwise: the same image could get other codes in a graph.
    levels = preprocess(np.arange(256, dtype="uint8"))
    return ops.take(levels, ops.cast(images, "int32"), axis=0)


def postprocess(images):
    """Float images in [-1, 1] to uint8, clipped and rounded.

    Args:
        images: Float array or tensor of any shape.

    Returns:
        uint8 of the same shape and kind.

    Raises:
        ValueError: If the images are not floats.
    """
    if not hasattr(images, "dtype"):
        images = np.asarray(images)
    dtype = keras.backend.standardize_dtype(images.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "`postprocess` takes float images in [-1, 1], which a model "
            f"gives; uint8 images need none. Received: dtype {dtype}"
        )
    if isinstance(images, np.ndarray):
        images = (images.astype("float32") + 1) * np.float32(127.5)
        return np.clip(np.rint(images), 0, 255).astype("uint8")
    images = (ops.cast(images, "float32") + 1.0) * 127.5
    return ops.cast(ops.clip(ops.round(images), 0.0, 255.0), "uint8")


def check_images(images, channels: int, rank: int, smallest: int = 1):
    """Raises ValueError if `images` cannot be a batch in [-1, 1].

    Args:
        images: What somebody gave as a batch of images.
        channels: Integer, channels of an image.
        rank: Integer, number of axes with the batch's.
        smallest: Integer, pixels that each side must have.
    """
    if not hasattr(images, "dtype"):
        raise ValueError(
            "The model takes batches of images as one array or tensor. "
            f"Received: {type(images).__name__}"
        )
    dtype = keras.backend.standardize_dtype(images.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "The model takes float images in [-1, 1]. Convert uint8 images in "
            f"[0, 255] with `model.preprocess(images)`. Received: dtype {dtype}"
        )
    shape = tuple(images.shape)
    if len(shape) != rank or shape[-1] not in (channels, None):
        axes = {3: "length, ", 4: "height, width, "}.get(rank, "..., ")
        raise ValueError(
            f"The model takes batches of shape (batch, {axes}{channels}), "
            "channels last. Convert the images, or make a model with as many "
            f"`channels`. Received: shape {shape}"
        )
    if 0 in shape:
        raise ValueError(
            "The model takes one or more images of one or more pixels. "
            f"Received: shape {shape}"
        )
    if any(side is not None and side < smallest for side in shape[1:-1]):
        raise ValueError(
            f"The model takes images of {smallest} or more pixels on each "
            f"side, which its strides divide. Received: shape {shape}"
        )


def pad_to_multiple(images, factor: int):
    """Repeats the last pixels until every side is a multiple of `factor`."""
    for axis in range(1, len(images.shape) - 1):
        size = images.shape[axis]
        if size is None:
            size = ops.shape(images)[axis]
        elif size % factor == 0:
            continue
        padded = (size + factor - 1) // factor * factor
        # Not `ops.pad`: its reflections need a side longer than the padding.
        places = ops.minimum(ops.arange(padded), size - 1)
        images = ops.take(images, places, axis=axis)
    return images


def crop_like(images, original):
    """Cuts off what `pad_to_multiple` has added to `original`."""
    shape = ops.shape(original)[1:-1]
    known = (images.shape[1:-1], original.shape[1:-1])
    if None not in known[0] and known[0] == known[1]:
        return images
    return images[(slice(None), *(slice(0, size) for size in shape))]
