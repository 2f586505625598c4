"""The networks of VQ-VAE and VQ-VAE-2: strides and residual blocks."""

import dataclasses
import numbers

import keras
from keras import layers

from keras_vq.layers import (
    BatchNormalization,
    Conv2DTranspose,
    PaddedConv2D,
    ResidualBlock,
)


@dataclasses.dataclass(frozen=True)
class VQVAENetworks:
    """Builds the parts of encoders and decoders, which share their sizes.

    Each part is a function of a `keras.KerasTensor`.

    Args:
        hidden_units: Integer, channels of the residual stack.
        residual_units: Integer, channels within a residual block.
        residual_blocks: Integer, residual blocks of a stack.
        share_residual_blocks: Whether those are one block, passed so often.
        with_convolution: Whether a 3x3 convolution precedes each stack, and
            the strided convolutions before the last have half the channels.
        encoder_kernel_size: Integer, kernel of the strided convolutions.
        decoder_kernel_size: Integer, kernel of the transposed convolutions.
        use_batch_normalization: Whether batch normalization follows the
            convolutions.
        inplace_relu_residual: See `keras_vq.layers.ResidualBlock`.
        dtype: Dtype policy of the layers.
    """

    hidden_units: int
    residual_units: int
    residual_blocks: int
    share_residual_blocks: bool = False
    with_convolution: bool = True
    encoder_kernel_size: int = 4
    decoder_kernel_size: int = 4
    use_batch_normalization: bool = False
    inplace_relu_residual: bool = False
    dtype: object = None

    def down(self, x, factor: int):
        """Strided convolutions, each with a ReLU before it but the first."""
        stages = self._stages(factor)
        for i, units in enumerate(stages):
            if i:
                x = self.relu(x)
            size = self.encoder_kernel_size
            x = self.conv(units, size, strides=2, pad=(size - 1) // 2)(x)
            # The last one is followed by a residual block or convolution.
            if i < len(stages) - 1 or self.with_convolution:
                x = self._normalized(x)
        return x

    def features(self, x):
        """What follows the strided convolutions: the residual stack."""
        if self.with_convolution:
            x = self.conv(self.hidden_units, 3, pad=1)(self.relu(x))
        return self._residual_stack(x)

    def mixed(self, x):
        """What precedes the transposed convolutions: the residual stack."""
        if self.with_convolution:
            x = self.conv(self.hidden_units, 3, pad=1)(x)
        return self._residual_stack(x)

    def up(self, x, factor: int, channels: int):
        """Transposed convolutions, each with a ReLU before it."""
        for units in self._stages(factor)[-2::-1]:
            x = self.transposed(units)(self.relu(x))
            x = self._normalized(x)
        return self.transposed(channels)(self.relu(x))

    def conv(self, filters, size, **kwargs):
        return PaddedConv2D(filters, size, dtype=self.dtype, **kwargs)

    def transposed(self, filters, **kwargs):
        return Conv2DTranspose(
            filters,
            self.decoder_kernel_size,
            strides=2,
            padding="same",
            data_format="channels_last",
            dtype=self.dtype,
            **kwargs,
        )

    def relu(self, x):
        return layers.ReLU(dtype=self.dtype)(x)

    def _stages(self, factor) -> list:
        """Channels after each strided convolution."""
        half = max(self.hidden_units // 2, 1)
        count = number_of_halvings(factor)
        if not self.with_convolution:
            return [self.hidden_units] * count
        return [half] * max(count - 1, 1) + [self.hidden_units] * (count > 1)

    def _residual_stack(self, x):
        block = None
        for _ in range(self.residual_blocks):
            if block is None or not self.share_residual_blocks:
                block = ResidualBlock(
                    self.residual_units,
                    self.use_batch_normalization,
                    self.inplace_relu_residual,
                    dtype=self.dtype,
                )
            x = block(x)
        return x

    def _normalized(self, x):
        if not self.use_batch_normalization:
            return x
        return BatchNormalization(dtype=self.dtype)(x)


def number_of_halvings(factor: int, name: str = "downsample_factor") -> int:
    """How many strides of 2 divide a side by `factor`.

    Raises:
        ValueError: If `factor`, the argument `name`, is no power of two.
    """
    whole = isinstance(factor, numbers.Integral) and factor is not True
    count = int(factor).bit_length() - 1 if whole else 0
    if count < 1 or factor < 2 or 2**count != factor:
        raise ValueError(
            f"`{name}` must be a power of two: 2, 4, 8, ... "
            f"Received: {name}={factor!r}"
        )
    return count


def image_input(channels: int):
    """Input of images, or of latents, of any height and width."""
    return keras.Input((None, None, channels), dtype="float32")
