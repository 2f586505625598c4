"""Negative log-likelihoods of 8-bit images, in nats per value."""

import math

import keras
from keras import ops

from keras_vq.losses.reconstruction import ReconstructionLoss

# Levels of 8-bit images are 2 / 255 = 1 / 127.5 apart in [-1, 1].
_HALF_LEVELS = 127.5
_MAX_LOG_SCALE = 7.0


class Likelihood(ReconstructionLoss):
    """Base of the losses that are negative log-likelihoods.

    The reconstruction is the location of a distribution with one scale for
    all values of all images. The loss of an image is `-log p` of its 8-bit
    levels in nats, averaged over pixels and channels: divided by `log(2)` it
    is in bits per dimension (`keras_vq.metrics.BitsPerDim`).

    A learned scale is a weight of its own, trained with the model that holds
    the loss. It also sets how much the reconstruction counts against the
    codebook terms, and it does so more and more as the reconstruction gets
    better. Subclasses define `elements`.

    Args:
        scale: float. The scale in units of [-1, 1] images, from exp(-7)
            (about 0.0009, an eighth of the step between levels) to exp(7).
        learn_scale: bool. Whether `scale` is where training starts, instead
            of a constant.
        name: str. Name of the loss.
    """

    def __init__(self, scale: float, learn_scale: bool, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        if not scale > 0 or abs(math.log(scale)) > _MAX_LOG_SCALE:
            raise ValueError(
                "`scale` must lie between exp(-7) and exp(7), in units of "
                f"images in [-1, 1]. Received: scale={scale}"
            )
        self.initial_scale = scale
        self.learn_scale = learn_scale
        self._log_scale = None
        if learn_scale:
            self._log_scale = self.add_weight(
                name="log_scale",
                shape=(),
                initializer=keras.initializers.Constant(math.log(scale)),
                dtype="float32",
                autocast=False,
            )

    @property
    def log_scale(self):
        """Natural logarithm of the scale in use, a float or a tensor."""
        if self._log_scale is None:
            return math.log(self.initial_scale)
        raw = ops.convert_to_tensor(self._log_scale)
        bounded = ops.clip(raw, -_MAX_LOG_SCALE, _MAX_LOG_SCALE)
        # Bounded in value only: the gradient of `clip` alone would be zero
        # beyond the bounds, and the scale could not come back.
        return raw + ops.stop_gradient(bounded - raw)

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.initial_scale,
            "learn_scale": self.learn_scale,
        }


@keras.saving.register_keras_serializable(package="keras_vq")
class GaussianNLL(Likelihood):
    """Gaussian likelihood of 8-bit images, `"gaussian"`.

    The density at the image, times the distance of two levels (the change of
    variables to 0..255 adds `log(127.5)` nats). That is close to the
    probability of the level while the scale is well above 1/127.5. With
    unit scale the loss is half the squared error plus a constant, and no model
    can have fewer than 0.5 log2(2 pi) + log2(127.5) = 8.32 bits per dimension:
    a scale that fits the errors is needed for a figure that compares.

    Args:
        scale: float. Standard deviation, in units of [-1, 1] images.
        learn_scale: bool. Whether to train the scale, starting there.
        name: str. Name of the loss.

    Example:
    >>> loss = keras_vq.losses.GaussianNLL(scale=0.1, learn_scale=True)
    >>> model = keras_vq.models.VQVAE(reconstruction_loss=loss)
    """

    def __init__(
        self, scale: float = 1.0, learn_scale: bool = False, name=None, **kwargs
    ):
        super().__init__(scale, learn_scale, name=name, **kwargs)

    def elements(self, images, reconstruction):
        log_scale = self.log_scale
        errors = (images - reconstruction) * ops.exp(-log_scale)
        constant = 0.5 * math.log(2.0 * math.pi) + math.log(_HALF_LEVELS)
        return 0.5 * ops.square(errors) + log_scale + constant


@keras.saving.register_keras_serializable(package="keras_vq")
class DiscretizedLogisticNLL(Likelihood):
    """Logistic likelihood over 256 levels, `"discretized_logistic"`.

    The probability of a level is the mass of a logistic distribution between
    the midpoints to its neighbours; the first and the last level take all that
    lies beyond. The probabilities of the 256 levels sum to one. Images are
    snapped to the nearest level first. One component only, its location being
    the reconstruction.

    Args:
        scale: float. Scale of the logistic distribution, in units of [-1, 1]
            images; its standard deviation is 1.81 times that.
        learn_scale: bool. Whether to train the scale, starting there.
        name: str. Name of the loss.

    Reference:
        Salimans et al., "PixelCNN++", ICLR 2017, section 2.1 (the
        distribution, as a mixture).

    Example:
    >>> loss = keras_vq.losses.DiscretizedLogisticNLL(scale=0.05)
    >>> model = keras_vq.models.VQVAE(reconstruction_loss=loss)
    """

    def __init__(
        self, scale: float = 0.1, learn_scale: bool = True, name=None, **kwargs
    ):
        super().__init__(scale, learn_scale, name=name, **kwargs)

    def elements(self, images, reconstruction):
        levels = ops.round((ops.clip(images, -1.0, 1.0) + 1.0) * _HALF_LEVELS)
        centered = levels / _HALF_LEVELS - 1.0 - reconstruction
        inverse_scale = ops.exp(-self.log_scale)
        half_level = 0.5 / _HALF_LEVELS
        log_below_upper = ops.log_sigmoid(
            (centered + half_level) * inverse_scale
        )
        log_above_lower = ops.log_sigmoid(
            (half_level - centered) * inverse_scale
        )
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)):
        # a sum of logarithms, with nothing to underflow or to cancel.
        width = inverse_scale / _HALF_LEVELS
        log_within = (
            log_below_upper + log_above_lower + ops.log(-ops.expm1(-width))
        )
        return -ops.where(
            levels < 0.5,
            log_below_upper,
            ops.where(levels > 254.5, log_above_lower, log_within),
        )
