"""Vector quantizer whose codebook learns by gradient."""

import keras
from keras import ops

from keras_vq.layers.quantizers.base import Quantizer
from keras_vq.layers.quantizers.vectors import squared_error


@keras.saving.register_keras_serializable(package="keras_vq")
class VectorQuantizer(Quantizer):
    """Replaces each latent by its nearest code; the codes learn by gradient.

    The loss has two terms, `codebook`, the squared distance of the codes from
    the (fixed) latents, and `commitment`, that of the latents from the (fixed)
    codes. Their weights belong to the model: `codebook_weight` and
    `commitment_weight` of `keras_vq.models.VQAutoencoder`.

    See `keras_vq.layers.Quantizer` for the arguments, the call and how it
    trains.

    Reference:
        [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), section
        3.2, equation 3.

    Example:
    >>> quantizer = keras_vq.layers.VectorQuantizer(512, 64)
    >>> output = quantizer(keras.random.normal((2, 8, 8, 64)))
    >>> output["indices"].shape
    (2, 8, 8)
    """

    _codebook_is_trained = True

    def _errors(self, vectors, codes):
        return {
            **super()._errors(vectors, codes),
            "codebook": squared_error(ops.stop_gradient(vectors), codes),
        }
