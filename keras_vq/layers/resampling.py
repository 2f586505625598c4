"""VQGAN's convolutions that halve an image, or double it."""

import keras
from keras import ops

from keras_vq.layers.processor import tensorflow_on_processor

# Positions of the small image from which the doubling in one step pays.
_MIN_POSITIONS = 32 * 32


def torch_initializer():
    """PyTorch's kernels: uniform, up to 1 / sqrt(inputs of an output).

    The published networks started from it. One object serves one layer: it
    gives the same numbers each time.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class _ResamplingConv2D(keras.layers.Conv2D):
    """3x3 convolution whose kernel, strides and padding are given."""

    _strides = 1

    def __init__(self, filters, **kwargs):
        kwargs.setdefault("kernel_initializer", torch_initializer())
        super().__init__(
            filters,
            3,
            strides=self._strides,
            padding="same",
            data_format="channels_last",
            **kwargs,
        )

    def get_config(self):
        config = super().get_config()
        for name in ("kernel_size", "strides", "padding", "data_format"):
            del config[name]
        return config


@keras.saving.register_keras_serializable(package="keras_vq")
class DownsamplingConv2D(_ResamplingConv2D):
    """Halves the image: 3x3 convolution with strides of 2.

    One row of zeros is added at the bottom and one column on the right, for
    every size. `padding="same"` of Keras does so for even sizes only.

    Args:
        filters: Integer, number of output channels.
        **kwargs: Further arguments of `keras.layers.Conv2D`, but for
            `kernel_size`, `strides`, `padding` and `data_format`.

    Input shape: `(batch, height, width, channels)`; sides of 2 or more.

    Output shape: `(batch, height // 2, width // 2, filters)`.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), appendix A.
    """

    _strides = 2

    def convolution_op(self, inputs, kernel):
        padding = "same"
        if any(side is None or side % 2 for side in inputs.shape[1:3]):
            inputs = ops.pad(inputs, ((0, 0), (0, 1), (0, 1), (0, 0)))
            padding = "valid"
        return ops.conv(
            inputs,
            kernel,
            strides=2,
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def compute_output_shape(self, input_shape):
        sides = [side and side // 2 for side in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)


@keras.saving.register_keras_serializable(package="keras_vq")
class UpsamplingConv2D(_ResamplingConv2D):
    """Doubles the image: every pixel four times, then a 3x3 convolution.

    Of the nine pixels under the kernel at most four differ. For images of
    32x32 or more, TensorFlow on processors therefore takes a 2x2 convolution
    of the small image, with sums of the kernel's rows and columns, which gives
    all four pixels of a position at once: 16 products instead of 36, and the
    same result up to rounding.

    Args:
        filters: Integer, number of output channels.
        **kwargs: Further arguments of `keras.layers.Conv2D`, but for
            `kernel_size`, `strides`, `padding` and `data_format`.

    Input shape: `(batch, height, width, channels)`.

    Output shape: `(batch, 2 * height, 2 * width, filters)`.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), appendix A.
    """

    def convolution_op(self, inputs, kernel):
        # Measured on processors only, so graphics cards keep their kernels.
        if tensorflow_on_processor() and _is_large(inputs):
            return _double(inputs, kernel)
        inputs = ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2)
        return super().convolution_op(inputs, kernel)

    def compute_output_shape(self, input_shape):
        sides = [side and 2 * side for side in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)


def _is_large(inputs) -> bool:
    """Whether fewer products outweigh the sums of the kernel."""
    _, height, width, _ = inputs.shape
    # 16x16 was slower, 32x32 faster. Sizes that are not known may be small.
    return None not in (height, width) and height * width >= _MIN_POSITIONS


def _double(inputs, kernel):
    """Convolution of the doubled image, taken of the small one."""
    import tensorflow as tf

    kernel = tf.convert_to_tensor(kernel)
    channels, filters = kernel.shape[2:]
    # Positions t - 1 and t make pixels 2t - 1 and 2t. The first sees position
    # t - 1 through two rows of the kernel, the second sees t so.
    kernel = _pairs_of_sums(_pairs_of_sums(kernel, 0), 2)
    kernel = tf.transpose(kernel, (1, 3, 4, 0, 2, 5))
    kernel = tf.reshape(kernel, (2, 2, channels, 4 * filters))
    # Padding that the convolution adds by itself would leave its gradients to
    # slower kernels.
    inputs = tf.pad(inputs, _FRAME)
    outputs = tf.nn.conv2d(inputs, kernel, 1, "VALID")
    return _without_frame(tf.nn.depth_to_space(outputs, 2))


_FRAME = ((0, 0), (1, 1), (1, 1), (0, 0))


def _without_frame(images):
    """Leaves the outermost pixels away, with a faster gradient than slices."""
    import tensorflow as tf

    @tf.custom_gradient
    def cropped(images):
        return images[:, 1:-1, 1:-1], lambda upstream: tf.pad(upstream, _FRAME)

    return cropped(images)


def _pairs_of_sums(kernel, axis):
    """The axis of 3 becomes two: the pixel, and the position it sees."""
    first, second, third = ops.unstack(kernel, axis=axis)
    return ops.stack(
        [
            ops.stack([first + second, third], axis=axis),
            ops.stack([first, second + third], axis=axis),
        ],
        axis=axis,
    )
