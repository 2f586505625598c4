"""VQGAN: a vector-quantized autoencoder trained against a discriminator."""

import keras
from keras import ops

from keras_vq.layers import VectorQuantizer
from keras_vq.losses import get_perceptual_loss, serialize_perceptual_loss
from keras_vq.losses.reduction import batch_mean
from keras_vq.models import images as image_tools
from keras_vq.models.adversarial import AdversarialMixin
from keras_vq.models.autoencoder import VQAutoencoder
from keras_vq.models.networks import codebook_size_of
from keras_vq.models.vqgan_networks import VQGANNetworks


@keras.saving.register_keras_serializable(package="keras_vq")
class VQGAN(AdversarialMixin, VQAutoencoder):
    """Vector-quantized autoencoder with perceptual and adversarial losses.

    Residual networks with group normalization and attention, trained for the
    distance of images (`reconstruction_loss`), their distance in the features
    of a trained network (`perceptual_loss`), and against a discriminator. The
    default is the original for ImageNet at 256 pixels, weight by weight:
    72,141,699 parameters, one of 1024 codes for each 16x16 pixels. See
    `keras_vq.models.vqgan_networks.VQGANNetworks` for the arguments of other
    published networks.

    A step takes one forward pass of the autoencoder, from which both networks
    learn. The generator minimizes `loss + weight * adaptive_weight *
    generator_loss`; the adaptive weight makes the gradients of both parts at
    the decoder's last kernel alike, over all replicas. With
    `accumulation_steps` every micro-batch has its own. The logged `loss`
    holds no adversarial term, so that it can be compared with `val_loss`.

    Args:
        base_channels: Integer, channels at the image's own size.
        channel_multipliers: Integers, channels of each level over
            `base_channels`; each level but the last halves the image.
        residual_blocks: Integer, residual blocks of each level.
        attention_factors: Integers, the levels with attention, by how many
            pixels of a side one of their positions stands for.
        middle_attention: Whether there is attention at the lowest size.
        latent_channels: Integer, channels around the quantizer.
        codebook_size: Integer, number of codes (K). Defaults to that of
            `quantizer`, and to 1024 without.
        codebook_dim: Integer, channels of the latents that are quantized.
        quantizer: A `keras_vq.layers.Quantizer`. Defaults to
            `VectorQuantizer(codebook_size, codebook_dim)`.
        channels: Integer, channels of an image.
        groups: Integer, groups of the normalizations.
        gradient_checkpointing: Whether blocks are computed anew in the
            backward pass: less memory, about a third more time.
        discriminator: `"patchgan"` (`PatchGAN()`, the original's), a
            `keras_vq.models.Discriminator`, or None to train without.
        adversarial: A `keras_vq.losses.AdversarialTraining`: when and how
            strongly the discriminator takes part. None: its defaults.
        perceptual_loss: `"vgg"` or `"squeeze"`, the `keras_vq.losses.LPIPS`
            of that network, whose files are looked for when training starts;
            an `LPIPS` with paths; a callable of images and reconstruction
            that gives one value per image; or None.
        perceptual_weight: Float, weight of the perceptual loss.
        **kwargs: `commitment_weight`, `codebook_weight` and
            `reconstruction_loss` (here `"l1"` by default) of
            `keras_vq.models.VQAutoencoder`; `name` and `dtype`.

    Raises:
        ValueError: If arguments do not fit each other.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), section 3.1.

    Example:
    ```python
    model = keras_vq.models.VQGAN(
        base_channels=32,
        channel_multipliers=(1, 2, 2, 4),
        attention_factors=(),
        perceptual_loss=None,
    )
    model.compile(
        keras.optimizers.Adam(1e-4, beta_1=0.5),
        discriminator_optimizer=keras.optimizers.Adam(1e-4, beta_1=0.5),
    )
    model.fit(dataset, epochs=10)
    ```
    """

    # Arguments of a preset that no longer hold once another is overridden.
    _superseded = {"quantizer": ("codebook_size",)}
    _to_features = None

    def __init__(
        self,
        base_channels: int = 128,
        channel_multipliers=(1, 1, 2, 2, 4),
        residual_blocks: int = 2,
        attention_factors=(16,),
        middle_attention: bool = True,
        latent_channels: int = 256,
        codebook_size: int | None = None,
        codebook_dim: int = 256,
        quantizer=None,
        channels: int = 3,
        groups: int = 32,
        gradient_checkpointing: bool = False,
        discriminator="patchgan",
        adversarial=None,
        perceptual_loss="vgg",
        perceptual_weight: float = 1.0,
        **kwargs,
    ):
        dtype = kwargs.get("dtype")
        networks = VQGANNetworks(
            channels=channels,
            base_channels=base_channels,
            channel_multipliers=tuple(channel_multipliers),
            residual_blocks=residual_blocks,
            attention_factors=tuple(attention_factors),
            middle_attention=middle_attention,
            latent_channels=latent_channels,
            codebook_dim=codebook_dim,
            groups=groups,
            gradient_checkpointing=gradient_checkpointing,
            dtype=dtype,
        )
        if not perceptual_weight >= 0:
            raise ValueError(
                "`perceptual_weight` must not be negative. Received: "
                f"perceptual_weight={perceptual_weight}"
            )
        self_made = quantizer is None
        codebook_size = codebook_size_of(quantizer, codebook_size, 1024)
        if self_made:
            quantizer = VectorQuantizer(
                codebook_size, codebook_dim, dtype=dtype, name="quantizer"
            )
        kwargs.setdefault("reconstruction_loss", "l1")
        discriminator = self._adversary(
            discriminator, adversarial, channels, dtype
        )
        perceptual_loss = get_perceptual_loss(perceptual_loss)
        _check_perceptual(perceptual_loss, (None, None, None, channels))
        if isinstance(perceptual_loss, keras.Layer):
            image = keras.Input((None, None, channels), dtype="float32")
            perceptual_loss(image, image)  # Builds it.
        # No model has layers before Keras has initialized it.
        self._further_parts = lambda: {
            "discriminator": discriminator,
            "perceptual_loss": perceptual_loss,
        }
        super().__init__(
            networks.encoder(),
            quantizer,
            networks.decoder(),
            downsample_factor=networks.downsample_factor,
            **kwargs,
        )
        self.loss_weights["perceptual_loss"] = perceptual_weight
        self._arguments = {
            "base_channels": base_channels,
            "channel_multipliers": list(channel_multipliers),
            "residual_blocks": residual_blocks,
            "attention_factors": list(attention_factors),
            "middle_attention": middle_attention,
            "latent_channels": latent_channels,
            "codebook_size": codebook_size,
            "codebook_dim": codebook_dim,
            "channels": channels,
            "groups": groups,
            "gradient_checkpointing": gradient_checkpointing,
            "perceptual_weight": perceptual_weight,
        }
        self._has_own_quantizer = not self_made

    def _create_variables(self):
        for name, part in self._further_parts().items():
            setattr(self, name, part)
        del self._further_parts
        super()._create_variables()

    # The networks

    @property
    def last_layer(self):
        """Last convolution of the decoder."""
        return self.decoder.get_layer("conv_out")

    def _decode_to_features(self, quantized):
        """What the last layer of the decoder sees."""
        if self._to_features is None:
            # Shares all layers with the decoder. Keras takes a model that is
            # an attribute for one more part, and gives it a place in files.
            part = keras.Model(self.decoder.input, self.last_layer.input)
            self._to_features = lambda inputs: part(inputs)
        return self._to_features(quantized)

    def call(self, images, training=None, return_details=False):
        if not return_details:
            return super().call(images, training=training)
        self._check_images(images)
        output = self.quantizer(self.encoder(self._pad(images)))
        features = self._decode_to_features(output["quantized"])
        reconstruction = self.apply_last_layer(features, images)
        return {
            "reconstruction": reconstruction,
            "features": features,
            **output,
        }

    def apply_last_layer(self, features, images):
        """The reconstruction of `images` from what the last layer sees."""
        return image_tools.crop_like(self.last_layer(features), images)

    # The losses

    def _check_sizes(self, images):
        super()._check_sizes(images)
        _check_perceptual(self.perceptual_loss, images.shape)

    def _create_training_state(self, loss_names):
        if self.perceptual_loss is not None:
            loss_names = [*loss_names, "perceptual_loss"]
        super()._create_training_state(loss_names)

    def reconstruction_losses(self, images, reconstruction) -> dict:
        """Losses that depend on the reconstruction.

        Args:
            images: Float tensor in [-1, 1].
            reconstruction: Float tensor like `images`.

        Returns:
            Dict of unweighted float32 scalars, means over the batch.
        """
        losses = super().reconstruction_losses(images, reconstruction)
        if self.perceptual_loss is not None:
            values = self.perceptual_loss(
                ops.cast(images, "float32"),
                ops.cast(reconstruction, "float32"),
            )
            losses["perceptual_loss"] = batch_mean(values)
        return losses

    # Saving

    def preset_parts(self) -> dict:
        """What a preset keeps in files of its own, and may lack."""
        if self.discriminator is None:
            return {}
        return {"discriminator": self.discriminator}

    def get_config(self):
        config = super().get_config()
        for name in ("encoder", "decoder", "downsample_factor"):
            del config[name]
        if not self._has_own_quantizer:
            del config["quantizer"]
        pack = keras.saving.serialize_keras_object
        return {
            **config,
            **self._arguments,
            "discriminator": pack(self.discriminator),
            "adversarial": pack(self.adversarial),
            "perceptual_loss": serialize_perceptual_loss(self.perceptual_loss),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("discriminator", "adversarial"):
            if isinstance(config.get(name), dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return super().from_config(config, custom_objects=custom_objects)


def _check_perceptual(loss, shape):
    check = getattr(loss, "check_shape", None)
    if callable(check):
        check(shape)
