"""Group normalization by sums over positions, one for each channel."""

import keras
from keras import ops

from keras_vq.layers.processor import tensorflow_on_processor
from keras_vq.layers.whole_image import current_tiles


@keras.saving.register_keras_serializable(package="keras_vq")
class GroupNormalization(keras.layers.GroupNormalization):
    """Group normalization with the published networks' constants.

    Statistics are float32 under every policy. They come from sums over
    positions, one for each channel, which on processors are products with a
    vector of ones. Channels come last.

    Its gradients have right gradients of their own, as a gradient penalty
    needs. `keras.layers.GroupNormalization` takes the variance from
    `tf.nn.moments`, which treats the mean in it as a constant: right in the
    first gradient and wrong in the second.

    Args:
        groups: Integer, number of groups, a divisor of the channels.
        epsilon: Float, added to the variance.
        **kwargs: Further arguments of `keras.layers.GroupNormalization`.
    """

    def __init__(self, groups=32, epsilon=1e-6, **kwargs):
        super().__init__(groups=groups, epsilon=epsilon, **kwargs)

    def call(self, inputs):
        shape = ops.shape(inputs)
        x = ops.cast(inputs, "float32")
        x = ops.reshape(x, (shape[0], -1, shape[-1]))
        if tiles := current_tiles():
            mean, variance = tiles.moments(self._moments, x, shape[1:-1])
        else:
            mean, variance = self._moments(x)
        scale = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            scale = scale * ops.cast(self.gamma, "float32")
        shift = -mean * scale
        if self.center:
            shift = shift + ops.cast(self.beta, "float32")
        x = ops.reshape(x * scale + shift, shape)
        return ops.cast(x, self.compute_dtype)

    def _moments(self, x, weights=None):
        """Mean and variance of each group, as (batch, 1, channels)."""
        mean = self._group_means(x, weights)
        return mean, self._group_means(ops.square(x - mean), weights)

    def _group_means(self, x, weights):
        """Means of each group, as (batch, 1, channels)."""
        if weights is not None:
            means = ops.matmul(weights, x)
        elif tensorflow_on_processor():
            ones = ops.transpose(ops.ones_like(x[:1, :, :1]), (0, 2, 1))
            means = ops.matmul(ones, x) / ops.cast(ops.shape(x)[1], "float32")
        else:
            means = ops.mean(x, axis=1, keepdims=True)
        size = x.shape[-1] // self.groups
        means = ops.reshape(means, (-1, 1, self.groups, size))
        means = ops.mean(means, axis=-1, keepdims=True)
        means = ops.broadcast_to(means, (ops.shape(x)[0], 1, self.groups, size))
        return ops.reshape(means, (-1, 1, x.shape[-1]))
