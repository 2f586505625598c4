"""Small networks as a user would write them, and images for them."""

import keras
import numpy as np
from keras import layers

from keras_vq.losses import AdversarialTraining
from keras_vq.models import VQGAN, VQVAE2, PatchGAN


def images(*shape, seed=0):
    """Images in [-1, 1], a colour each and some noise: quickly learned."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(-0.8, 0.8, (shape[0], shape[-1]))
    middle = (1,) * (len(shape) - 2)
    colours = colours.reshape(shape[0], *middle, shape[-1])
    return (colours + rng.uniform(-0.2, 0.2, shape)).astype("float32")


def encoder(channels=3, latents=4, size=None, dtype=None, **kwargs):
    """A functional encoder, four pixels to a position."""
    x = inputs = keras.Input((size, size, channels), dtype="float32")
    x = layers.Conv2D(
        8, 4, 2, "same", activation="relu", dtype=dtype, **kwargs
    )(x)
    x = layers.Conv2D(latents, 4, 2, "same", dtype=dtype)(x)
    return keras.Model(inputs, x, name="my_encoder")


def decoder(channels=3, latents=4, dtype=None):
    """A functional decoder, a position to four pixels."""
    x = inputs = keras.Input((None, None, latents), dtype="float32")
    x = layers.Conv2DTranspose(8, 4, 2, "same", activation="relu", dtype=dtype)(
        x
    )
    x = layers.Conv2DTranspose(channels, 4, 2, "same", dtype=dtype)(x)
    return keras.Model(inputs, x, name="my_decoder")


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class DropoutEncoder(keras.layers.Layer):
    """An encoder as a subclassed layer, which has no input shape."""

    def __init__(self, latents=4, rate=0.2, **kwargs):
        super().__init__(**kwargs)
        self.latents = latents
        self.rate = rate
        policy = self.dtype_policy
        self.first = layers.Conv2D(8, 4, 2, "same", dtype=policy)
        self.dropout = layers.Dropout(rate, seed=1, dtype=policy)
        self.second = layers.Conv2D(latents, 4, 2, "same", dtype=policy)

    def call(self, inputs, training=None):
        x = keras.ops.relu(self.first(inputs))
        return self.second(self.dropout(x, training=training))

    def get_config(self):
        config = super().get_config()
        return {**config, "latents": self.latents, "rate": self.rate}


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class DenseEncoder(keras.layers.Layer):
    """One matrix for each 4x4 patch: easy to follow by hand."""

    def __init__(self, latents=2, **kwargs):
        super().__init__(**kwargs)
        self.latents = latents
        self.patches = layers.Conv2D(latents, 4, 4, "valid")

    def call(self, inputs):
        return self.patches(inputs)

    def get_config(self):
        return {**super().get_config(), "latents": self.latents}


@keras.saving.register_keras_serializable(package="keras_vq_tests")
def edge_loss(images, reconstruction):
    """A perceptual loss without files: how much vertical edges differ."""
    difference = images - reconstruction
    edges = difference[:, 1:] - difference[:, :-1]
    return keras.ops.mean(keras.ops.abs(edges), axis=(1, 2, 3))


def vqgan(adversarial=None, critic="batch", **arguments):
    """The smallest VQGAN, two pixels to a position.

    Args:
        adversarial: Dict, arguments of `AdversarialTraining`.
        critic: The discriminator, its normalization, or None for none.
        **arguments: Of `VQGAN`.
    """
    arguments = {
        "base_channels": 8,
        "channel_multipliers": (1, 2),
        "residual_blocks": 1,
        "attention_factors": (),
        "middle_attention": False,
        "latent_channels": 4,
        "codebook_size": None if "quantizer" in arguments else 8,
        "codebook_dim": 4,
        "groups": 4,
        "perceptual_loss": edge_loss,
        **arguments,
    }
    if isinstance(critic, str):
        critic = PatchGAN(
            4,
            num_layers=1,
            channels=arguments.get("channels", 3),
            normalization=critic,
            dtype=arguments.get("dtype"),
            name="discriminator",
        )
    return VQGAN(
        discriminator=critic,
        adversarial=AdversarialTraining(**(adversarial or {})),
        **arguments,
    )


def vqvae2(quantizer=None, **arguments):
    """The smallest VQ-VAE-2, four and two pixels to a position.

    Args:
        quantizer: Function without arguments that makes one for a level.
        **arguments: Of `VQVAE2`.
    """
    if quantizer is not None:
        arguments["quantizers"] = [quantizer(), quantizer()]
    return VQVAE2(
        **{
            "downsample_factors": (2, 2),
            "hidden_units": 8,
            "residual_units": 4,
            "codebook_size": None if quantizer else 8,
            "codebook_dim": 4,
            **arguments,
        },
    )


def lively_vqvae2(quantizer=None, **arguments):
    """A `vqvae2` whose deepest kernels move within some steps of SGD.

    As they start, gradients shrink from layer to layer: to say that two runs
    are equal would say little of what stands between the levels.
    """
    model = vqvae2(quantizer, **arguments)
    for variable in model.trainable_variables:
        if variable.name == "kernel":
            variable.assign(1.5 * variable)
    return model


def smooth_vqgan(adversarial=None, **arguments):
    """A VQGAN whose losses have no kinks, with attention.

    At the kinks of |x| and of the hinge loss rounding decides on a gradient,
    and two runs that are equal part within some steps.
    """
    return vqgan(
        {"loss": "vanilla", "weight": 0.1, **(adversarial or {})},
        perceptual_loss=None,
        reconstruction_loss="mse",
        **{"attention_factors": (2,), **arguments},
    )


def randomized(model):
    """The model with start values that every backend draws alike."""
    rng = np.random.RandomState(0)
    for weight in model.trainable_weights:
        drawn = rng.normal(size=weight.shape)
        if len(weight.shape) > 1:
            drawn /= np.sqrt(np.prod(weight.shape[:-1]))
        else:
            drawn = 0.1 * drawn + (weight.name in ("gamma", "scale"))
        weight.assign(drawn)
    for quantizer in model.quantizer.levels():
        codes = 0.5 * rng.normal(size=quantizer.codebook.shape)
        quantizer.codebook.assign(codes)
        quantizer.sums.assign(codes)
    return model
