"""A small VQGAN with random weights, which need only NumPy to be made again."""

import keras
import numpy as np

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQGAN
from keras_vq.models.discriminators import PatchGAN

# The networks of `keras_vq.models.vqgan_networks`, in both.
SIZES = {
    "base_channels": 16,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_factors": (2,),
    "latent_channels": 8,
    "codebook_dim": 4,
    "groups": 4,
}
CODES = 64


def make(
    normalization="batch", spectral=False, decay=None, seed=0, **arguments
):
    """A VQGAN whose every weight is random.

    Args:
        normalization: Of the discriminator.
        spectral: Whether that has spectral normalization.
        decay: Float, of a codebook of moving averages; None for one that
            learns by gradient.
        seed: Integer.
        **arguments: Of `VQGAN`.
    """
    kind = VectorQuantizer if decay is None else EMAVectorQuantizer
    quantizer = kind(
        CODES,
        SIZES["codebook_dim"],
        codebook_initializer="zeros",
        decay=0.99 if decay is None else decay,
        revival_threshold=0,
    )
    critic = PatchGAN(4, 2, 3, normalization, spectral)
    arguments = {"perceptual_loss": None, **SIZES, **arguments}
    model = VQGAN(
        codebook_size=None,
        quantizer=quantizer,
        discriminator=critic,
        **arguments,
    )
    randomize(model, seed)
    return model


def randomize(model, seed=0):
    """Gives every trained weight a random value, one after the other."""
    # Unlike those of the newer generator, its numbers never change.
    rng = np.random.RandomState(seed)
    quantizer, critic = model.quantizer, model.discriminator
    for variable in [
        *model.encoder.weights,
        *model.decoder.weights,
        *(critic.trainable_weights if critic is not None else []),
    ]:
        values = rng.normal(size=variable.shape)
        if variable.name == "kernel":
            values /= np.sqrt(np.prod(variable.shape[:-1]))
        else:
            is_scale = variable.name in ("gamma", "scale")
            values = 0.3 * values + is_scale
        variable.assign(values)
    codes = 0.6 * rng.normal(size=quantizer.codebook.shape)
    quantizer.codebook.assign(codes)
    quantizer._initialized.assign(1.0)
    if hasattr(quantizer, "sums"):
        quantizer.sums.assign(codes)
    if critic is None:
        return
    for layer in critic.main:
        if hasattr(layer, "_initialized"):
            layer._initialized.assign(1.0)
    if critic.use_spectral_normalization:
        for _ in range(3):
            critic.update()


def images(*shape, seed=0):
    """Random images: noise on a gradient, in [-1, 1]."""
    rng = np.random.RandomState(seed)
    ramp = np.linspace(-1, 1, shape[1])[:, None, None]
    noise = rng.uniform(-1, 1, shape)
    return (0.5 * ramp + 0.5 * noise).astype("float32")


def sgd(rate):
    """Plain SGD that keeps the gradients of its last step; see `gradients`.

    A momentum too small to count makes it keep them.
    """
    return keras.optimizers.SGD(rate, momentum=1e-30)


def gradients(optimizer, variables):
    """What an optimizer of `sgd` was last given, for each variable."""
    rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
    return [
        keras.ops.convert_to_numpy(
            optimizer.momentums[optimizer._get_variable_index(v)]
        )
        / -rate
        for v in variables
    ]
