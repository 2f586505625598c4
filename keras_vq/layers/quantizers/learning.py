"""How a codebook gets its codes: from data at the start, then step by step."""

import numpy as np
from keras import ops

from keras_vq.layers.quantizers.kmeans import kmeans, sample_rows
from keras_vq.layers.quantizers.revival import revive


class LearningMixin:
    """What changes the codebook of a `Quantizer`, all of it outside of calls.

    Subclasses say in `_update_codebook` how codes follow their latents; those
    that keep more of each code than itself and its count extend `_restart`
    and `_replace`.
    """

    def adapt(self, latents):
        """Starts the codebook from data, by k-means or from random latents.

        `VQAutoencoder.adapt(dataset)` calls this, and `fit` calls that when
        the codebook has no start values yet. Call it before the first step,
        outside of any compiled function.

        Args:
            latents: Float array or tensor of shape `(batch, ..., channels)`.
                20 to 100 latents per code are a good number.

        Raises:
            ValueError: If `latents` is empty or not finite.
        """
        if not self.built:
            self.build(np.shape(latents))
        vectors = self._finite_vectors(latents)
        if self.codebook_initializer == "data":
            codes = sample_rows(vectors, self.codebook_size, self.seed)
        else:
            codes = kmeans(
                vectors,
                self.codebook_size,
                seed=self.seed,
                spherical=self.l2_normalize,
            )
        self._restart(codes)
        self._initialized.assign(1.0)

    def _finite_vectors(self, latents) -> np.ndarray:
        """Latents as rows in the space of the codebook, which may get them."""
        vectors = ops.convert_to_numpy(self._to_codebook_space(latents))
        vectors = vectors.reshape(-1, self.codebook_dim)
        if not len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(
                f"Quantizer '{self.name}' takes codes from one or more finite "
                f"latents. Received: shape {tuple(np.shape(latents))}"
                + (", with NaN or infinite values" if len(vectors) else "")
            )
        return vectors

    def _restart(self, codes):
        """Makes `codes` the codebook, with no past."""
        self.codebook.assign(codes)
        self.counts.assign(ops.ones((self.codebook_size,)))

    def update(self, statistics: dict, step):
        """Takes one training step of what does not learn by gradient.

        Call once per optimizer step, outside of the gradient tape, with the
        statistics summed over all micro-batches and replicas. Does nothing
        while `trainable` is False.

        Args:
            statistics: Dict that calls with `training=True` returned, summed.
            step: Integer or integer tensor, number of the training step.
        """
        if not self.trainable:
            return
        self.counts.assign(
            self.decay * self.counts + (1 - self.decay) * statistics["counts"]
        )
        self._update_codebook(statistics)
        if self.revival_threshold:
            dead = self._dead_codes(self.revival_threshold)
            codes, moved = revive(
                ops.convert_to_tensor(self.codebook), dead, statistics, step
            )
            self._replace(codes, moved)

    def _update_codebook(self, statistics):
        """Moves the codes towards their latents (not those trained)."""

    def _replace(self, codes, moved):
        """Sets the codes where `moved`, as if they had been used normally."""
        self.codebook.assign(codes)
        counts = ops.convert_to_tensor(self.counts)
        self.counts.assign(ops.where(moved, ops.mean(counts), counts))

    def _dead_codes(self, threshold):
        return self.counts < threshold * ops.mean(self.counts)

    def revive(self, latents, threshold: float = 0.01) -> int:
        """Moves the codes that are hardly used onto latents, at once.

        For callbacks and by hand; during training, `revival_threshold` does
        the same at each step.

        Args:
            latents: Float array or tensor of shape `(batch, ..., channels)`.
            threshold: Float. Codes used less than this fraction of the mean
                are moved.

        Returns:
            Integer, how many codes were moved.

        Raises:
            ValueError: If `latents` is empty or not finite.
        """
        self._require_built()
        vectors = self._finite_vectors(latents)
        dead = ops.convert_to_numpy(self._dead_codes(threshold))
        count = int(dead.sum())
        if count:
            codes = ops.convert_to_numpy(self.codebook).copy()
            codes[dead] = sample_rows(vectors, count, self.seed)
            self._replace(ops.convert_to_tensor(codes), dead)
        return count
