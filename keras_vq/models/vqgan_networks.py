"""VQGAN's encoder and decoder."""

import dataclasses
import numbers

import keras
from keras import layers

from keras_vq.layers.attention import SpatialAttention
from keras_vq.layers.convolution import PaddedConv2D
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.group_residual import GroupResidualBlock
from keras_vq.layers.resampling import (
    DownsamplingConv2D,
    UpsamplingConv2D,
    torch_initializer,
)


@dataclasses.dataclass(frozen=True)
class VQGANNetworks:
    """Builds VQGAN's encoder and decoder, which share all their sizes.

    The networks are those of the original, weight by weight, and take images
    of every size. The default is the one for ImageNet, which makes one
    position of 16x16 pixels. LlamaGen's has `codebook_dim=8`. Those of latent
    diffusion are:

    - factor 4: `channel_multipliers=(1, 2, 4), attention_factors=(),
      latent_channels=3, codebook_dim=3`;
    - factor 8: `channel_multipliers=(1, 2, 2, 4), attention_factors=(8,),
      latent_channels=4, codebook_dim=4`.

    The names of the layers are the original's, with `attention` for `attn`
    and `_` for the dots: `down_4_block_0` is `encoder.down.4.block.0`.

    Args:
        channels: Integer, channels of an image.
        base_channels: Integer, channels at the image's own size.
        channel_multipliers: Integers, channels of each level over
            `base_channels`. Each level but the last halves the image.
        residual_blocks: Integer, residual blocks of each level of the
            encoder; the decoder has one more.
        attention_factors: Integers, the levels with attention after each
            residual block, by how many pixels of a side one position stands
            for: powers of two up to that of the last level. The original
            names the size at the nominal resolution instead: 16 of 256 pixels
            is a factor of 16.
        middle_attention: Whether attention stands between the two residual
            blocks at the lowest size, too.
        latent_channels: Integer, channels that the encoder's last 3x3
            convolution makes and the decoder's first takes.
        codebook_dim: Integer, channels that the quantizer sees, made by a 1x1
            convolution.
        groups: Integer, groups of the normalizations; divides all channels.
        gradient_checkpointing: Whether the backward pass computes each block
            anew, instead of keeping all of its images: less memory, about a
            third more time.
        dtype: Dtype policy of all layers, or its name.

    Raises:
        ValueError: If the sizes do not fit each other.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), appendix A.

    Example:
    ```python
    networks = VQGANNetworks(base_channels=32, channel_multipliers=(1, 2))
    model = keras_vq.models.VQAutoencoder(
        networks.encoder(),
        keras_vq.layers.VectorQuantizer(512, networks.codebook_dim),
        networks.decoder(),
    )
    ```
    """

    channels: int = 3
    base_channels: int = 128
    channel_multipliers: tuple = (1, 1, 2, 2, 4)
    residual_blocks: int = 2
    attention_factors: tuple = (16,)
    middle_attention: bool = True
    latent_channels: int = 256
    codebook_dim: int = 256
    groups: int = 32
    gradient_checkpointing: bool = False
    dtype: object = None

    def __post_init__(self):
        for name in ("channels", "base_channels", "residual_blocks"):
            value = getattr(self, name)
            if not _is_positive_integer(value):
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
        levels = len(self.channel_multipliers)
        if not levels or not all(
            map(_is_positive_integer, self.channel_multipliers)
        ):
            raise ValueError(
                "`channel_multipliers` must be positive integers, one for "
                "each level, such as (1, 1, 2, 2, 4). Received: "
                f"channel_multipliers={self.channel_multipliers}"
            )
        if self.groups < 1 or self.base_channels % self.groups:
            raise ValueError(
                "`groups` must divide `base_channels`. Received: "
                f"groups={self.groups}, base_channels={self.base_channels}"
            )
        factors = [2**level for level in range(levels)]
        if not set(self.attention_factors) <= set(factors):
            raise ValueError(
                f"`attention_factors` must be among {factors}, the factors of "
                "the levels. Received: "
                f"attention_factors={self.attention_factors}"
            )

    @property
    def downsample_factor(self) -> int:
        """Pixels of a side that become one position."""
        return 2 ** (len(self.channel_multipliers) - 1)

    def encoder(self) -> keras.Model:
        """Images to latents of `codebook_dim` channels."""
        inputs = self._input(self.channels)
        x = self._conv(self.base_channels, 3, "conv_in")(inputs)
        for level in range(len(self.channel_multipliers)):
            name = f"down_{level}"
            x = self._blocks(x, level, self.residual_blocks, name)
            if 2**level < self.downsample_factor:
                x = DownsamplingConv2D(
                    self._width(level),
                    dtype=self.dtype,
                    name=f"{name}_downsample",
                )(x)
        x = self._activated(self._middle(x))
        x = self._conv(self.latent_channels, 3, "conv_out")(x)
        x = self._conv(self.codebook_dim, 1, "quant_conv")(x)
        return keras.Model(inputs, x, name="encoder")

    def decoder(self) -> keras.Model:
        """Latents of `codebook_dim` channels to images."""
        inputs = self._input(self.codebook_dim)
        x = self._conv(self.latent_channels, 1, "post_quant_conv")(inputs)
        x = self._conv(self._width(-1), 3, "conv_in")(x)
        x = self._middle(x)
        for level in reversed(range(len(self.channel_multipliers))):
            name = f"up_{level}"
            x = self._blocks(x, level, self.residual_blocks + 1, name)
            if level:
                x = UpsamplingConv2D(
                    self._width(level),
                    dtype=self.dtype,
                    name=f"{name}_upsample",
                )(x)
        x = self._conv(self.channels, 3, "conv_out")(self._activated(x))
        return keras.Model(inputs, x, name="decoder")

    def _width(self, level):
        return self.base_channels * self.channel_multipliers[level]

    def _input(self, channels):
        return keras.Input((None, None, channels), dtype="float32")

    def _blocks(self, x, level, count, name):
        for i in range(count):
            x = self._block(self._width(level), f"{name}_block_{i}")(x)
            if 2**level in self.attention_factors:
                x = self._attention(f"{name}_attention_{i}")(x)
        return x

    def _middle(self, x):
        x = self._block(self._width(-1), "mid_block_1")(x)
        if self.middle_attention:
            x = self._attention("mid_attention_1")(x)
        return self._block(self._width(-1), "mid_block_2")(x)

    def _block(self, filters, name):
        return GroupResidualBlock(filters, name=name, **self._options())

    def _attention(self, name):
        return SpatialAttention(name=name, **self._options())

    def _options(self):
        return {
            "groups": self.groups,
            "gradient_checkpointing": self.gradient_checkpointing,
            "dtype": self.dtype,
        }

    def _activated(self, x):
        norm = GroupNormalization(
            self.groups, dtype=self.dtype, name="norm_out"
        )
        return layers.Activation("silu", dtype=self.dtype, name="swish")(
            norm(x)
        )

    def _conv(self, filters, size, name):
        return PaddedConv2D(
            filters,
            size,
            pad=size // 2,
            kernel_initializer=torch_initializer(),
            dtype=self.dtype,
            name=name,
        )


def _is_positive_integer(value) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value > 0
