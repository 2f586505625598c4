"""VQ-VAE-2: codes of several levels, coarse to fine."""

import copy

import keras
from keras import layers

from keras_vq.layers import EMAVectorQuantizer, HierarchicalQuantizer
from keras_vq.layers.checkpointing import CheckpointedModel
from keras_vq.models.autoencoder import VQAutoencoder
from keras_vq.models.vqvae_networks import (
    VQVAENetworks,
    image_input,
    number_of_halvings,
)


@keras.saving.register_keras_serializable(package="keras_vq")
class VQVAE2(VQAutoencoder):
    """Hierarchical vector-quantized autoencoder.

    Each level halves (or quarters, ...) what the finer one before it has
    made of the image. Codes are found from coarse to fine: what a level has
    decided on is decoded and told to the next finer one. The decoder brings
    the quantized latents of all levels to the size of the finest, and makes
    the image of them together.

    With the defaults, an image of 256x256 pixels becomes maps of 32x32 and of
    64x64 codes. `downsample_factors=(8, 2, 2)` gives the three levels of the
    paper for 1024x1024 pixels: 32x32, 64x64 and 128x128.

    The networks are those of the paper's table. rosinality's in PyTorch, which
    others have copied, are `VQVAE2(residual_units=32, encoder_kernel_size=4)`.

    Args:
        downsample_factors: Tuple of integers, powers of two, one for each
            level: by what the finest divides the image, by what the next
            coarser one divides that, and so on.
        hidden_units: Integer, channels of the residual stacks.
        residual_units: Integer, channels within a residual block.
        residual_blocks: Integer, residual blocks of a stack.
        codebook_size: Integer, number of codes of each level (K). Those of
            `quantizers`, if given.
        codebook_dim: Integer, channels of the latents of each level: the
            length of its codes, unless its quantizer has codes of another
            length, to which it projects them.
        quantizers: List of `keras_vq.layers.Quantizer`, one for each level,
            the coarsest first. Defaults to
            `EMAVectorQuantizer(codebook_size, codebook_dim)` for each.
        channels: Integer, channels of an image.
        encoder_kernel_size: Integer, kernel of the strided convolutions.
        decoder_kernel_size: Integer, kernel of the transposed convolutions.
        inplace_relu_residual: See `keras_vq.layers.ResidualBlock`.
        gradient_checkpointing: Whether the parts of the networks are computed
            anew in the backward pass: less memory, more time, same step.
        **kwargs: `commitment_weight`, `codebook_weight` and
            `reconstruction_loss` of
            `keras_vq.models.VQAutoencoder`; `name` and `dtype`.

    Call arguments:
        images: Float tensor of shape `(batch, height, width, channels)`,
            values in [-1, 1]. No side may be smaller than the product of
            `downsample_factors`; sides that are no multiple of it are padded,
            and cropped again.

    Raises:
        ValueError: If a factor is no power of two, or there are not as many
            quantizers as factors.

    Reference:
        [Razavi et al., 2019](https://arxiv.org/abs/1906.00446), section 3 and
        appendix A.

    Example:
    ```python
    model = keras_vq.models.VQVAE2(downsample_factors=(4, 2))
    model.compile("adam")
    model.fit(dataset, epochs=10)
    coarse, fine = model.encode(images)
    images = model.decode([coarse, fine])
    sketches = model.decode([coarse], levels=1)
    ```
    """

    # Arguments of a preset that no longer hold once another is overridden.
    _superseded = {"quantizers": ("codebook_size",)}

    def __init__(
        self,
        downsample_factors=(4, 2),
        hidden_units: int = 128,
        residual_units: int = 64,
        residual_blocks: int = 2,
        codebook_size: int | None = None,
        codebook_dim: int = 64,
        quantizers=None,
        channels: int = 3,
        encoder_kernel_size: int = 3,
        decoder_kernel_size: int = 4,
        inplace_relu_residual: bool = False,
        gradient_checkpointing: bool = False,
        **kwargs,
    ):
        factors = _checked_factors(downsample_factors)
        dtype = kwargs.get("dtype")
        self_made = quantizers is None
        if self_made:
            codebook_size = 512 if codebook_size is None else codebook_size
            quantizers = [
                EMAVectorQuantizer(
                    codebook_size,
                    codebook_dim,
                    # Levels of like latents do not start from the same draw.
                    seed=i,
                    dtype=dtype,
                    name=f"quantizer_{i + 1}",
                )
                for i in range(len(factors))
            ]
        _check_quantizers(quantizers, factors, codebook_size)
        networks = VQVAENetworks(
            hidden_units=hidden_units,
            residual_units=residual_units,
            residual_blocks=residual_blocks,
            encoder_kernel_size=encoder_kernel_size,
            decoder_kernel_size=decoder_kernel_size,
            inplace_relu_residual=inplace_relu_residual,
            dtype=dtype,
        )
        hierarchy = _Hierarchy(
            networks, factors, codebook_dim, gradient_checkpointing
        )
        super().__init__(
            hierarchy.encoder(channels),
            hierarchy.quantizer(quantizers),
            hierarchy.decoder(channels),
            **kwargs,
        )
        self._arguments = {
            "downsample_factors": factors,
            "hidden_units": hidden_units,
            "residual_units": residual_units,
            "residual_blocks": residual_blocks,
            "codebook_size": codebook_size,
            "codebook_dim": codebook_dim,
            "channels": channels,
            "encoder_kernel_size": encoder_kernel_size,
            "decoder_kernel_size": decoder_kernel_size,
            "inplace_relu_residual": inplace_relu_residual,
            "gradient_checkpointing": gradient_checkpointing,
        }
        self._has_own_quantizers = not self_made
        self._smallest_side = self.downsample_factor

    def get_config(self):
        config = super().get_config()
        for name in ("encoder", "quantizer", "decoder", "downsample_factor"):
            del config[name]
        config |= self._arguments
        if self._has_own_quantizers:
            pack = keras.saving.serialize_keras_object
            config["quantizers"] = [pack(q) for q in self.quantizer.levels()]
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if config.get("quantizers"):
            config["quantizers"] = [
                keras.saving.deserialize_keras_object(
                    copy.deepcopy(quantizer), custom_objects=custom_objects
                )
                for quantizer in config["quantizers"]
            ]
        return super().from_config(config, custom_objects=custom_objects)


