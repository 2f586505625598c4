"""Fidelity of reconstructed images: PSNR and SSIM, averaged over images."""

import math

import keras
from keras import ops

from keras_vq.metrics.state import RunningMean

_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2


class LevelsMetric(keras.metrics.Metric):
    """Base of the metrics that see images as they would be in a file.

    Args:
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels. Without it the values
            are still clipped to the range.
        name: str. Name of the metric.
        dtype: Kept for Keras.
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        name=None,
        dtype="float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.value_range = _checked_range(value_range)
        self.quantize = quantize

    def get_config(self):
        return {
            **super().get_config(),
            "value_range": list(self.value_range),
            "quantize": self.quantize,
        }

    def _to_levels(self, images, name):
        images = ops.convert_to_tensor(images)
        dtype = keras.backend.standardize_dtype(images.dtype)
        low, high = self.value_range
        is_float = keras.backend.is_float_dtype(dtype)
        if not is_float and (low, high) != (0.0, 255.0):
            raise ValueError(
                f"Expected floats in [{low:g}, {high:g}]. Received: {name} of "
                f"dtype {dtype}. Convert them, or give the metric "
                "`value_range=(0, 255)`."
            )
        images = (ops.cast(images, "float32") - low) * (255.0 / (high - low))
        images = ops.clip(images, 0.0, 255.0)
        return ops.round(images) if self.quantize else images


class ImageMetric(LevelsMetric):
    """Base of the metrics that compare images with their reconstruction.

    Both are brought to the scale 0..255, clipped and rounded first, as they
    would be written to a file, so that the result does not depend on the range
    that the model works in and compares with figures measured on saved images.
    One value is computed per image, and the mean over all images since
    `reset_state` (and over the replicas of a strategy) is the result; it is 0
    before any update. Subclasses define `per_image`.

    Args:
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels. Without it the values
            are still clipped to the range.
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        name=None,
        dtype="float32",
    ):
        super().__init__(value_range, quantize, name=name, dtype=dtype)
        self._mean = RunningMean(self)

    def update_state(self, images, reconstruction, sample_weight=None):
        """Adds the images of one batch.

        Args:
            images: (B, H, W, C), within `value_range`.
            reconstruction: Of the same shape and range.
            sample_weight: Optional weights of the images, (B,) or (B, 1);
                zero leaves an image out.

        Raises:
            ValueError: If the shapes differ or are no images, or if integer
                images are given to a metric of another range than (0, 255).
        """
        images = self._to_levels(images, "images")
        reconstruction = self._to_levels(reconstruction, "reconstruction")
        _check_shapes(images, reconstruction)
        self._mean.add(self.per_image(images, reconstruction), sample_weight)

    def per_image(self, images, reconstruction):
        """Returns a value per image, (B,), from values within 0..255."""
        raise NotImplementedError

    def result(self):
        return self._mean.value()


