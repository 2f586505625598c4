"""The residual block that VQGAN is built of."""

import keras
from keras import ops

from keras_vq.layers.checkpointing import checkpointed
from keras_vq.layers.convolution import PaddedConv2D
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.normalized_swish import normalized_swish
from keras_vq.layers.resampling import torch_initializer


@keras.saving.register_keras_serializable(package="keras_vq")
class GroupResidualBlock(keras.layers.Layer):
    """Twice group normalization, swish and 3x3 convolution, plus the input.

    Where the number of channels changes, a 1x1 convolution takes the input to
    the new number.

    Args:
        filters: Integer, channels of the output.
        groups: Integer, groups of the normalizations; divides the channels
            of the input and of the output.
        gradient_checkpointing: Whether the backward pass computes the block
            anew, instead of keeping all of its images: less memory, about a
            third more time.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)`.

    Output shape: `(batch, height, width, filters)`.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), appendix A.
    """

    def __init__(
        self,
        filters: int,
        groups: int = 32,
        gradient_checkpointing: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.groups = groups
        self.gradient_checkpointing = gradient_checkpointing

    def build(self, input_shape):
        output_shape = self.compute_output_shape(input_shape)
        # A block that is loaded frozen is frozen before it is built.
        options = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.norm_1 = GroupNormalization(self.groups, **options)
        self.norm_1.build(input_shape)
        self.conv_1 = self._convolution(3, input_shape, options)
        self.norm_2 = GroupNormalization(self.groups, **options)
        self.norm_2.build(output_shape)
        self.conv_2 = self._convolution(3, output_shape, options)
        self.shortcut = None
        if input_shape[-1] != self.filters:
            self.shortcut = self._convolution(1, input_shape, options)

    def _convolution(self, size, input_shape, options):
        layer = PaddedConv2D(
            self.filters,
            size,
            pad=size // 2,
            kernel_initializer=torch_initializer(),
            **options,
        )
        layer.build(input_shape)
        return layer

    def call(self, inputs):
        return checkpointed(self, self._block, inputs)

    def _block(self, inputs):
        x = self.conv_1(normalized_swish(self.norm_1, inputs))
        x = normalized_swish(self.norm_2, x)
        skip = inputs if self.shortcut is None else self.shortcut(inputs)
        # The bias comes last: see `ResidualBlock`. The casts are for the
        # backward pass of a checkpointed block, where Keras makes none.
        kernel = ops.cast(self.conv_2.kernel, x.dtype)
        bias = ops.cast(self.conv_2.bias, x.dtype)
        x = skip + self.conv_2.convolution_op(x, kernel)
        return ops.add(x, ops.reshape(bias, (1, 1, 1, -1)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "groups": self.groups,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
