"""Batch normalization over all replicas, in one kernel where there is one."""

import contextlib
import contextvars

import keras
from keras import ops

_present = contextvars.ContextVar("keras_vq_images_present", default=None)


@contextlib.contextmanager
def images_present(present):
    """Layers called in here take their inputs for images, or for none.

    A replica or a micro-batch without images computes on a stand-in, since
    convolutions fail on an empty batch. A loss can leave it out by its weight;
    moments over the whole batch have to be told.

    Args:
        present: Boolean scalar, whether the inputs belong to images. A tensor,
            as TensorFlow knows it only when a step runs.
    """
    token = _present.set(present)
    try:
        yield
    finally:
        _present.reset(token)


@keras.saving.register_keras_serializable(package="keras_vq")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the published networks' constants.

    Statistics are those of the whole batch over all replicas (only
    TensorFlow needs to be told; on JAX a batch is whole anyway). Keras takes
    them with a chain of operations, which is three times as slow as
    TensorFlow's fused kernel; with a single replica both give the same
    numbers, so the kernel is used.

    In training, a replica or a micro-batch that is left without images has no
    part in the statistics, nor a gradient through them. Keras' own layer
    takes in the grey image which stands there instead.

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
        present = _present.get()
        if training and self.trainable and mask is None:
            if self._fits_kernel(inputs):
                return self._in_kernel(inputs, present)
            if present is not None and not self.renorm:
                return self._over_present(inputs, present)
        return super().call(inputs, training=training, mask=mask)

    def _in_kernel(self, inputs, present):
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
        self._follow(mean, variance, present)
        return outputs

    def _over_present(self, inputs, present):
        """What Keras computes, from the replicas that have images."""
        import tensorflow as tf

        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean, variance, any_present = self._moments_over_present(x, present)
        self._follow(mean, variance, any_present)
        # The stand-in by itself: what others make of their images could make
        # it overflow, and a share of 0 would turn that into NaN.
        mean = tf.where(present, mean, 0.0)
        variance = tf.where(present, variance, 1.0)
        gamma, beta = (
            None if weight is None else ops.cast(weight, x.dtype)
            for weight in (self.gamma, self.beta)
        )
        outputs = ops.batch_normalization(
            x, mean, variance, self.axis, beta, gamma, self.epsilon
        )
        return ops.cast(outputs, self.compute_dtype)

    def _moments_over_present(self, x, present):
        """Mean and variance over all replicas; whether any has images."""
        import tensorflow as tf

        axes = [i for i in range(x.ndim) if i != self.axis % x.ndim]
        count = tf.size(x) // tf.shape(x)[self.axis]
        sums = tf.concat(
            [
                tf.reduce_sum(x, axes),
                tf.reduce_sum(tf.square(x), axes),
                tf.cast(count, x.dtype)[None],
            ],
            axis=0,
        )
        # A choice, not a product: its gradient is 0 even for an infinite one.
        sums = tf.where(present, sums, 0.0)
        replica = tf.distribute.get_replica_context()
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        mean, mean_of_squares = tf.split(
            sums[:-1] / tf.maximum(sums[-1], 1.0), 2
        )
        variance = tf.maximum(mean_of_squares - tf.square(mean), 0.0)
        return mean, variance, sums[-1] > 0

    def _follow(self, mean, variance, present):
        """Moves the moving statistics, if there are any images at all."""
        rest = 1 - self.momentum
        if present is not None:
            rest = ops.where(present, rest, 0.0)
            rest = ops.cast(rest, self.moving_mean.dtype)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            value = ops.cast(value, moving.dtype)
            moving.assign(moving * (1 - rest) + value * rest)

    def _fits_kernel(self, inputs) -> bool:
        if keras.backend.backend() != "tensorflow":
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
