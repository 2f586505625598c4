"""Convolution whose kernel is divided by its largest singular value."""

import keras
import numpy as np
from keras import ops

from keras_vq.layers.convolution import PaddedConv2D

_START_ITERATIONS = 15
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_vq")
class SpectralConv2D(PaddedConv2D):
    """2-D convolution with spectral normalization.

    The kernel, as a matrix of `filters` rows, is divided by an estimate of
    its largest singular value. Power iteration keeps the estimate's two
    vectors, and `update` takes a step of it.

    A call only computes. `keras.layers.SpectralNormalization` iterates within
    the call and overwrites the kernel there, so that micro-batches of one step
    see different networks. Here the trainer calls `update` once per step,
    outside of the gradient tape, as it does for quantizers: it depends on
    nothing but the kernel, so all replicas come to the same. Without `update`
    (in plain `fit`) the estimate stays where it was.

    Args:
        filters: Integer, number of output channels.
        kernel_size: Integer or pair, height and width of the kernel.
        pad: Integer >= 0, rows and columns of zeros added on each side.
        **kwargs: Further arguments of `keras_vq.layers.PaddedConv2D`.

    Reference:
        [Miyato et al., 2018](https://arxiv.org/abs/1802.05957), algorithm 1.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.u = self._add_vector("u", self.filters, 0)
        self.v = self._add_vector("v", np.prod(self._kernel.shape[:-1]), 1)

    def _add_vector(self, name, length, position):
        def start(shape, dtype=None):
            del shape
            matrix = ops.convert_to_numpy(self._kernel)
            matrix = matrix.reshape(-1, self.filters)
            v = np.random.default_rng(0).normal(size=len(matrix))
            vectors = _iterate(matrix, v, _START_ITERATIONS, np)
            return ops.convert_to_tensor(vectors[position], dtype or "float32")

        return self.add_weight(
            name=name,
            shape=(int(length),),
            initializer=start,
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def convolution_op(self, inputs, kernel):
        kernel32 = ops.cast(kernel, "float32")
        # The vectors are constants to the gradient; the kernel is not.
        product = ops.matmul(
            ops.convert_to_tensor(self.v), self._matrix(kernel32)
        )
        sigma = ops.sum(product * ops.convert_to_tensor(self.u))
        kernel = ops.cast(kernel32 / sigma, kernel.dtype)
        return super().convolution_op(inputs, kernel)

    def update(self, iterations: int = 1):
        """Takes steps of the power iteration.

        Call it once per optimizer step, outside of the gradient tape. After
        kernels were loaded without their vectors, `update(15)` finds these.
        Does nothing while `trainable` is False.

        Args:
            iterations: Integer >= 1.
        """
        if not self.trainable:
            return
        matrix = self._matrix(ops.convert_to_tensor(self._kernel))
        u, v = _iterate(matrix, ops.convert_to_tensor(self.v), iterations)
        self.u.assign(u)
        self.v.assign(v)

    # Keras' convolutions store kernel and bias, and nothing else.

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.built:
            store["u"], store["v"] = self.u, self.v

    def load_own_variables(self, store):
        super().load_own_variables(store)
        if self.built:
            self.u.assign(store["u"])
            self.v.assign(store["v"])

    def _matrix(self, kernel):
        return ops.reshape(kernel, (-1, self.filters))


def _iterate(matrix, v, iterations, backend=ops):
    for _ in range(iterations):
        u = _unit(backend.matmul(v, matrix), backend)
        v = _unit(backend.matmul(matrix, u), backend)
    return u, v


def _unit(vector, backend):
    norm = backend.sqrt(backend.sum(backend.square(vector)))
    return vector / backend.maximum(norm, _EPSILON)
