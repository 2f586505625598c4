"""Vector quantizer whose codes are moving averages of their latents."""

import keras
from keras import ops

from keras_vq.layers.quantizers.base import Quantizer


@keras.saving.register_keras_serializable(package="keras_vq")
class EMAVectorQuantizer(Quantizer):
    """Replaces each latent by its nearest code, the mean of its past latents.

    Each code keeps a moving average of the number of latents nearest to it
    and of their sum; the code is the quotient. There is no codebook loss and
    no learning rate, and codes usually settle faster than by gradient.

    Args:
        codebook_size: Integer, number of codes (K).
        codebook_dim: Integer, length of a code.
        epsilon: Float > 0 of the Laplace smoothing of the counts. It acts
            only where sums are divided by counts; the counts themselves are
            stored as they are.
        **kwargs: Arguments of `keras_vq.layers.Quantizer`, among them
            `decay`, the decay of both moving averages.

    See `keras_vq.layers.Quantizer` for the call and how it trains.

    Reference:
        [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937),
        appendix A.1; [Razavi et al., 2019](https://arxiv.org/abs/1906.00446),
        section 2.1.
    """

    def __init__(
        self,
        codebook_size: int = 512,
        codebook_dim: int = 64,
        epsilon: float = 1e-5,
        **kwargs,
    ):
        super().__init__(codebook_size, codebook_dim, **kwargs)
        if epsilon <= 0:
            raise ValueError(
                "`epsilon` must be positive, such as 1e-5: an unused code "
                f"would be divided by 0. Received: epsilon={epsilon}"
            )
        self.epsilon = epsilon

    def build(self, input_shape):
        super().build(input_shape)
        # The same initializer gives the same values: each code starts as the
        # mean of one latent, itself.
        self.sums = self._add_state(
            "sums",
            (self.codebook_size, self.codebook_dim),
            self._start_values(),
        )

    def _statistics(self, vectors, indices, valid):
        weighted = vectors
        if valid is not None:
            # Padding may hold anything, and 0 * NaN is NaN.
            weighted = ops.where(valid[:, None] > 0, vectors, 0.0)
        return {
            **super()._statistics(vectors, indices, valid),
            "sums": self._sum_by_code(weighted, indices),
        }

    def _update_codebook(self, statistics):
        self.sums.assign(
            self.decay * self.sums + (1 - self.decay) * statistics["sums"]
        )
        self.codebook.assign(self.sums / self._smoothed_counts()[:, None])

    def _smoothed_counts(self):
        total = ops.sum(self.counts)
        smoothed = self.counts + self.epsilon
        return smoothed * total / (total + self.codebook_size * self.epsilon)

    def _restart(self, codes):
        super()._restart(codes)
        self.sums.assign(codes)

    def _replace(self, codes, moved):
        super()._replace(codes, moved)
        old = ops.convert_to_tensor(self.sums)
        new = codes * ops.convert_to_tensor(self.counts)[:, None]
        self.sums.assign(ops.where(ops.expand_dims(moved, 1), new, old))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
