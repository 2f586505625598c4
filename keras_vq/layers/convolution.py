"""Convolutions whose padding does not depend on the size of the input."""

import keras
from keras import ops


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
