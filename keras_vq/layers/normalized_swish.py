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

    shape, positions = _shape_and_positions(inputs)
    function = _Function(norm.groups, norm.epsilon, positions)
    outputs = tf.custom_gradient(function.outputs)(
        tf.reshape(inputs, (-1, positions, inputs.shape[-1])),
        tf.convert_to_tensor(norm.gamma),
        tf.convert_to_tensor(norm.beta),
    )
    return tf.reshape(outputs, shape)


def _shape_and_positions(inputs):
    """A shape to go back to, and the number of positions of an image.

    Of Python's integers where they are known: a network has dozens of these,
    and what is known takes no operations.
    """
    import tensorflow as tf

    batch, height, width, channels = inputs.shape
    if None in (height, width):
        shape = tf.shape(inputs)
        return shape, shape[1] * shape[2]
    return (-1, height, width, channels), height * width


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

    def __init__(self, groups, epsilon, positions):
        self.groups = groups
        self.epsilon = epsilon
        self.positions = positions

    def outputs(self, x, gamma, beta):
        import tensorflow as tf

        count = tf.cast(self.positions, x.dtype)
        # Means over positions are fastest as a product with this.
        average = tf.fill((1, 1, self.positions), 1 / count)
        mean = self._of_groups(average @ x)
        variance = tf.math.squared_difference(x, mean)
        variance = self._of_groups(average @ variance)
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
            first = average @ slope
            second = (average @ (slope * x) - mean * first) * inverse
            at_x = -inverse * inverse * self._of_groups(second * gamma)
            at_one = -inverse * self._of_groups(first * gamma) - mean * at_x
            dx = slope * scale + (x * at_x + at_one)
            dgamma, dbeta = (
                count * tf.reduce_sum(means, axis=(0, 1))
                for means in (second, first)
            )
            return dx, dgamma, dbeta

        return normalized * tf.sigmoid(normalized), gradients

    def _of_groups(self, means):
        """Means of each group, for each of its channels."""
        import tensorflow as tf

        channels = means.shape[-1]
        size = channels // self.groups
        means = tf.reshape(means, (-1, 1, self.groups, size))
        means = tf.reduce_mean(means, axis=-1, keepdims=True)
        means = means * tf.ones((size,), means.dtype)
        return tf.reshape(means, (-1, 1, channels))
