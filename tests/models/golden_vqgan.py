"""Golden values of a VQGAN, of which `test_vqgan_golden.py` needs no PyTorch.

`python -m tests.models.golden_vqgan` writes them anew: the reconstruction and
codes are those of diffusers, the terms of the loss and the gradients those of
`tests/torch_vqgan_step.py`, all in float64.
"""

import json
import pathlib

import keras
import numpy as np

from keras_vq.losses import AdversarialTraining
from tests import small_vqgan as small

PATH = pathlib.Path(__file__).with_name("golden_vqgan.json")
COMMAND = "python -m tests.models.golden_vqgan"
WEIGHTS = {"r1_weight": 1.0, "lecam_weight": 0.5}
PERCEPTUAL_WEIGHT = 0.7
RATE = 0.1


def make():
    """The model and the images that the values belong to."""
    model = small.make(
        adversarial=AdversarialTraining(**WEIGHTS),
        perceptual_loss=squared_error,
        perceptual_weight=PERCEPTUAL_WEIGHT,
    )
    return model, small.images(2, 16, 12, 3)


def squared_error(images, reconstruction):
    """In the place of a perceptual loss."""
    return keras.ops.mean(keras.ops.square(images - reconstruction), (1, 2, 3))


def summary(gradient):
    """The norm of a gradient, and its product with a fixed random vector."""
    gradient = np.asarray(gradient, "float64").reshape(-1)
    vector = np.random.RandomState(0).normal(size=gradient.shape)
    return [float(np.linalg.norm(gradient)), float(gradient @ vector)]


def write():
    """Writes the values that PyTorch and diffusers give."""
    from keras_vq.models.vqgan_networks import VQGANNetworks
    from tests import diffusers_vqgan
    from tests import torch_vqgan_step as reference
    from tests.models import torch_discriminator

    model, images = make()
    sizes = VQGANNetworks(**small.SIZES)
    twin = diffusers_vqgan.vq_model(model, sizes)
    reconstruction, codes = diffusers_vqgan.reconstruct(twin, images)
    recipe = reference.Recipe(
        levels=len(sizes.channel_multipliers),
        blocks=sizes.residual_blocks,
        groups=sizes.groups,
        perceptual=lambda a, b: (a - b).square().mean((1, 2, 3)),
        perceptual_weight=PERCEPTUAL_WEIGHT,
        **WEIGHTS,
    )
    training = reference.twin(model, recipe)
    terms = training.step(torch_discriminator.images_to_torch(images))
    np.testing.assert_array_equal(codes, training.indices)
    assert training.margin > 1e-4, "gradients jump here: take other images"
    found = (training.gradients, training.discriminator_gradients)
    names = zip(reference.named_variables(model), found, strict=True)
    values = {
        "written_by": COMMAND,
        "codes": codes.tolist(),
        "reconstruction": reconstruction[0].tolist(),
        "terms": terms,
        "gradients": [
            [summary(reference.as_keras(gradients[name])) for name in variables]
            for variables, gradients in names
        ],
    }
    text = json.dumps(_rounded(values), separators=(",", ":"))
    PATH.write_text(text.replace(',"', ',\n"') + "\n", encoding="utf-8")


def _rounded(values):
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


if __name__ == "__main__":
    write()
