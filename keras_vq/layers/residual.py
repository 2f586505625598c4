"""The residual block that VQ-VAE and VQ-VAE-2 are built of."""

import keras
from keras import ops

from keras_vq.layers.convolution import PaddedConv2D
from keras_vq.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="keras_vq")
class ResidualBlock(keras.layers.Layer):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to the input.

    Args:
        residual_units: Integer, channels of the 3x3 convolution.
        use_batch_normalization: Whether batch normalization follows each
            convolution, as in Kumar et al.'s reproduction.
        inplace_relu_residual: Whether the skip path carries `relu(x)` instead
            of `x`. Published networks whose first ReLU worked in place were
            trained so; their weights give wrong pictures otherwise, without
            an error.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input.

    Reference:
        [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), section
        4.1.
    """

    def __init__(
        self,
        residual_units: int,
        use_batch_normalization: bool = False,
        inplace_relu_residual: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.residual_units = residual_units
        self.use_batch_normalization = use_batch_normalization
        self.inplace_relu_residual = inplace_relu_residual

    def build(self, input_shape):
        channels = input_shape[-1]
        inner_shape = (*input_shape[:-1], self.residual_units)
        # A block that is loaded frozen is frozen before it is built.
        options = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.conv_1 = PaddedConv2D(self.residual_units, 3, pad=1, **options)
        self.conv_1.build(input_shape)
        self.conv_2 = PaddedConv2D(channels, 1, **options)
        self.conv_2.build(inner_shape)
        self.norm_1 = self.norm_2 = None
        if self.use_batch_normalization:
            self.norm_1 = BatchNormalization(**options)
            self.norm_1.build(inner_shape)
            self.norm_2 = BatchNormalization(**options)
            self.norm_2.build(input_shape)

    def call(self, inputs, training=None):
        x = ops.relu(inputs)
        skip = x if self.inplace_relu_residual else inputs
        x = self.conv_1(x)
        if self.norm_1 is not None:
            x = self.norm_1(x, training=training)
        x = ops.relu(x)
        if self.norm_2 is not None:
            return skip + self.norm_2(self.conv_2(x), training=training)
        # The bias comes last: TensorFlow gives up fusing any layers, with an
        # error in the log, where a convolution, its bias and a sum with two
        # consumers follow each other.
        x = skip + self.conv_2.convolution_op(x, self.conv_2.kernel)
        return ops.add(x, ops.reshape(self.conv_2.bias, (1, 1, 1, -1)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "residual_units": self.residual_units,
            "use_batch_normalization": self.use_batch_normalization,
            "inplace_relu_residual": self.inplace_relu_residual,
        }
