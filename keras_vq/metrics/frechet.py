"""The Fréchet distance of two sets of images in the features of a network."""

import keras
import numpy as np
from keras import ops

from keras_vq.convert.lpips import read_trunk
from keras_vq.losses.lpips_files import find_weights
from keras_vq.losses.lpips_trunks import TRUNKS
from keras_vq.metrics.images import LevelsMetric
from keras_vq.metrics.state import broadcast_weights, float64_allowed


@keras.saving.register_keras_serializable(package="keras_vq")
class SqueezeNetFeatures:
    """512 features of an image: SqueezeNet 1.1's last activations, pooled.

    The activations of the last fire module (`features.12` of torchvision's
    network), averaged over all positions, in float32. Images are taken at
    their own size, without a resize.

    A Fréchet distance in these features is **not** the FID, which has 2048
    features of an Inception network: numbers of the two do not compare, nor
    do those of different weight files.

    Args:
        trunk_weights: Path of the weights, as for
            `keras_vq.losses.LPIPS("squeeze")`, which uses the same file. None:
            found by name, or fetched, as there.

    Call arguments:
        images: Floats of shape (B, H, W, 3) in [-1, 1], at least 17 pixels
            high and wide; or (B, H, W, 1), taken as grey.

    Returns:
        float32 features of shape (B, 512).

    Raises:
        ConversionError: If the file is missing or is not what it should be.

    Reference:
        [Iandola et al., 2016](https://arxiv.org/abs/1602.07360)

    Example:
    >>> features = keras_vq.metrics.SqueezeNetFeatures()
    >>> metric = keras_vq.metrics.FrechetDistance(features)
    """

    # Arguments that name files of one machine: no preset keeps them.
    local_paths = ("trunk_weights",)

    size = 512
    _arrays = None

    def __init__(self, trunk_weights=None):
        self.trunk_weights = trunk_weights and str(trunk_weights)
        self.load()

    def load(self):
        """Opens the file, unless it was opened before."""
        if self._arrays is not None:
            return
        self.file = self.trunk_weights or find_weights(
            "squeeze", "trunk_weights"
        )
        self._arrays, scaling = read_trunk(
            self.file, TRUNKS["squeeze"].convolutions
        )
        self._shift, self._scale = (np.array(s, "float32") for s in scaling)

    def __call__(self, images):
        self.load()
        images = ops.cast(images, "float32")
        if images.shape[-1] == 1:
            images = ops.repeat(images, 3, axis=-1)
        small = TRUNKS["squeeze"].min_size
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[-1] != 3 or min(shape[1:3]) < small:
            raise ValueError(
                "Expected images of shape (batch, height, width, channels) "
                f"with 3 channels or 1, at least {small} x {small} pixels. "
                f"Received: shape={shape}"
            )
        x = (images - self._shift) / self._scale
        last = TRUNKS["squeeze"].features(x, self._arrays)[-1]
        return ops.mean(last, axis=(1, 2))

    def get_config(self):
        return {"trunk_weights": self.trunk_weights}

    @classmethod
    def from_config(cls, config):
        """Features whose file is opened when they are first asked for."""
        made = cls.__new__(cls)
        made.trunk_weights = config["trunk_weights"]
        return made


