"""LPIPS as a metric: the mean perceptual distance of images."""

import keras

from keras_vq import losses
from keras_vq.metrics.images import ImageMetric


@keras.saving.register_keras_serializable(
    package="keras_vq", name="LPIPSMetric"
)
class LPIPS(ImageMetric):
    """Learned perceptual distance, the mean over images; 0 for identical ones.

    As for the other image metrics, both images are clipped and rounded to
    whole levels first. Say with a figure which trunk and which weights it was
    measured with: those of different ones do not compare.

    Args:
        distance: The trunk, `"vgg"` or `"squeeze"`, or a
            `keras_vq.losses.LPIPS`, which can name files of weights.
        value_range: Pair of floats. The values of black and white in both
            arguments of `update_state`: `(-1, 1)`, `(0, 1)` or `(0, 255)`.
        quantize: bool. Whether to round to whole levels first.
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.

    Reference:
        Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
        Perceptual Metric", CVPR 2018, section 3.

    Example:
    >>> model.compile(metrics=[keras_vq.metrics.LPIPS("squeeze")])
    """

    def __init__(
        self,
        distance: str | losses.LPIPS,
        value_range: tuple[float, float] = (-1.0, 1.0),
        quantize: bool = True,
        name="lpips",
        dtype="float32",
    ):
        super().__init__(value_range, quantize, name=name, dtype=dtype)
        if isinstance(distance, dict):
            distance = keras.saving.deserialize_keras_object(distance)
        if isinstance(distance, str):
            distance = losses.LPIPS(distance)
        if not isinstance(distance, losses.LPIPS):
            raise ValueError(
                "`distance` must be the name of a trunk or a "
                f"`keras_vq.losses.LPIPS`. Received: distance={distance!r}"
            )
        self.distance = distance

    def per_image(self, images, reconstruction):
        return self.distance(images / 127.5 - 1.0, reconstruction / 127.5 - 1.0)

    def get_config(self):
        distance = keras.saving.serialize_keras_object(self.distance)
        return {**super().get_config(), "distance": distance}
