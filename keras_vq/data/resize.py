"""Resizing and cropping of one uint8 image."""

import numpy as np

from keras_vq.data.engine import is_tensorflow
from keras_vq.data.errors import ImageError
from keras_vq.data.resampling import KERNELS, resample


def resize_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str = "bicubic"
) -> np.ndarray:
    """Resizes with antialias; the result is rounded and clipped to uint8.

    Args:
        image: uint8 `(height, width, channels)`.
        size: The new height and width.
        interpolation: `"area"`, `"bilinear"`, `"bicubic"` (Keys, a = -0.5)
            or `"lanczos"` (3 lobes). Shrinking agrees with Pillow's
            resampling of the same name to 2 of 255 (`"area"`: where the
            scale is a whole number), because only rounding differs.

    Returns:
        uint8 `(*size, channels)`.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    if is_tensorflow("Resizing", None):
        resized = _resampled_by_tensorflow(image, size, interpolation)
    else:
        resized = resample(image, size, interpolation)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _resampled_by_tensorflow(image, size, interpolation):
    """The same sums as `resample`'s, in half the time."""
    import tensorflow as tf

    scale = np.divide(size, image.shape[:2], dtype=np.float32)
    with tf.device("CPU:0"):
        return tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=np.array(size, np.int32),
            scale=scale,
            translation=np.zeros(2, np.float32),
            kernel_type=KERNELS[interpolation].name,
            antialias=True,
        ).numpy()[0]


def covering_size(
    shape: tuple[int, int], target: tuple[int, int], short_side: int | None
) -> tuple[int, int]:
    """Returns the size that keeps the aspect ratio and covers `target`.

    Args:
        shape: Height and width of the image.
        target: Height and width to be covered.
        short_side: If given, the shorter side becomes this long; otherwise
            the image becomes just large enough.
    """
    if short_side is not None:
        scale = short_side / min(shape)
    else:
        scale = max(target[0] / shape[0], target[1] / shape[1])
    return tuple(
        max(t, round(s * scale)) for s, t in zip(shape, target, strict=True)
    )


def crop_image(
    image: np.ndarray, size: tuple[int, int], where: tuple[float, float]
) -> np.ndarray:
    """Cuts `size` out of an image that is at least as large.

    Args:
        image: `(height, width, channels)`.
        size: Height and width of the result.
        where: The offset from top and left as a fraction in [0, 1) of the
            possible offsets; each has the same share.
    """
    top, left = (
        int(w * (s - t + 1))
        for w, s, t in zip(where, image.shape[:2], size, strict=True)
    )
    return image[top : top + size[0], left : left + size[1]]


def crop_centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts the middle out; an odd rest leaves one more at bottom or right."""
    top, left = ((s - t) // 2 for s, t in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def fit_image(image: np.ndarray, size, options, name: str) -> np.ndarray:
    """Makes an image fit a pipeline, up to the point where chance begins.

    Args:
        image: uint8 `(height, width, channels)`.
        size: Height and width in the batch.
        options: The pipeline's `Options`.
        name: What to call the image in an error message.

    Returns:
        uint8 `(*size, channels)`; with `crop="random"` the image that is to
        be cut, at least that large.

    Raises:
        ImageError: If the image has another size and there is no
            `image_size`, or if it is so narrow that it would become huge.
    """
    if options.image_size is None:
        if image.shape[:2] != size:
            raise ImageError(
                "Without `image_size` all images must have one size. "
                f"Received: {size} for the first one, and "
                f"{image.shape[:2]} for {name}. Give `image_size`."
            )
        return image
    if options.crop is None:
        return resize_image(image, size, options.interpolation)
    larger = covering_size(image.shape[:2], size, options.resize)
    if larger[0] * larger[1] > options.max_pixels:
        raise ImageError(
            f"{name} has {image.shape[0]}x{image.shape[1]} pixels; with its "
            f"shorter side resized to {min(larger)} it would have {larger[0]}x"
            f"{larger[1]}, more than max_pixels={options.max_pixels}. Take it "
            "out, or use `crop=None`."
        )
    image = resize_image(image, larger, options.interpolation)
    if options.crop == "random":
        return image
    return np.ascontiguousarray(crop_centre(image, size))