def _checked_factors(factors) -> list:
    if not isinstance(factors, (list, tuple)) or not factors:
        raise ValueError(
            "`downsample_factors` must be a tuple of powers of two, one for "
            "each level, the finest first, such as (4, 2). "
            f"Received: downsample_factors={factors!r}"
        )
    for factor in factors:
        number_of_halvings(factor, "downsample_factors")
    return [int(factor) for factor in factors]


def _check_quantizers(quantizers, factors, codebook_size):
    if not isinstance(quantizers, (list, tuple)) or len(quantizers) != len(
        factors
    ):
        raise ValueError(
            f"`quantizers` must be a list of {len(factors)}, one for each of "
            f"`downsample_factors`. Received: quantizers={quantizers!r}"
        )
    # What is no quantizer is refused by the layer that takes them.
    sizes = [getattr(q, "codebook_size", codebook_size) for q in quantizers]
    if codebook_size is not None and set(sizes) != {codebook_size}:
        raise ValueError(
            "`codebook_size` must be that of `quantizers`, which are given. "
            "Leave it out, or give other quantizers. Received: "
            f"codebook_size={codebook_size}, and quantizers of {sizes} codes"
        )


class _Hierarchy:
    """Builds the networks of all levels.

    Levels are numbered from the finest here, as the image passes them.
    """

    def __init__(self, networks: VQVAENetworks, factors, dim, checkpointing):
        self.networks = networks
        self.factors = factors
        self.dim = dim
        self.checkpointing = checkpointing

    def encoder(self, channels):
        """Images to the features of all levels, the coarsest first."""
        x = inputs = image_input(channels)
        features = []
        for i, factor in enumerate(self.factors):
            x = self._part(
                x, lambda x, f=factor: self.networks.down(x, f), f"down_{i + 1}"
            )
            x = self._part(x, self._features, f"features_{i + 1}")
            features.append(x)
        return keras.Model(inputs, features[::-1], name="encoder")

    def quantizer(self, quantizers):
        """The quantizers, and what stands before and between them."""
        projections, contexts = [], []
        for i in reversed(range(len(self.factors))):
            projections.append(self.networks.conv(self.dim, 1))
            if i:
                is_coarsest = i == len(self.factors) - 1
                inputs = image_input(self.dim * (1 if is_coarsest else 2))
                outputs = self._decoded(
                    inputs, self.factors[i], self.dim, f"{i + 1}"
                )
                contexts.append(
                    keras.Model(inputs, outputs, name=f"context_{i + 1}")
                )
        return HierarchicalQuantizer(
            quantizers,
            projections,
            contexts,
            dtype=self.networks.dtype,
            name="quantizer",
        )

    def decoder(self, channels):
        """Quantized latents of all levels, the coarsest first, to images."""
        inputs = [image_input(self.dim) for _ in self.factors]
        raised = []
        for i, x in enumerate(inputs[:-1]):
            finer = self.factors[1 : len(self.factors) - i]
            level = len(self.factors) - i
            for k in range(sum(map(number_of_halvings, finer))):
                raising = self.networks.transposed(
                    self.dim, name=f"raise_{level}_{k + 1}"
                )
                x = raising(x)
            raised.append(x)
        x = inputs[-1]
        if raised:
            concatenate = layers.Concatenate(dtype=self.networks.dtype)
            x = concatenate([*raised, x])
        outputs = self._decoded(x, self.factors[0], channels, "1")
        return keras.Model(inputs, outputs, name="decoder")

    def _features(self, x):
        return self.networks.relu(self.networks.features(x))

    def _decoded(self, x, factor, channels, name):
        x = self._part(x, self.networks.mixed, f"mixed_{name}")
        return self._part(
            x, lambda x: self.networks.up(x, factor, channels), f"up_{name}"
        )

    def _part(self, x, function, name):
        """A part of a network, which may be computed anew."""
        inputs = image_input(x.shape[-1])
        part = CheckpointedModel(
            inputs,
            function(inputs),
            gradient_checkpointing=self.checkpointing,
            name=name,
        )
        return part(x)
