"""A short training in a process of its own, and the hash of all it leaves."""

import hashlib
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from networks import DropoutEncoder, decoder, images
from replicas import values, variables

from keras_vq.data import from_arrays
from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder


def vqvae():
    """Batch normalization, moving averages, and codes that are revived."""
    return VQVAE(
        hidden_units=8,
        residual_units=4,
        use_batch_normalization=True,
        codebook_dim=4,
        quantizer=EMAVectorQuantizer(
            32, 4, decay=0.5, revival_threshold=0.3, name="quantizer"
        ),
    )


def dropout():
    """Somebody's network with random layers; codes learned by gradient."""
    return VQAutoencoder(
        DropoutEncoder(), VectorQuantizer(16, 4), decoder(), name="dropout"
    )


def data(seed):
    """Random crops and flips of shuffled images, decoded in parallel."""
    pictures = (images(64, 20, 20, 3) * 127.5 + 127.5).astype("uint8")
    return from_arrays(
        pictures,
        batch_size=16,
        image_size=16,
        crop="random",
        resize=20,
        flip=True,
        augment=keras.layers.RandomBrightness(0.1, value_range=(0, 255)),
        shuffle=True,
        seed=seed,
    )


def train(make, seed=0):
    """The trained model."""
    keras.utils.set_random_seed(seed)
    model = make()
    model.compile(
        keras.optimizers.AdamW(1e-2),
        weight_ema=0.9,
        clipnorm=1.0,
        accumulation_steps=2,
    )
    model.fit(data(seed), epochs=2, verbose=0)
    return model


def digest(model):
    """SHA-256 of all variables, in their order."""
    total = hashlib.sha256()
    pairs = zip(variables(model), values(model), strict=True)
    for variable, value in pairs:
        assert np.isfinite(value).all(), variable.path
        total.update(variable.name.encode() + value.tobytes())
    return total.hexdigest()


def main(seed):
    """Prints one hash a model."""
    if "--deterministic" in sys.argv:
        tf.config.experimental.enable_op_determinism()
    for make in (vqvae, dropout):
        print(make.__name__, digest(train(make, seed)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
