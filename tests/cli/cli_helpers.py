import functools

import keras
import numpy as np
from PIL import Image

import keras_vq


def make_preset(directory, seed, **arguments):
    keras.utils.set_random_seed(seed)
    arguments = {"codebook_size": 32, "channels": 3, **arguments}
    model = keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_dim=4, **arguments
    )
    rng = np.random.default_rng(seed)
    shape = (8, 16, 16, arguments["channels"])
    model.adapt(rng.uniform(-1, 1, shape).astype("float32"))
    model.save_to_preset(str(directory))
    return str(directory)


def save(path, image):
    Image.fromarray(np.asarray(image).astype("uint8")).save(path)


def load(path):
    return np.asarray(Image.open(path))


@functools.cache
def loaded(preset):
    return keras_vq.models.VQVAE.from_preset(preset)


def reconstruction(preset, image):
    """What the model makes of one uint8 image: levels in [0, 255], codes.

    Put together here: padding, the search of the nearest code and conversions
    are NumPy's, only the convolutions are the model's.
    """
    model = loaded(preset)
    height, width = image.shape[:2]
    padding = ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0))
    floats = (image[np.newaxis].astype("float64") / 127.5 - 1).astype("float32")
    floats = np.pad(floats, padding, mode="edge")
    latents = np.asarray(model.encoder(floats), "float64")
    codebook = np.asarray(model.quantizer.codebook)
    distances = np.square(latents[..., np.newaxis, :] - codebook).sum(-1)
    codes = distances.argmin(-1)
    output = np.asarray(model.decoder(codebook[codes]), "float64")
    levels = np.clip((output[0] + 1) * 127.5, 0, 255)
    return levels[:height, :width], codes[0]


def assert_shows(pixels, levels):
    """The pixels are the levels, rounded.

    A level of 127.4999 may be either: the last bits of a convolution depend
    on the size of the batch.
    """
    assert pixels.dtype == np.uint8
    assert pixels.shape == levels.shape
    assert np.abs(pixels - levels).max() <= 0.5 + 1e-3
