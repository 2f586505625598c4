"""`keras-vq convert`: weights of other programs as presets."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_vq
from keras_vq.presets import hub

SAMPLES = (
    pathlib.Path(__file__)
    .parents[2]
    .joinpath("applications", "vqgan_tiny_imagenet", "samples", "samples.png")
)


@pytest.fixture(scope="module")
def checkpoint(data_dir):
    name = "model_ema_norm_he-et-al.pth"
    path = data_dir / "weights" / "vqvae_cifar10_swasun" / name
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return path


def test_convert(program, fails, checkpoint, tmp_path):
    target = tmp_path / "converted"
    status, output, _ = program("convert", checkpoint, target)
    assert status == 0
    assert "swasun/VQ-VAE-Images (layout swasun), 27 tensors, 21 " in output
    found = keras_vq.models.VQVAE.from_preset(checkpoint)
    assert f"VQVAE of {found.count_params():,} parameters" in output
    # The astronaut, the first of the sheet.
    with Image.open(SAMPLES) as sheet:
        image = np.asarray(sheet)[None, :64, :64]
    seen = found.postprocess(found(found.preprocess(image)))
    error = np.square(np.asarray(seen).astype(float) - image).mean()
    psnr = 10 * np.log10(255**2 / error)
    assert f"PSNR {psnr:.2f} dB" in output and psnr > 20
    model = keras_vq.models.VQAutoencoder.from_preset(target)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3))
    images = images.astype("float32")
    np.testing.assert_array_equal(model(images), found(images))
    # The training goes on from it.
    model.compile("sgd")
    model.fit(images, verbose=0)
    # It stays where it is, unless it is to be replaced.
    assert "overwrite=True" in fails("convert", checkpoint, target)
    assert program("convert", checkpoint, target, "--overwrite")[0] == 0
    status, output, _ = program("info", target)
    assert "layout: swasun" in output


def test_an_address_on_the_hub(program, checkpoint, tmp_path, monkeypatch):
    asked = []

    def fetch(address):
        asked.append(address)
        return checkpoint

    monkeypatch.setattr(hub, "fetch", fetch)
    address, target = "hf://user/repo/model.pth@v1", tmp_path / "converted"
    status, output, _ = program("convert", address, target)
    assert (status, asked) == (0, [address])
    assert output.startswith(f"{address}: VQ-VAE of swasun")
    assert f"file: {address}\n" in program("info", target)[1]


def test_bad_files(fails, tmp_path):
    missing = tmp_path / "missing.pth"
    assert "there is no" in fails("convert", missing, tmp_path / "out")
    page = tmp_path / "page.pth"
    page.write_text("<html>")
    assert "web pages" in fails("convert", page, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    words = ("convert", page, tmp_path / "out", "--argument", "inplace")
    assert "NAME=VALUE" in fails(*words, status=2)


def test_arguments(program, fails, checkpoint, tmp_path):
    copy = shutil.copy(checkpoint, tmp_path / "copy.pth")
    target = tmp_path / "out"
    words = ("convert", copy, target, "--argument")
    assert "no argument 'bogus'" in fails(*words, "bogus=3")
    assert program(*words, "commitment_weight=0.5")[0] == 0
    model = keras_vq.models.VQVAE.from_preset(target)
    assert model.loss_weights["commitment_loss"] == 0.5
