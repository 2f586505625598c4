"""VQ-VAE: the networks of the papers."""

import dataclasses
import numbers

import keras
from keras import layers

from keras_vq.layers import (
    BatchNormalization,
    Conv2DTranspose,
    EMAVectorQuantizer,
    PaddedConv2D,
    ResidualBlock,
)
from keras_vq.models.autoencoder import VQAutoencoder
from keras_vq.models.networks import codebook_size_of


@keras.saving.register_keras_serializable(package="keras_vq")
class VQVAE(VQAutoencoder):
    """Vector-quantized variational autoencoder.

    Strided 4x4 convolutions halve the image, a stack of residual blocks
    follows, and the decoder mirrors both with transposed convolutions. The
    arguments cover the networks of the papers:

    - DeepMind's example (the default): `VQVAE()`;
    - van den Oord et al.: `VQVAE(hidden_units=256, residual_units=256,
      bottleneck_convolutions=False, codebook_dim=256)`;
    - Kumar et al.'s reproduction: that with `use_batch_normalization=True,
      output_activation="tanh", inplace_relu_residual=True`.

    Args:
        hidden_units: Integer, channels of the residual stack.
        residual_units: Integer, channels within a residual block.
        residual_blocks: Integer, residual blocks of encoder and decoder.
        downsample_factor: Integer, a power of two: pixels of a side that
            become one position of codes.
        codebook_size: Integer, number of codes (K). Defaults to that of
            `quantizer`, and to 512 without.
        codebook_dim: Integer, channels of the latents: the length of a code,
            unless `quantizer` has codes of its own length, to which it
            projects them.
        quantizer: A `keras_vq.layers.Quantizer`. Defaults to
            `EMAVectorQuantizer(codebook_size, codebook_dim)`.
        channels: Integer, channels of an image.
        bottleneck_convolutions: Whether a 3x3 convolution follows the strided
            ones, a 1x1 convolution leads to `codebook_dim` channels, and a
            3x3 convolution leads back. Without, the strided convolutions all
            have `hidden_units` channels and `codebook_dim` must be
            `hidden_units`.
        use_batch_normalization: Whether batch normalization follows the
            convolutions but the last. Its statistics are those of the whole
            batch over all replicas.
        output_activation: Activation of the decoder, such as `"tanh"`, or
            None.
        inplace_relu_residual: See `keras_vq.layers.ResidualBlock`.
        **kwargs: `commitment_weight`, `codebook_weight` and
            `reconstruction_loss` of `keras_vq.models.VQAutoencoder`; `name`
            and `dtype`.

    Reference:
        [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), section
        4.1.

    Example:
    ```python
    model = keras_vq.models.VQVAE(codebook_size=512)
    model.compile("adam", metrics=[keras_vq.metrics.PSNR()])
    model.fit(dataset, epochs=10)
    codes = model.encode(images)  # (batch, height / 4, width / 4)
    images = model.decode(codes)
    ```
    """

    # Arguments of a preset that no longer hold once another is overridden.
    _superseded = {"quantizer": ("codebook_size",)}

    def __init__(
        self,
        hidden_units: int = 128,
        residual_units: int = 32,
        residual_blocks: int = 2,
        downsample_factor: int = 4,
        codebook_size: int | None = None,
        codebook_dim: int = 64,
        quantizer=None,
        channels: int = 3,
        bottleneck_convolutions: bool = True,
        use_batch_normalization: bool = False,
        output_activation: str | None = None,
        inplace_relu_residual: bool = False,
        **kwargs,
    ):
        stages = _stages(hidden_units, downsample_factor)
        if not bottleneck_convolutions:
            stages = [hidden_units] * len(stages)
            if codebook_dim != hidden_units and quantizer is None:
                raise ValueError(
                    "Without `bottleneck_convolutions` the latents have "
                    "`hidden_units` channels, and `codebook_dim` must be the "
                    f"same. Received: hidden_units={hidden_units}, "
                    f"codebook_dim={codebook_dim}"
                )
        dtype = kwargs.get("dtype")
        self_made = quantizer is None
        codebook_size = codebook_size_of(quantizer, codebook_size, 512)
        if self_made:
            quantizer = EMAVectorQuantizer(
                codebook_size, codebook_dim, dtype=dtype, name="quantizer"
            )
        network = _Network(
            stages=stages,
            hidden_units=hidden_units,
            residual_units=residual_units,
            residual_blocks=residual_blocks,
            codebook_dim=codebook_dim,
            channels=channels,
            bottleneck_convolutions=bottleneck_convolutions,
            use_batch_normalization=use_batch_normalization,
            inplace_relu_residual=inplace_relu_residual,
            dtype=dtype,
        )
        super().__init__(
            network.encoder(),
            quantizer,
            network.decoder(output_activation),
            downsample_factor=downsample_factor,
            **kwargs,
        )
        self._arguments = {
            "hidden_units": hidden_units,
            "residual_units": residual_units,
            "residual_blocks": residual_blocks,
            "downsample_factor": downsample_factor,
            "codebook_size": codebook_size,
            "codebook_dim": codebook_dim,
            "channels": channels,
            "bottleneck_convolutions": bottleneck_convolutions,
            "use_batch_normalization": use_batch_normalization,
            "output_activation": output_activation,
            "inplace_relu_residual": inplace_relu_residual,
        }
        self._has_own_quantizer = not self_made

    def get_config(self):
        config = super().get_config()
        for name in ("encoder", "decoder"):
            del config[name]
        if not self._has_own_quantizer:
            del config["quantizer"]
        return {**config, **self._arguments}


