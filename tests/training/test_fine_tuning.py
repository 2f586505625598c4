"""The recipes of fine-tuning change what they say, and nothing else."""

import json
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vq.applications.vqgan_tiny_imagenet import fine_tuning
from keras_vq.models import VQGAN, PatchGAN


@pytest.fixture
def preset(tmp_path):
    keras.utils.set_random_seed(0)
    model = VQGAN(
        base_channels=4,
        channel_multipliers=(1, 1, 1, 1),
        residual_blocks=1,
        attention_factors=(),
        middle_attention=False,
        latent_channels=4,
        codebook_size=16,
        codebook_dim=4,
        groups=2,
        discriminator=PatchGAN(filters=4, num_layers=2, name="discriminator"),
        perceptual_loss="squeeze",
    )
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3))
    model.adapt(images.astype("float32"))
    model.save_to_preset(tmp_path / "preset")
    return str(tmp_path / "preset")


@pytest.fixture
def folder(tmp_path, data_dir):
    """Photographs of colours and noise, and the real weights of LPIPS."""
    rng = np.random.default_rng(1)
    photos = tmp_path / "data" / "photos"
    photos.mkdir(parents=True)
    for i in range(10):
        image = rng.integers(0, 256, (9, 10, 3)).repeat(16, 0).repeat(16, 1)
        Image.fromarray(image.astype("uint8")).save(photos / f"{i}.png")
    (tmp_path / "data" / "weights").symlink_to(data_dir / "weights")
    return tmp_path / "data"


@pytest.mark.soak
def test_the_command(preset, folder, tmp_path, monkeypatch):
    # One of the three: each takes seconds to compile.
    decoder = {"decoder": fine_tuning.train_decoder}
    monkeypatch.setattr(fine_tuning, "RECIPES", decoder)
    monkeypatch.setattr(fine_tuning, "PRETRAINING_STEPS", 1)
    monkeypatch.setattr(fine_tuning, "BATCH_SIZE", 2)
    monkeypatch.setattr(fine_tuning, "LEARNING_RATE", 1e-2)
    output = tmp_path / "out.json"
    command = ["fine_tuning", "--data-dir", str(folder), "--steps", "2"]
    command += ["--preset", preset, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    fine_tuning.main()
    found = json.loads(output.read_text())
    assert "2 steps of 2 random pieces of 8 photographs" in found["protocol"]
    before = found["results"].pop("as it is")
    assert before["images"] == 10 and before["lpips"] > 0
    assert set(found["results"]) == {
        "decoder, stored discriminator",
        "decoder, fresh discriminator",
    }
    for figures in found["results"].values():
        assert figures["psnr_db"] != before["psnr_db"]
        assert figures["codes_changed"] == 0


@pytest.mark.soak
@pytest.mark.parametrize("fresh", [False, True])
def test_what_stays(preset, folder, fresh, monkeypatch):
    monkeypatch.setattr(fine_tuning, "PRETRAINING_STEPS", 2)
    monkeypatch.setattr(fine_tuning, "BATCH_SIZE", 2)
    images = np.random.default_rng(2).integers(0, 256, (4, 128, 128, 3))
    with fine_tuning.published_files(folder):
        model = fine_tuning.load(preset, fresh)
        stored = VQGAN.from_preset(preset).discriminator.get_weights()
        same = [
            np.array_equal(a, b)
            for a, b in zip(
                model.discriminator.get_weights(), stored, strict=False
            )
        ]
        assert all(same) != fresh
        codebook = np.array(model.quantizer.codebook)
        images = images.astype("uint8")
        fine_tuning.fine_tune(model, fine_tuning.keep_codebook, images, 1, 0)
    np.testing.assert_array_equal(model.quantizer.codebook, codebook)
    # The autoencoder takes its one step after the discriminator's two.
    assert int(model.steps) == (3 if fresh else 1)
    assert int(model.optimizer.generator.iterations) == 1
