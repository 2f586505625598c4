"""Batch normalization over all replicas, in one kernel where there is one."""

import keras


@keras.saving.register_keras_serializable(package="keras_vq")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the published networks' constants.

    Statistics are those of the whole batch over all replicas (only
    TensorFlow needs to be told; on JAX a batch is whole anyway). Keras takes
    them with a chain of operations, which is three times as slow as
    TensorFlow's fused kernel; with a single replica both give the same
    numbers, so the kernel is used.

    Args:
        momentum: Float, how much of the moving statistics a step keeps.
        epsilon: Float, added to the variance.
        **kwargs: Further arguments of `keras.layers.BatchNormalization`,
            without `synchronized`.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(
            momentum=momentum,
            epsilon=epsilon,
            synchronized=keras.backend.backend() == "tensorflow",
            **kwargs,
        )

    def call(self, inputs, training=None, mask=None):
        if not (
            training and self.trainable and self._fits_kernel(inputs, mask)
        ):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel's variance is the unbiased one; Keras keeps the biased.
        # Of a single value the kernel gives the biased one, 0, too.
        count = tf.cast(tf.size(inputs) / tf.size(mean), variance.dtype)
        variance *= tf.maximum(count - 1, 1) / tf.maximum(count, 1)
        rest = 1 - self.momentum
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * rest)
        self.moving_variance.assign(
            self.moving_variance * self.momentum + variance * rest
        )
        return outputs

    def _fits_kernel(self, inputs, mask) -> bool:
        if keras.backend.backend() != "tensorflow" or mask is not None:
            return False
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        return (
            replica is not None
            and replica.num_replicas_in_sync == 1
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.center
            and self.scale
            and not self.renorm
            and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16)
        )

    def get_config(self):
        # Left out, so that a file loads on every backend.
        config = super().get_config()
        del config["synchronized"]
        return config
