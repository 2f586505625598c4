"""How far the latents lie from their codes."""

import keras
from keras import ops

from keras_vq.metrics.state import RunningMean


@keras.saving.register_keras_serializable(package="keras_vq")
class QuantizationError(keras.metrics.Metric):
    """Mean squared difference between latents and their codes.

    The mean runs over positions and over the dimensions of the latents, like
    the commitment loss, of which this is the value over a whole data set;
    times the number of dimensions it is the mean squared distance. It is 0
    before any update.

    Args:
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.

    Example:
    >>> metric = keras_vq.metrics.QuantizationError()
    >>> latents = model.encoder(images)
    >>> metric.update_state(latents, model.quantizer(latents)["quantized"])
    >>> float(metric.result())
    """

    def __init__(self, name="quantization_error", dtype="float32"):
        super().__init__(name=name, dtype=dtype)
        self._mean = RunningMean(self)

    def update_state(self, latents, quantized, mask=None, sample_weight=None):
        """Adds the latents of one batch.

        Args:
            latents: Floats of shape (B, ..., D).
            quantized: Floats of the same shape.
            mask: Optional booleans of shape (B, ...) or of its leading axes,
                True where a position counts.
            sample_weight: Optional weights, shaped like `mask`.

        Raises:
            ValueError: If the shapes differ.
        """
        latents = ops.cast(ops.convert_to_tensor(latents), "float32")
        quantized = ops.cast(ops.convert_to_tensor(quantized), "float32")
        if tuple(latents.shape) != tuple(quantized.shape):
            raise ValueError(
                "Expected latents and quantized of the same shape. Received: "
                f"latents.shape={tuple(latents.shape)}, "
                f"quantized.shape={tuple(quantized.shape)}"
            )
        errors = ops.mean(ops.square(latents - quantized), axis=-1)
        self._mean.add(errors, mask, sample_weight)

    def result(self):
        return self._mean.value()
