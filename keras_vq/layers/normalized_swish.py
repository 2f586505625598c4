"""Group normalization and swish, with a gradient that takes fewer passes."""

import functools

import keras
from keras import ops

from keras_vq.layers.processor import tensorflow_on_processor, xla_is_allowed
from keras_vq.layers.whole_image import current_tiles

# Numbers of an image from which XLA's fused passes are worth their half second
# of compiling: 64x64 pixels of 256 channels.
_MIN_SIZE_FOR_XLA = 2**20


def normalized_swish(norm, inputs):
    """Swish of the normalized inputs: `silu(norm(inputs))`.

    On processors these are passes over memory, and they are what takes time
    besides the convolutions. The gradient of the two layers keeps two tensors
    of the inputs' size and passes over about thirty; this one keeps none and
    computes what it needs from the inputs, in about half of the time. Large
    images, whose size is known, leave it to XLA to fuse the passes, which
    halves the time again.

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
    channels = inputs.shape[-1]
    function = _function(
        norm.groups, norm.epsilon, _is_for_xla(positions, channels)
    )
    outputs = tf.custom_gradient(function.with_gradients)(
        tf.reshape(inputs, (-1, positions, channels)),
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


def _is_for_xla(positions, channels) -> bool:
    return (
        isinstance(positions, int)
        and positions * channels >= _MIN_SIZE_FOR_XLA
        and xla_is_allowed()
    )


@functools.cache
def _function(groups, epsilon, xla):
    """One for all layers, so that each size is compiled once."""
    return _Function(groups, epsilon, xla)


class _Function:
    """Normalization and swish of `(batch, positions, channels)`."""

    def __init__(self, groups, epsilon, xla):
        import tensorflow as tf

        self.groups = groups
        self.epsilon = epsilon
        self.xla = xla
        if xla:
            self._outputs = tf.function(self._outputs, jit_compile=True)
            self._gradients = tf.function(self._gradients, jit_compile=True)

    def with_gradients(self, x, gamma, beta):
        """For `tf.custom_gradient`."""
        import tensorflow as tf

        outputs, mean, inverse = self._outputs(x, gamma, beta)

        def gradients(upstream):
            # Bound to the backward pass: TensorFlow would see that part of it
            # has been computed before, and keep that instead.
            with tf.control_dependencies([upstream]):
                return self._gradients(x, gamma, beta, mean, inverse, upstream)

        return outputs, gradients

    def _outputs(self, x, gamma, beta):
        import tensorflow as tf

        mean = self._of_groups(self._means(x))
        variance = tf.math.squared_difference(x, mean)
        variance = self._of_groups(self._means(variance))
        inverse = tf.math.rsqrt(variance + self.epsilon)
        normalized = _normalized(x, gamma, beta, mean, inverse)
        return normalized * tf.sigmoid(normalized), mean, inverse

    def _gradients(self, x, gamma, beta, mean, inverse, upstream):
        import tensorflow as tf

        normalized = _normalized(x, gamma, beta, mean, inverse)
        sigmoid = tf.sigmoid(normalized)
        # Of what was normalized, scaled and shifted.
        slope = upstream * sigmoid + tf.raw_ops.SigmoidGrad(
            y=sigmoid, dy=upstream * normalized
        )
        # Means over positions: of it, and of it times (x - mean) / std.
        first = self._means(slope)
        second = (self._means(slope * x) - mean * first) * inverse
        at_x = -inverse * inverse * self._of_groups(second * gamma)
        at_one = -inverse * self._of_groups(first * gamma) - mean * at_x
        dx = slope * (inverse * gamma) + (x * at_x + at_one)
        count = tf.cast(_positions(x), x.dtype)
        dgamma, dbeta = (
            count * tf.reduce_sum(means, axis=(0, 1))
            for means in (second, first)
        )
        return dx, dgamma, dbeta

    def _means(self, x):
        """Means over positions, as (batch, 1, channels)."""
        import tensorflow as tf

        if self.xla:
            return tf.reduce_mean(x, axis=1, keepdims=True)
        # Outside of XLA they are fastest as a product.
        count = _positions(x)
        average = tf.fill((1, 1, count), 1 / tf.cast(count, x.dtype))
        return average @ x

    def _of_groups(self, means):
        """Means of each group, for each of its channels."""
        import tensorflow as tf

        channels = means.shape[-1]
        size = channels // self.groups
        means = tf.reshape(means, (-1, 1, self.groups, size))
        means = tf.reduce_mean(means, axis=-1, keepdims=True)
        means = means * tf.ones((size,), means.dtype)
        return tf.reshape(means, (-1, 1, channels))


def _positions(x):
    import tensorflow as tf

    return tf.shape(x)[1] if x.shape[1] is None else x.shape[1]


def _normalized(x, gamma, beta, mean, inverse):
    scale = inverse * gamma
    return x * scale + (beta - mean * scale)
