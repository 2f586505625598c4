"""Group normalization that can be differentiated twice."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vq")
class GroupNormalization(keras.layers.GroupNormalization):
    """Group normalization whose gradients have right gradients of their own.

    `keras.layers.GroupNormalization` takes the variance from TensorFlow's
    `tf.nn.moments`, which treats the mean in it as a constant. The gradient
    is right all the same, but the gradient of a gradient, as a gradient
    penalty needs, is not. Arguments, weights and results are those of Keras;
    channels come last.

    Args:
        groups: Integer, number of groups, a divisor of the channels.
        epsilon: Float, added to the variance.
        **kwargs: Further arguments of `keras.layers.GroupNormalization`.
    """

    def __init__(self, groups=32, epsilon=1e-5, **kwargs):
        super().__init__(groups=groups, epsilon=epsilon, **kwargs)

    def call(self, inputs):
        shape = ops.shape(inputs)
        x = ops.cast(inputs, "float32")
        grouped = ops.reshape(
            x, (shape[0], -1, self.groups, shape[-1] // self.groups)
        )
        centered = grouped - ops.mean(grouped, axis=(1, 3), keepdims=True)
        variance = ops.mean(ops.square(centered), axis=(1, 3), keepdims=True)
        x = ops.reshape(centered * ops.rsqrt(variance + self.epsilon), shape)
        if self.scale:
            x = x * ops.cast(self.gamma, "float32")
        if self.center:
            x = x + ops.cast(self.beta, "float32")
        return ops.cast(x, self.compute_dtype)
