"""How a codebook is used: codes in use and perplexity over an epoch."""

import keras
import numpy as np
from keras import ops

from keras_vq.metrics.state import RunningSum, broadcast_weights


class CodeCounts(keras.metrics.Metric):
    """Base of the metrics that follow from how often each code was used.

    The counts are summed over all batches since `reset_state`, and over the
    replicas of a `tf.distribute` strategy, before anything is computed from
    them: the perplexity of an epoch is not the mean of the perplexities of its
    batches, which depends on the batch size. Subclasses define `result`.

    Args:
        codebook_size: int. The number of codes K.
        name: str. Name of the metric.
        dtype: Kept for Keras; counts and results are float32 in any case.
    """

    def __init__(self, codebook_size: int, name=None, dtype="float32"):
        super().__init__(name=name, dtype=dtype)
        if int(codebook_size) != codebook_size or codebook_size < 1:
            raise ValueError(
                "`codebook_size` must be a positive integer. "
                f"Received: codebook_size={codebook_size}"
            )
        self.codebook_size = int(codebook_size)
        self._counts = RunningSum(self, "counts", (self.codebook_size,))

    @property
    def counts(self):
        """How often each code was used so far, float32 of shape (K,)."""
        return self._counts.value()

    def update_state(self, indices, mask=None, sample_weight=None):
        """Counts the codes of one batch.

        Args:
            indices: Integers in [0, K) of any shape, usually (B, h, w) or
                (B, h, w, num_codebooks). Negative indices mark positions
                without a code and are not counted.
            mask: Optional booleans, True where a position counts. Its shape
                is that of `indices` or of its leading axes.
            sample_weight: Optional non-negative weights, shaped like `mask`;
                (B,) weighs whole images.

        Raises:
            ValueError: Where an index is K or larger. The values can be seen
                eagerly only: within a compiled function such indices are
                left out (TensorFlow's graphs on the CPU stop with an error).
        """
        indices = ops.convert_to_tensor(indices)
        dtype = keras.backend.standardize_dtype(indices.dtype)
        if "int" not in dtype:
            raise ValueError(
                "`indices` must be integers, as `model.encode` returns them. "
                f"Received: dtype={dtype}"
            )
        self._check_range(indices)
        weights = ops.cast(indices >= 0, "float32")
        for factor in (mask, sample_weight):
            if factor is not None:
                weights = weights * broadcast_weights(factor, indices)
        self._counts.add(
            ops.segment_sum(
                ops.reshape(weights, (-1,)),
                ops.reshape(ops.maximum(ops.cast(indices, "int32"), 0), (-1,)),
                num_segments=self.codebook_size,
            )
        )

    def _check_range(self, indices) -> None:
        try:
            # Not `ops.convert_to_numpy`, which warns about symbolic tensors.
            largest = np.max(np.asarray(indices), initial=-1)
        except (NotImplementedError, TypeError, ValueError):
            return  # symbolic: nothing to look at within a graph
        if largest >= self.codebook_size:
            raise ValueError(
                f"Expected indices below codebook_size={self.codebook_size}. "
                f"Received: largest index {largest}. Give the metric the "
                "`codebook_size` of the quantizer that made the indices."
            )

    def get_config(self):
        return {**super().get_config(), "codebook_size": self.codebook_size}


@keras.saving.register_keras_serializable(package="keras_vq")
class CodebookPerplexity(CodeCounts):
    """Perplexity of the codes that were used since the last reset.

    The perplexity is `exp(H)`, where `H` is the entropy (in nats) of the
    distribution of the codes: 1 if a single code is used, K if all K codes are
    used equally often. Its base-2 logarithm is the number of bits per code
    that an ideal entropy coder without context needs. 0 before any update.

    Args:
        codebook_size: int. The number of codes K.
        name: str. Name of the metric.
        dtype: Kept for Keras; counts and results are float32 in any case.

    Example:
    >>> metric = keras_vq.metrics.CodebookPerplexity(codebook_size=512)
    >>> metric.update_state(model.encode(images))
    >>> float(metric.result())
    """

    def __init__(self, codebook_size: int, name="perplexity", dtype="float32"):
        super().__init__(codebook_size, name=name, dtype=dtype)

    def result(self):
        counts = self.counts
        total = ops.sum(counts)
        probabilities = ops.divide_no_nan(counts, total)
        logarithms = ops.log(ops.where(counts > 0, probabilities, 1.0))
        perplexity = ops.exp(-ops.sum(probabilities * logarithms))
        return ops.where(total > 0, perplexity, 0.0)


@keras.saving.register_keras_serializable(package="keras_vq")
class CodesUsed(CodeCounts):
    """How many codes were used at least once since the last reset.

    Args:
        codebook_size: int. The number of codes K.
        name: str. Name of the metric.
        dtype: Kept for Keras; counts and results are float32 in any case.

    Example:
    >>> metric = keras_vq.metrics.CodesUsed(codebook_size=512)
    >>> metric.update_state(model.encode(images))
    >>> int(metric.result())
    """

    def __init__(self, codebook_size: int, name="codes_used", dtype="float32"):
        super().__init__(codebook_size, name=name, dtype=dtype)

    def result(self):
        return ops.sum(ops.cast(self.counts > 0, "float32"))
