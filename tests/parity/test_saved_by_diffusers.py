"""Directories that diffusers itself has written, loaded without it."""

import numpy as np
import pytest

from keras_vq.models import VQGAN
from keras_vq.models.vqgan_networks import VQGANNetworks
from tests import diffusers_vqgan, small_vqgan

SIZES = {
    "base_channels": 32,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "latent_channels": 8,
    "codebook_dim": 4,
}
PLAIN = {"discriminator": None, "perceptual_loss": None}


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("groups", [16, 32])
@pytest.mark.parametrize("attention", [True, False])
def test_save_pretrained(tmp_path, figure, safe, groups, attention):
    sizes = {
        **SIZES,
        "groups": groups,
        "attention_factors": (2,) if attention else (),
        "middle_attention": attention,
    }
    model = VQGAN(codebook_size=64, **sizes, **PLAIN)
    small_vqgan.randomize(model, seed=1)
    twin = diffusers_vqgan.vq_model(model, VQGANNetworks(**sizes))
    twin.float().save_pretrained(tmp_path, safe_serialization=safe)
    loaded = VQGAN.from_preset(tmp_path, **PLAIN)
    images = small_vqgan.images(2, 16, 24, 3)
    want, codes = diffusers_vqgan.reconstruct(twin.double(), images)
    np.testing.assert_array_equal(loaded.encode(images), codes)
    error = np.abs(np.asarray(loaded(images)) - want).max()
    count = sum(parameter.numel() for parameter in twin.parameters())
    assert loaded.count_params() == count
    figure(
        f"saved by diffusers ({'safetensors' if safe else 'bin'}, {groups} "
        f"groups, attention {attention})",
        f"codes equal {codes.size}/{codes.size}, images within {error:.1e}",
    )
    assert error < 1e-4 * np.abs(want).max()
    assert len(np.unique(codes)) > 5
    if safe and groups == 32 and not attention:
        # The training goes on from it.
        loaded.compile("sgd")
        history = loaded.fit(images, epochs=2, verbose=0).history["loss"]
        assert history[1] < history[0]