@keras.saving.register_keras_serializable(package="keras_vq")
class FrechetDistance(LevelsMetric):
    """Fréchet distance between images and their reconstructions.

    Both sets are described by the mean and the covariance of their features;
    the distance is that of two normal distributions with these:
    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, with the covariances over
    n - 1. 0 for identical sets, and before two images were added.

    **It is biased by the number of images**: the fewer there are, the larger
    it comes out, because covariances of few images are noisy, by more than
    the differences between good models below some thousands of images. (Sets
    that belong together in pairs, as here, are better off than independent
    ones, not safe.) Compare figures only if features, their weights, the
    number of images and the images' preparation are the same, and say all of
    that with each figure.

    As for the other image metrics, images are clipped and rounded to whole
    levels first. Sums of features and of their products are kept in float64
    and add up over replicas; a single result takes an eigendecomposition, so
    that it is better updated by hand than given to `compile`, which asks for
    a result at each step.

    Args:
        features: Callable of images in [-1, 1], (B, H, W, C), that gives
            features (B, F), with an attribute `size`, which is F; such as
            `SqueezeNetFeatures()`.
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels first.
        name: str. Name of the metric.
        dtype: Kept for Keras; the state is float64 in any case.

    Raises:
        ValueError: If `features` is no such callable.

    Reference:
        [Heusel et al., 2017](https://arxiv.org/abs/1706.08500), section 2, with
        other features; [Chong and Forsyth, 2020](
        https://arxiv.org/abs/1911.07023) on the bias.

    Example:
    >>> metric = FrechetDistance(SqueezeNetFeatures())
    >>> for images in dataset:
    ...     metric.update_state(images, model(images))
    >>> float(metric.result())
    """

    def __init__(
        self,
        features,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        name="frechet_distance",
        dtype="float32",
    ):
        super().__init__(value_range, quantize, name=name, dtype=dtype)
        if isinstance(features, dict):
            features = keras.saving.deserialize_keras_object(features)
        size = getattr(features, "size", None)
        if not callable(features) or not isinstance(size, int):
            raise ValueError(
                "`features` must be a callable with an attribute `size`, the "
                "number of its features, such as SqueezeNetFeatures(). "
                f"Received: features={features!r}"
            )
        self.features = features
        with float64_allowed():
            self._count = self._add_sum("count", ())
            self._sums = [
                (
                    self._add_sum(f"{which}_sum", (size,)),
                    self._add_sum(f"{which}_products", (size, size)),
                )
                for which in ("images", "reconstruction")
            ]

    def _add_sum(self, name, shape):
        return self.add_variable(
            shape=shape, initializer="zeros", dtype="float64", name=name
        )

    def update_state(self, images, reconstruction, sample_weight=None):
        """Adds the images of one batch.

        Args:
            images: (B, H, W, C), within `value_range`.
            reconstruction: (B, H, W, C), within `value_range`.
            sample_weight: Optional weights of the images, (B,) or (B, 1);
                zero leaves an image out.
        """
        pair = {"images": images, "reconstruction": reconstruction}
        with float64_allowed():
            self._add(pair, sample_weight)

    def _add(self, pair, sample_weight):
        for (name, x), sums in zip(pair.items(), self._sums, strict=True):
            levels = self._to_levels(x, name)
            found = ops.cast(self.features(levels / 127.5 - 1.0), "float64")
            weights = ops.ones_like(found[:, 0])
            if sample_weight is not None:
                given = broadcast_weights(sample_weight, weights)
                weights = ops.cast(given, "float64")
            # What is left out must not count even if it is NaN.
            weighted = ops.where(
                weights[:, None] > 0, found * weights[:, None], 0.0
            )
            found = ops.where(weights[:, None] > 0, found, 0.0)
            total, products = sums
            total.assign_add(ops.sum(weighted, axis=0))
            products.assign_add(ops.matmul(ops.transpose(weighted), found))
        self._count.assign_add(ops.sum(weights))

    def result(self):
        with float64_allowed():
            return self._distance()

    def reset_state(self):
        with float64_allowed():
            super().reset_state()

    def _distance(self):
        count = ops.convert_to_tensor(self._count)
        moments = [_moments(*sums, count) for sums in self._sums]
        (mean, covariance), (other_mean, other_covariance) = moments
        root = _root(covariance)
        inner = ops.matmul(ops.matmul(root, other_covariance), root)
        # Their roots' sum is the trace of (C1 C2)^(1/2), and always real.
        values = ops.eigh((inner + ops.transpose(inner)) / 2)[0]
        shared = ops.sum(ops.sqrt(ops.maximum(values, 0.0)))
        distance = (
            ops.sum(ops.square(mean - other_mean))
            + ops.trace(covariance)
            + ops.trace(other_covariance)
            - 2.0 * shared
        )
        distance = ops.where(count >= 2, ops.maximum(distance, 0.0), 0.0)
        return ops.cast(distance, "float32")

    def get_config(self):
        features = keras.saving.serialize_keras_object(self.features)
        return {**super().get_config(), "features": features}


def _moments(total, products, count):
    """Mean and covariance from sums."""
    mean = ops.divide(total, ops.maximum(count, 1.0))
    outer = ops.multiply(mean[:, None], mean[None, :])
    centred = ops.subtract(products, count * outer)
    return mean, centred / ops.maximum(count - 1.0, 1.0)


def _root(matrix):
    """Square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = ops.eigh(matrix)
    roots = ops.sqrt(ops.maximum(values, 0.0))
    return ops.matmul(vectors * roots[None, :], ops.transpose(vectors))