def _stages(hidden_units: int, downsample_factor: int) -> list:
    """Channels after each strided convolution: half, but for the last."""
    whole = isinstance(downsample_factor, numbers.Integral)
    count = int(downsample_factor).bit_length() - 1 if whole else 0
    if count < 1 or downsample_factor < 2 or 2**count != downsample_factor:
        raise ValueError(
            "`downsample_factor` must be a power of two: 2, 4, 8, ... "
            f"Received: downsample_factor={downsample_factor!r}"
        )
    half = max(hidden_units // 2, 1)
    return [half] * max(count - 1, 1) + [hidden_units] * (count > 1)


@dataclasses.dataclass
class _Network:
    """Builds encoder and decoder, which share all their sizes."""

    stages: list
    hidden_units: int
    residual_units: int
    residual_blocks: int
    codebook_dim: int
    channels: int
    bottleneck_convolutions: bool
    use_batch_normalization: bool
    inplace_relu_residual: bool
    dtype: object

    def encoder(self):
        x = inputs = self._input(self.channels)
        for i, units in enumerate(self.stages):
            if i:
                x = self._relu(x)
            x = self._conv(units, 4, strides=2, pad=1)(x)
            # The last one is followed by a residual block or convolution.
            if i < len(self.stages) - 1 or self.bottleneck_convolutions:
                x = self._normalized(x)
        if self.bottleneck_convolutions:
            x = self._conv(self.hidden_units, 3, pad=1)(self._relu(x))
        x = self._residual_stack(x)
        if self.bottleneck_convolutions:
            x = self._conv(self.codebook_dim, 1)(self._relu(x))
        return keras.Model(inputs, x, name="encoder")

    def decoder(self, output_activation):
        units = self.hidden_units
        if self.bottleneck_convolutions:
            units = self.codebook_dim
        x = inputs = self._input(units)
        if self.bottleneck_convolutions:
            x = self._conv(self.hidden_units, 3, pad=1)(x)
        x = self._residual_stack(x)
        for units in self.stages[-2::-1]:
            x = self._transposed(units)(self._relu(x))
            x = self._normalized(x)
        x = self._transposed(self.channels)(self._relu(x))
        if output_activation is not None:
            x = layers.Activation(output_activation, dtype=self.dtype)(x)
        return keras.Model(inputs, x, name="decoder")

    def _input(self, channels):
        return keras.Input((None, None, channels), dtype="float32")

    def _residual_stack(self, x):
        for _ in range(self.residual_blocks):
            x = ResidualBlock(
                self.residual_units,
                self.use_batch_normalization,
                self.inplace_relu_residual,
                dtype=self.dtype,
            )(x)
        return x

    def _conv(self, filters, size, **kwargs):
        return PaddedConv2D(filters, size, dtype=self.dtype, **kwargs)

    def _transposed(self, filters):
        return Conv2DTranspose(
            filters,
            4,
            strides=2,
            padding="same",
            data_format="channels_last",
            dtype=self.dtype,
        )

    def _normalized(self, x):
        if not self.use_batch_normalization:
            return x
        return BatchNormalization(dtype=self.dtype)(x)

    def _relu(self, x):
        return layers.ReLU(dtype=self.dtype)(x)
