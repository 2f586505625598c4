"""Group normalization and swish, with a gradient that takes fewer passes."""

import keras
from keras import ops

from keras_vq.layers.processor import tensorflow_on_processor
from keras_vq.layers.whole_image import current_tiles


def normalized_swish(norm, inputs):
    """Swish of the normalized inputs: `silu(norm(inputs))`.

    On processors these are passes over memory, and they are what takes time
    besides the convolutions. The gradient of the two layers keeps two tensors
    of the inputs' size and passes over about thirty; this one keeps none and
    computes what it needs from the inputs, in about half of the time.

    Args:
        norm: A `GroupNormalization` that has been built.
        inputs: Tensor of shape `(batch, height, width, channels)`.

    Returns:
        Tensor like `inputs`.
    """
    if not _in_few_passes(norm, inputs):
        return ops.silu(norm(inputs))
    import tensorflow as tf

    shape = ops.shape(inputs)
    x = ops.reshape(inputs, (shape[0], -1, shape[-1]))
    gamma, beta = (
        tf.reshape(tf.convert_to_tensor(weight), (1, 1, -1))
        for weight in (norm.gamma, norm.beta)
    )
    function = tf.custom_gradient(_Function(norm.groups, norm.epsilon).outputs)
    return ops.reshape(function(x, gamma, beta), shape)


def _in_few_passes(norm, inputs) -> bool:
    """Whether this is measured to be faster, and does the same."""
    return (
        tensorflow_on_processor()
        and norm.scale
        and norm.center
        and norm.compute_dtype == "float32"
        and keras.backend.standardize_dtype(inputs.dtype) == "float32"
        and not current_tiles()
    )


class _Function:
    """Normalization and swish of `(batch, positions, channels)`."""

    def __init__(self, groups, epsilon):
        self.groups = groups
        self.epsilon = epsilon

    def outputs(self, x, gamma, beta):
        import tensorflow as tf

        mean = self._of_groups(_mean(x))
        variance = self._of_groups(_mean(tf.math.squared_difference(x, mean)))
        inverse = tf.math.rsqrt(variance + self.epsilon)
        scale = inverse * gamma
        shift = beta - mean * scale
        normalized = x * scale + shift

        def gradients(upstream):
            # Bound to the backward pass: TensorFlow would see that it has been
            # computed before, and keep that instead.
            with tf.control_dependencies([upstream]):
                normalized = x * scale + shift
            sigmoid = tf.sigmoid(normalized)
            # Of what was normalized, scaled and shifted.
            slope = upstream * sigmoid + tf.raw_ops.SigmoidGrad(
                y=sigmoid, dy=upstream * normalized
            )
            # Means over positions: of it, and of it times (x - mean) / std.
            first = _mean(slope)
            second = (_mean(slope * x) - mean * first) * inverse
            at_x = -inverse * inverse * self._of_groups(second * gamma)
            at_one = -inverse * self._of_groups(first * gamma) - mean * at_x
            dx = slope * scale + (x * at_x + at_one)
            count = tf.cast(tf.shape(x)[1], x.dtype)
            dgamma, dbeta = (
                count * tf.reduce_sum(means, axis=0, keepdims=True)
                for means in (second, first)
            )
            return dx, dgamma, dbeta

        return normalized * tf.sigmoid(normalized), gradients

    def _of_groups(self, means):
        """Means of each group, for each of its channels."""
        import tensorflow as tf

        size = means.shape[-1] // self.groups
        grouped = tf.reshape(means, (-1, 1, self.groups, size))
        grouped = tf.reduce_mean(grouped, axis=-1, keepdims=True)
        return tf.reshape(tf.repeat(grouped, size, axis=-1), tf.shape(means))


def _mean(x):
    """Means over positions: on processors fastest as a product with ones."""
    import tensorflow as tf

    count = tf.shape(x)[1]
    return tf.matmul(tf.ones((1, 1, count)), x) / tf.cast(count, x.dtype)
