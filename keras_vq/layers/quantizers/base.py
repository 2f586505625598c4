"""What all quantizers have in common."""

import math

import keras
import numpy as np
from keras import ops

from keras_vq.layers.quantizers.learning import LearningMixin
from keras_vq.layers.quantizers.nearest_code import nearest_code
from keras_vq.layers.quantizers.revival import MAX_CANDIDATES, candidate_table
from keras_vq.layers.quantizers.vectors import (
    check_indices,
    check_mask,
    mean_over_positions,
    squared_error,
    unit_length,
)

_FROM_DATA = ("kmeans", "data")


class Quantizer(LearningMixin, keras.layers.Layer):
    """Base of the quantizers that replace a latent by its nearest code.

    Subclasses say how the codebook learns; everything else is here.

    A call only computes: it assigns no variable and adds no loss, because
    both go wrong, without an error, under several replicas, gradient
    accumulation, or a second forward pass. It returns the losses and the
    statistics instead, and `update` takes the (summed) statistics once per
    training step. `keras_vq.models.VQAutoencoder` does all that. A quantizer
    in a plain functional model therefore does **not** train by itself: put
    your networks into `VQAutoencoder(encoder, quantizer, decoder)`.

    Args:
        codebook_size: Integer, number of codes (K).
        codebook_dim: Integer, length of a code. Latents with another number
            of channels are projected to it linearly, and back afterwards: a
            low `codebook_dim` (such as 8) keeps large codebooks in use.
        codebook_initializer: `"kmeans"` or `"data"` (the codebook starts from
            the latents that `adapt` is given), or a Keras initializer.
        l2_normalize: Whether latents and codes are scaled to unit length, so
            that the nearest code is the one with the largest cosine
            similarity.
        decay: Float in [0, 1), decay of the moving average of code usage.
        revival_threshold: Float >= 0. A code whose moving average of uses
            falls below this fraction of the mean over all codes is dead and
            moved onto a latent of the batch. 0 switches revival off.
        seed: Integer seed of k-means and of the choice of revived codes.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        latents: Float tensor of shape `(batch, ..., channels)` with any
            number of axes between.
        mask: Optional boolean tensor of shape `(batch, ...)`, False where a
            position is padding: it counts in no loss and no statistic.
        training: Whether to return statistics.

    Returns:
        Dict of

        - `quantized`: tensor like `latents` in the compute dtype, whose
            gradient is passed straight through to `latents`;
        - `indices`: int32 tensor of shape `(batch, ...)`;
        - `losses`: dict of float32 scalars, means over the batch, unweighted:
            `commitment`, and `codebook` where the codebook learns by
            gradient. With a mask, the mean over the valid positions of each
            example, then over the examples;
        - `statistics`: only when training, dict of float32 tensors that add
            up over calls, for `update`.
    """

    # Whether the codebook is a trainable variable.
    _codebook_is_trained = False

    def __init__(
        self,
        codebook_size: int = 512,
        codebook_dim: int = 64,
        codebook_initializer="kmeans",
        l2_normalize: bool = False,
        decay: float = 0.99,
        revival_threshold: float = 0.01,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= decay < 1:
            raise ValueError(
                "`decay` must lie in [0, 1), such as 0.99. "
                f"Received: decay={decay}"
            )
        if revival_threshold < 0:
            raise ValueError(
                "`revival_threshold` must not be negative (0 switches revival "
                f"off). Received: revival_threshold={revival_threshold}"
            )
        self.codebook_size = _positive("codebook_size", codebook_size)
        self.codebook_dim = _positive("codebook_dim", codebook_dim)
        if codebook_initializer not in _FROM_DATA:
            codebook_initializer = _initializer(codebook_initializer)
        self.codebook_initializer = codebook_initializer
        self.l2_normalize = l2_normalize
        self.decay = decay
        self.revival_threshold = revival_threshold
        self.seed = seed
        self.supports_masking = True

    # Structure

    @property
    def num_codebooks(self) -> int:
        """Number of indices per position."""
        return 1

    # Not a property: Keras looks for weights in every one.
    def levels(self) -> list:
        """The quantizers, coarse to fine, where there are several: this."""
        return [self]

    @property
    def bits_per_position(self) -> float:
        """Bits that the indices of one position take, without coding."""
        return self.num_codebooks * math.log2(self.codebook_size)

    def indices_shape(self, rank: int) -> tuple:
        """Shape of the indices of latents with `rank` axes, sizes unknown."""
        codebooks = (self.num_codebooks,) if self.num_codebooks > 1 else ()
        return (None,) * (rank - 1) + codebooks

    def count_used_params(self) -> int:
        """Number of parameters that encoding and decoding take."""
        layers = self._flatten_layers(include_self=False, recursive=False)
        codebook = math.prod(self.codebook.shape)
        return codebook + sum(layer.count_params() for layer in layers)

    def most_frequent_code(self):
        """Index of the code that was used most in training, int32 scalar."""
        return ops.cast(ops.argmax(self.counts), "int32")

    @property
    def initialized(self) -> bool:
        """Whether the codebook has its start values (see `adapt`)."""
        if not self.built:
            return False
        return bool(ops.convert_to_numpy(self._initialized))

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "The latents of a quantizer need a known number of channels. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.channels = channels
        self.project_in = self.project_out = None
        if channels != self.codebook_dim:
            dim = self.codebook_dim
            self.project_in = self._projection("project_in", channels, dim)
            self.project_out = self._projection("project_out", dim, channels)
        self.codebook = self._add_state(
            "codebook",
            (self.codebook_size, self.codebook_dim),
            self._start_values(),
            trainable=self._codebook_is_trained,
        )
        self.counts = self._add_state("counts", (self.codebook_size,), "ones")
        waits_for_data = self.codebook_initializer in _FROM_DATA
        self._initialized = self._add_state(
            "initialized", (), "zeros" if waits_for_data else "ones"
        )

    def _projection(self, name, inputs, outputs):
        layer = keras.layers.Dense(
            outputs,
            name=name,
            dtype=self.dtype_policy,
            # A quantizer that is loaded frozen is frozen before it is built.
            trainable=self.trainable,
        )
        layer.build((None, inputs))
        return layer

    def _start_values(self):
        if self.codebook_initializer not in _FROM_DATA:
            return self.codebook_initializer
        limit = 1.0 / self.codebook_size
        return keras.initializers.RandomUniform(-limit, limit, seed=self.seed)

    def _add_state(self, name, shape, initializer, trainable=False):
        # float32 under every policy: in bfloat16 close codes become equal and
        # running sums stop growing.
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=trainable,
            dtype="float32",
            autocast=False,
        )

    # Computation

    def call(self, latents, mask=None, training=None):
        vectors = self._to_codebook_space(latents)
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            check_mask(mask, vectors.shape[:-1])
        flat = ops.reshape(vectors, (-1, self.codebook_dim))
        codebook = self._codes()
        flat_indices = nearest_code(flat, codebook)
        shape = ops.shape(vectors)
        indices = ops.reshape(flat_indices, shape[:-1])
        codes = ops.reshape(ops.take(codebook, flat_indices, axis=0), shape)
        # z + (q - z) would round; this is exactly q, with the gradient of z.
        straight_through = ops.stop_gradient(codes) + (
            vectors - ops.stop_gradient(vectors)
        )
        output = {
            "quantized": self._from_codebook_space(straight_through),
            "indices": indices,
            "losses": {
                name: mean_over_positions(error, mask)
                for name, error in self._errors(vectors, codes).items()
            },
        }
        if training:
            valid = None
            if mask is not None:
                valid = ops.reshape(ops.cast(mask, "float32"), (-1,))
            output["statistics"] = self._statistics(
                ops.stop_gradient(flat), flat_indices, valid
            )
        return output

    def _errors(self, vectors, codes) -> dict:
        """Squared error of each loss term at each position."""
        return {"commitment": squared_error(vectors, ops.stop_gradient(codes))}

    def _statistics(self, vectors, indices, valid) -> dict:
        """What `update` needs, as sums over this call."""
        ones = ops.ones_like(vectors[:, 0]) if valid is None else valid
        statistics = {"counts": self._sum_by_code(ones, indices)}
        if self.revival_threshold:
            rows = min(self.codebook_size, MAX_CANDIDATES)
            statistics |= candidate_table(vectors, valid, rows, self.seed)
        return statistics

    def _sum_by_code(self, values, indices):
        return ops.segment_sum(values, indices, num_segments=self.codebook_size)

    def _codes(self):
        codebook = ops.convert_to_tensor(self.codebook)
        return unit_length(codebook) if self.l2_normalize else codebook

    def _to_codebook_space(self, latents):
        latents = ops.convert_to_tensor(latents)
        if latents.shape[-1] != self.channels:
            raise ValueError(
                f"Quantizer '{self.name}' was built for latents of "
                f"{self.channels} channels in the last axis. "
                f"Received: shape {tuple(latents.shape)}"
            )
        # As a call does: `encode` must not find other codes than it.
        latents = ops.cast(latents, self.compute_dtype)
        if self.project_in is not None:
            latents = self.project_in(latents)
        vectors = ops.cast(latents, "float32")
        return unit_length(vectors) if self.l2_normalize else vectors

    def _from_codebook_space(self, codes):
        codes = ops.cast(codes, self.compute_dtype)
        return codes if self.project_out is None else self.project_out(codes)

    def compute_mask(self, inputs, previous_mask):
        # The outputs are a dict, of which a mask can follow no single one.
        return None

    # Codes without the rest

    def encode(self, latents):
        """Indices of the nearest codes.

        Args:
            latents: Float tensor of shape `(batch, ..., channels)`.

        Returns:
            int32 tensor of shape `(batch, ...)`.
        """
        self._require_built()
        vectors = self._to_codebook_space(latents)
        indices = nearest_code(
            ops.reshape(vectors, (-1, self.codebook_dim)), self._codes()
        )
        return ops.reshape(indices, ops.shape(vectors)[:-1])

    def decode(self, indices):
        """Vectors of the given codes, equal to `quantized` of a call.

        Args:
            indices: Integer tensor of shape `(batch, ...)`, values in
                `[0, codebook_size)`.

        Returns:
            Tensor of shape `(batch, ..., channels)` in the compute dtype.

        Raises:
            ValueError: If the indices are no integers, or (outside of
                compiled functions, where values cannot be looked at) lie
                outside of the codebook.
        """
        self._require_built()
        indices = ops.convert_to_tensor(indices)
        check_indices(indices, self.codebook_size)
        # Codes are often kept as uint8 or uint16, which `take` refuses.
        indices = ops.cast(indices, "int32")
        return self._from_codebook_space(
            ops.take(self._codes(), indices, axis=0)
        )

    def _require_built(self):
        if not self.built:
            raise ValueError(
                f"Quantizer '{self.name}' has no codebook yet. Call it on "
                "latents, or `build(latents_shape)`, first."
            )

    def get_config(self):
        initializer = self.codebook_initializer
        if initializer not in _FROM_DATA:
            initializer = keras.initializers.serialize(initializer)
        return {
            **super().get_config(),
            "codebook_size": self.codebook_size,
            "codebook_dim": self.codebook_dim,
            "codebook_initializer": initializer,
            "l2_normalize": self.l2_normalize,
            "decay": self.decay,
            "revival_threshold": self.revival_threshold,
            "seed": self.seed,
        }


def _initializer(identifier):
    try:
        return keras.initializers.get(identifier)
    except ValueError as error:
        raise ValueError(
            '`codebook_initializer` must be "kmeans", "data" or a Keras '
            f"initializer. Received: codebook_initializer={identifier!r}"
        ) from error


def _positive(name, value) -> int:
    # NumPy's integers too, but they have no place in a configuration.
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)
