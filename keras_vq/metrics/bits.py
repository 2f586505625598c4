"""Bits per dimension under the likelihood of a decoder."""

import math

import keras

from keras_vq.losses import (
    Likelihood,
    get_reconstruction_loss,
    serialize_reconstruction_loss,
)
from keras_vq.metrics.state import RunningMean


@keras.saving.register_keras_serializable(package="keras_vq")
class BitsPerDim(keras.metrics.Metric):
    """Negative log-likelihood of 8-bit images, in bits per value.

    The reconstruction is taken as the location of a distribution over the 256
    levels, and the result is the mean of `-log2 p` over the values of the
    images (pixels times channels). That is the decoder's part; a VQ-VAE bound
    on the likelihood also pays for the codes, see `code_bits`.

    Args:
        likelihood: `None` for the reconstruction loss of the model that is
            compiled with the metric, which has to be a likelihood;
            or `"gaussian"`, `"discretized_logistic"` or a
            `keras_vq.losses.Likelihood`. A name stands for a likelihood with
            its default scale, which the metric does not train.
        code_bits: float. Bits of the codes per value of the image, added to
            the result. With all codes equally likely that is
            `model.bits_per_image(H, W) / (H * W * C)`.
        name: str. Name of the metric.
        dtype: Kept for Keras; state and result are float32 in any case.

    Raises:
        ValueError: If the loss is no likelihood; by `update_state`, if the
            metric has none yet.

    Example:
    >>> model = keras_vq.models.VQVAE(
    ...     reconstruction_loss="discretized_logistic"
    ... )
    >>> bits = model.bits_per_image(32, 32) / (32 * 32 * 3)
    >>> metric = keras_vq.metrics.BitsPerDim(code_bits=bits)
    >>> model.compile("adam", metrics=[metric])
    """

    def __init__(
        self,
        likelihood=None,
        code_bits: float = 0.0,
        name="bits_per_dim",
        dtype="float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self._likelihood = None
        # A learned scale belongs to a model, and Keras does not store that two
        # objects share it. A copy of the metric must not go on with a scale of
        # its own: it has to be bound to the copy of the model.
        self._shares_scale = not isinstance(likelihood, (str, dict))
        if likelihood is not None:
            self.bind(get_reconstruction_loss(likelihood))
        self.code_bits = code_bits
        self._mean = RunningMean(self)

    @property
    def likelihood(self) -> Likelihood | None:
        """The likelihood in use; None until there is one."""
        return self._likelihood

    def bind(self, likelihood: Likelihood) -> None:
        """Uses this likelihood from now on."""
        if not isinstance(likelihood, Likelihood):
            raise ValueError(
                "Bits per dimension need a likelihood, 'gaussian' or "
                "'discretized_logistic'; other losses are no probabilities. "
                f"Received: likelihood={likelihood!r}"
            )
        self._likelihood = likelihood

    def update_state(self, images, reconstruction, sample_weight=None):
        """Adds the images of one batch.

        Args:
            images: Floats in [-1, 1], (B, H, W, C).
            reconstruction: Floats of the same shape.
            sample_weight: Optional weights of the images, (B,) or (B, 1).
        """
        if self._likelihood is None:
            raise ValueError(
                "`BitsPerDim` has no likelihood. Compile a "
                "`keras_vq.models.VQAutoencoder` with it, whose "
                "reconstruction loss it takes, or call "
                "`metric.bind(model.reconstruction_loss)`."
            )
        self._mean.add(self._likelihood(images, reconstruction), sample_weight)

    def result(self):
        # Nothing seen is 0, as in every metric here, also with `code_bits`.
        seen = self._mean.any_weight()
        return self._mean.value() / math.log(2.0) + self.code_bits * seen

    def get_config(self):
        likelihood = self._likelihood
        if self._shares_scale and getattr(likelihood, "learn_scale", True):
            likelihood = None
        else:
            likelihood = serialize_reconstruction_loss(likelihood)
        return {
            **super().get_config(),
            "likelihood": likelihood,
            "code_bits": self.code_bits,
        }


def bind_likelihood(metrics, reconstruction_loss) -> None:
    """Gives metrics without a likelihood that of the model they belong to.

    Args:
        metrics: What `compile` takes as `metrics`: None or nested metrics.
        reconstruction_loss: The reconstruction loss of the model.

    Raises:
        ValueError: If one of the metrics needs a likelihood and the loss is
            none.
    """
    for metric in keras.tree.flatten(metrics):
        if isinstance(metric, BitsPerDim) and metric.likelihood is None:
            metric.bind(reconstruction_loss)