@keras.saving.register_keras_serializable(package="keras_vq")
class PSNR(ImageMetric):
    """Peak signal-to-noise ratio in dB, the mean over images.

    `10 log10(255^2 / MSE)` for every image, where MSE is the mean over its
    pixels and channels. The mean of these is another number than the ratio of
    the mean MSE, and the one that papers report. Identical images, whose ratio
    is infinite, count as `max_db`.

    Args:
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels first.
        max_db: float. Upper bound of the value of one image, in dB.
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.

    Example:
    >>> model.compile(metrics=[keras_vq.metrics.PSNR(value_range=(-1, 1))])
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        max_db: float = 100.0,
        name="psnr",
        dtype="float32",
    ):
        super().__init__(value_range, quantize, name=name, dtype=dtype)
        self.max_db = max_db

    def per_image(self, images, reconstruction):
        errors = ops.mean(ops.square(images - reconstruction), axis=(1, 2, 3))
        # The bound on the error, not on the result, avoids a division by zero.
        least = 255.0**2 / 10.0 ** (self.max_db / 10.0)
        return 10.0 * ops.log10(255.0**2 / ops.maximum(errors, least))

    def get_config(self):
        return {**super().get_config(), "max_db": self.max_db}


@keras.saving.register_keras_serializable(package="keras_vq")
class SSIM(ImageMetric):
    """Structural similarity, the mean over images; 1 for identical images.

    As in the paper and in `tf.image.ssim`: Gaussian window of 11 x 11 pixels
    with sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie within the
    image, per colour channel, then the mean. Implementations with other
    windows (scikit-image's default is 7 x 7 and uniform) or on luma give other
    numbers. The computation is exact to float32 on accelerators that multiply
    float32 matrices with fewer bits too, because it uses none.

    Args:
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels first.
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.

    Raises:
        ValueError: By `update_state`, if a side of the images is below 11.
            (Where the size is unknown when a function is compiled, the result
            is NaN instead.)

    Reference:
        Wang et al., "Image Quality Assessment: From Error Visibility to
        Structural Similarity", IEEE Transactions on Image Processing, 2004,
        section III.

    Example:
    >>> model.compile(metrics=[keras_vq.metrics.SSIM(value_range=(-1, 1))])
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        name="ssim",
        dtype="float32",
    ):
        super().__init__(value_range, quantize, name=name, dtype=dtype)

    def per_image(self, images, reconstruction):
        for side in images.shape[1:3]:
            if side is not None and side < _WINDOW:
                raise ValueError(
                    f"SSIM needs images of at least {_WINDOW} x {_WINDOW} "
                    f"pixels. Received: images.shape={tuple(images.shape)}"
                )
        # Moments of sum and difference instead of the two images: one map
        # fewer, and no cancellation where the two are nearly equal.
        sums = images + reconstruction - 255.0
        differences = images - reconstruction
        maps = ops.concatenate(
            [sums, differences, ops.square(sums), ops.square(differences)], -1
        )
        sums, differences, sums2, differences2 = ops.split(
            _gaussian_window(maps), 4, axis=-1
        )
        variance_s = ops.maximum(sums2 - ops.square(sums), 0.0)
        variance_d = ops.maximum(differences2 - ops.square(differences), 0.0)
        mean_s = ops.square(sums + 255.0)
        mean_d = ops.square(differences)
        luminance = (mean_s - mean_d + 2 * _C1) / (mean_s + mean_d + 2 * _C1)
        structure = (variance_s - variance_d + 2 * _C2) / (
            variance_s + variance_d + 2 * _C2
        )
        # The window put the batch on the third axis: (W', H', B, C). In two
        # steps, because a float32 sum over 100,000 pixels that are far apart
        # in memory is off by more than 1e-4.
        columns = ops.mean(luminance * structure, axis=0)
        return ops.mean(columns, axis=(0, 2))


def _gaussian_window(maps):
    """Blurs (B, H, W, C) over H and W; gives (W - 10, H - 10, B, C).

    Shifted sums are exact everywhere, while convolutions and matrix products
    of float32 use 10-bit factors on many accelerators, which moved SSIM by up
    to 0.07 when emulated. Under XLA they become one loop (a depthwise
    convolution was 25 times slower there, on a CPU); with the axis in front,
    a shift is no copy.
    """
    center = _WINDOW // 2
    weights = [
        math.exp(-0.5 * ((i - center) / _SIGMA) ** 2) for i in range(_WINDOW)
    ]
    weights = [weight / sum(weights) for weight in weights]

    def blur(x):
        # A slice end of None: `0` would be empty instead of the whole rest.
        shifted = [x[i : (i - _WINDOW + 1) or None] for i in range(_WINDOW)]
        blurred = weights[center] * shifted[center]
        for i in range(center):
            pair = shifted[i] + shifted[_WINDOW - 1 - i]
            blurred = blurred + weights[i] * pair
        return blurred

    rows_first = ops.transpose(maps, (1, 2, 0, 3))
    return blur(ops.transpose(blur(rows_first), (1, 0, 2, 3)))


def _checked_range(value_range) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            "`value_range` must be a pair of numbers (low, high) with low < "
            f"high, e.g. (-1, 1). Received: value_range={value_range!r}"
        )
    return low, high


def _check_shapes(images, reconstruction) -> None:
    shapes = tuple(images.shape), tuple(reconstruction.shape)
    same = len(shapes[0]) == len(shapes[1]) == 4 and all(
        a == b or a is None or b is None for a, b in zip(*shapes, strict=True)
    )
    if not same:
        raise ValueError(
            "Expected images and reconstruction of the same shape (batch, "
            f"height, width, channels). Received: images.shape={shapes[0]}, "
            f"reconstruction.shape={shapes[1]}"
        )
