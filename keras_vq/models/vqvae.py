"""VQ-VAE: the networks of the papers."""

import keras
from keras import layers

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models.autoencoder import VQAutoencoder
from keras_vq.models.networks import codebook_size_of
from keras_vq.models.vqvae_networks import (
    VQVAENetworks,
    image_input,
    number_of_halvings,
)


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
        share_residual_blocks: Whether the residual blocks of a stack are one
            block that is passed `residual_blocks` times. Published networks
            are so that listed one object several times.
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
        share_residual_blocks: bool = False,
        **kwargs,
    ):
        number_of_halvings(downsample_factor)
        without = not bottleneck_convolutions and quantizer is None
        if without and codebook_dim != hidden_units:
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
        networks = VQVAENetworks(
            hidden_units=hidden_units,
            residual_units=residual_units,
            residual_blocks=residual_blocks,
            share_residual_blocks=share_residual_blocks,
            with_convolution=bottleneck_convolutions,
            use_batch_normalization=use_batch_normalization,
            inplace_relu_residual=inplace_relu_residual,
            dtype=dtype,
        )
        super().__init__(
            _encoder(networks, channels, downsample_factor, codebook_dim),
            quantizer,
            _decoder(
                networks,
                channels,
                downsample_factor,
                codebook_dim,
                output_activation,
            ),
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
            "share_residual_blocks": share_residual_blocks,
        }
        self._has_own_quantizer = not self_made

    def get_config(self):
        config = super().get_config()
        for name in ("encoder", "decoder"):
            del config[name]
        if not self._has_own_quantizer:
            del config["quantizer"]
        return {**config, **self._arguments}


def _encoder(networks, channels, factor, codebook_dim):
    inputs = image_input(channels)
    x = networks.features(networks.down(inputs, factor))
    if networks.with_convolution:
        x = networks.conv(codebook_dim, 1)(networks.relu(x))
    return keras.Model(inputs, x, name="encoder")


def _decoder(networks, channels, factor, codebook_dim, output_activation):
    units = networks.hidden_units
    if networks.with_convolution:
        units = codebook_dim
    inputs = image_input(units)
    x = networks.up(networks.mixed(inputs), factor, channels)
    if output_activation is not None:
        x = layers.Activation(output_activation, dtype=networks.dtype)(x)
    return keras.Model(inputs, x, name="decoder")
