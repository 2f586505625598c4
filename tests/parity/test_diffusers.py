"""VQGAN beside the `VQModel` of diffusers, with the same weights."""

import time

import numpy as np
import pytest
from skimage.data import astronaut

from keras_vq.models import VQGAN
from keras_vq.models.vqgan_networks import VQGANNetworks
from tests import diffusers_vqgan, small_vqgan

# The network for ImageNet, which the defaults are, and those of latent
# diffusion: one with attention within the levels, one without.
CONFIGURATIONS = {
    "f16": (256, {}),
    "f8": (
        128,
        {
            "channel_multipliers": (1, 2, 2, 4),
            "attention_factors": (8,),
            "latent_channels": 4,
            "codebook_dim": 4,
        },
    ),
    "f4": (
        64,
        {
            "channel_multipliers": (1, 2, 4),
            "attention_factors": (),
            "latent_channels": 3,
            "codebook_dim": 3,
        },
    ),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_reconstruction_and_codes(name, figure):
    size, arguments = CONFIGURATIONS[name]
    model = VQGAN(**arguments, discriminator=None, perceptual_loss=None)
    small_vqgan.randomize(model)
    twin = diffusers_vqgan.vq_model(model, VQGANNetworks(**arguments))
    count = sum(p.numel() for p in twin.parameters())
    assert model.count_params() == count
    if name == "f16":
        assert count == 72_141_699
    # The astronaut's face and what is around it.
    images = astronaut()[None, :size, 96 : 96 + size] / 127.5 - 1.0
    images = images.astype("float32")
    start = time.perf_counter()
    want, codes = diffusers_vqgan.reconstruct(twin, images)
    middle = time.perf_counter()
    got = np.asarray(model(images))
    ours = np.asarray(model.encode(images))
    end = time.perf_counter()
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    largest = np.abs(got - want).max()
    figure(
        f"diffusers VQModel, {name}, {count:,} parameters, {size} px",
        f"codes equal {(ours == codes).sum()}/{codes.size} "
        f"({len(np.unique(codes))} different), reconstruction within "
        f"{error:.1e} of its norm, {largest:.1e} at most "
        f"({middle - start:.0f} s of float64 there, {end - middle:.0f} s here)",
    )
    np.testing.assert_array_equal(ours, codes)
    assert error < 1e-4
    assert len(np.unique(codes)) > 10
