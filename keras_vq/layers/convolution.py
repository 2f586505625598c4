"""Convolutions: padding that depends on no size, images made faster."""

import keras
from keras import ops

from keras_vq.layers import kernel_gradient


@keras.saving.register_keras_serializable(package="keras_vq")
class PaddedConv2D(keras.layers.Conv2D):
    """2-D convolution that pads the same amount on every side.

    `padding="same"` of Keras pads as much as the input's size demands, and
    puts the odd pixel at the bottom and on the right: a strided convolution
    then sees other pixels in an image of odd size than the published networks
    do, which pad every side alike. This layer always pads `pad` rows and
    columns of zeros on each side, so that weights carry over for all sizes.

    Args:
        filters: Integer, number of output channels.
        kernel_size: Integer or pair, height and width of the kernel.
        pad: Integer >= 0, rows and columns of zeros added on each side.
        **kwargs: Further arguments of `keras.layers.Conv2D`, but for `padding`
            and `data_format` (images are NHWC everywhere in this package).

    Input shape: `(batch, height, width, channels)`.

    Output shape: `(batch, new_height, new_width, filters)` with
    `new_height = (height + 2 * pad - kernel) // stride + 1`.
    """

    def __init__(self, filters, kernel_size, pad=0, **kwargs):
        kwargs.pop("padding", None)
        kwargs.pop("data_format", None)
        super().__init__(
            filters,
            kernel_size,
            padding="valid",
            data_format="channels_last",
            **kwargs,
        )
        self.pad = int(pad)

    def convolution_op(self, inputs, kernel):
        padding = "same" if self._same_padding_is_equal(inputs) else "valid"
        if (
            padding == "same"
            and self._moves_3x3_by_1()
            and kernel_gradient.is_faster(inputs, kernel)
        ):
            return kernel_gradient.convolution(inputs, kernel)
        if padding == "valid" and self.pad:
            rows = (self.pad, self.pad)
            inputs = ops.pad(inputs, ((0, 0), rows, rows, (0, 0)))
        return ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def _moves_3x3_by_1(self) -> bool:
        return (
            tuple(self.kernel_size) == (3, 3)
            and tuple(self.strides) == (1, 1)
            and tuple(self.dilation_rate) == (1, 1)
            and self.groups == 1
        )

    def _same_padding_is_equal(self, inputs):
        """Whether "same" pads exactly so: it then saves a copy of the input."""
        for size, kernel, stride, dilation in zip(
            inputs.shape[1:3],
            self.kernel_size,
            self.strides,
            self.dilation_rate,
            strict=True,
        ):
            extent = (kernel - 1) * dilation + 1
            if size is None:
                # With stride 1 the amount does not depend on the size.
                if stride > 1 or extent - 1 != 2 * self.pad:
                    return False
                continue
            needed = max((-(-size // stride) - 1) * stride + extent - size, 0)
            if needed != 2 * self.pad:
                return False
        return True

    def compute_output_shape(self, input_shape):
        padded = [
            size if size is None else size + 2 * self.pad
            for size in input_shape[1:3]
        ]
        return super().compute_output_shape(
            (input_shape[0], *padded, input_shape[3])
        )

    def get_config(self):
        config = super().get_config()
        del config["padding"], config["data_format"]
        return {**config, "pad": self.pad}


@keras.saving.register_keras_serializable(package="keras_vq")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Transposed convolution that trains faster.

    The arguments, weights and results are those of
    `keras.layers.Conv2DTranspose`, and so is the name, which weight files
    contain. What is faster are kernels of 4x4 with strides of 2, in training:

    - TensorFlow's kernel for processors is slow when it makes few channels.
      The same sums are taken by a 2x2 convolution that gives all four pixels
      of a position at once, in less than half of the time. The gradients come
      from the kernels of the transposed convolution, which are fast.
    - JAX takes the gradient of the kernel by a convolution of the input with
      zeros between its pixels, for which XLA has nothing fast. Here it is that
      of the strided convolution which this one is the transpose of.
    """

    def call(self, inputs, training=None):
        if not (training and self._doubles()):
            return super().call(inputs)
        backend = keras.backend.backend()
        if backend == "jax":
            outputs = _double_on_jax(inputs, ops.convert_to_tensor(self.kernel))
            outputs = ops.add(outputs, self.bias) if self.use_bias else outputs
        elif backend == "tensorflow" and self._is_slow_on_tensorflow():
            import tensorflow as tf

            outputs = _double_on_tensorflow(
                inputs, tf.convert_to_tensor(self.kernel)
            )
            if self.use_bias:
                bias = tf.convert_to_tensor(self.bias)
                outputs = tf.nn.bias_add(outputs, bias)
        else:
            return super().call(inputs)
        return outputs if self.activation is None else self.activation(outputs)

    def _is_slow_on_tensorflow(self) -> bool:
        import tensorflow as tf

        # Measured on processors only, so graphics cards keep their kernels.
        return self.filters <= 4 and not tf.config.list_physical_devices("GPU")

    def _doubles(self) -> bool:
        """Whether this is what the functions below can do."""
        return (
            tuple(self.kernel_size) == (4, 4)
            and tuple(self.strides) == (2, 2)
            and tuple(self.dilation_rate) == (1, 1)
            and self.padding == "same"
            and self.output_padding is None
            and self.data_format == "channels_last"
        )


def _double_on_tensorflow(inputs, kernel):
    """Transposed convolution, 4x4 kernel, strides of 2, "same" padding."""
    import tensorflow as tf

    @tf.custom_gradient
    def double(inputs, kernel):
        # Pixels 2i + 1 + p, p = 0 or 1, take positions i + d, d = 0 or 1,
        # times row 2 (1 - d) + p of the kernel; columns likewise.
        filters, channels = kernel.shape[2:]
        taps = tf.reshape(kernel, (2, 2, 2, 2, filters, channels))
        taps = tf.transpose(taps[::-1, :, ::-1], (0, 2, 5, 1, 3, 4))
        taps = tf.reshape(taps, (2, 2, channels, 4 * filters))
        pad = [[0, 0], [1, 1], [1, 1], [0, 0]]
        outputs = tf.nn.depth_to_space(tf.nn.conv2d(inputs, taps, 1, pad), 2)

        def gradients(upstream):
            return (
                tf.nn.conv2d(upstream, kernel, 2, "SAME"),
                tf.raw_ops.Conv2DBackpropFilter(
                    input=upstream,
                    filter_sizes=kernel.shape,
                    out_backprop=inputs,
                    strides=[1, 2, 2, 1],
                    padding="SAME",
                ),
            )

        return outputs[:, 1:-1, 1:-1], gradients

    return double(inputs, kernel)


def _double_on_jax(inputs, kernel):
    """The same on JAX, with another gradient of the kernel."""
    import jax

    @jax.custom_vjp
    def double(inputs, kernel):
        return ops.conv_transpose(inputs, kernel, 2, "same")

    def halve(outputs, kernel):
        return ops.conv(outputs, kernel, 2, "same")

    def forward(inputs, kernel):
        return double(inputs, kernel), (inputs, kernel)

    def backward(given, upstream):
        inputs, kernel = given
        of_kernel = jax.linear_transpose(lambda k: halve(upstream, k), kernel)
        return halve(upstream, kernel), of_kernel(inputs)[0]

    double.defvjp(forward, backward)
    return double(inputs, kernel)
