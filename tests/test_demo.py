"""The demo, as `make demo` runs it."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
DEMO = ROOT / "applications" / "vqvae_cifar" / "demo.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    # The level that the tests themselves have would win over the demo's.
    environment = {k: v for k, v in os.environ.items() if "TF_CPP" not in k}
    run = subprocess.run(
        [sys.executable, DEMO, "--output", folder / "demo.png"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run, folder / "demo.png"


def test_prints_its_figures_and_nothing_else(demo):
    run, _ = demo
    # Not a line of TensorFlow's log.
    assert run.stderr == ""
    psnr = float(re.search(r"PSNR +([\d.]+) dB", run.stdout)[1])
    used = int(re.search(r"codes used +(\d+) of 512", run.stdout)[1])
    assert psnr > 24
    assert used > 200
    assert re.search(r"bits per image +576 ", run.stdout)


def test_fine_tuning_lowers_the_loss(demo):
    run, _ = demo
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", run.stdout)]
    assert len(losses) > 2
    assert losses[-1] < 0.9 * losses[0]
    before, after = re.search(r"([\d.]+) -> ([\d.]+) dB", run.stdout).groups()
    assert float(after) > float(before) + 0.3


def test_writes_originals_above_reconstructions(demo):
    image = pytest.importorskip("PIL.Image")
    sheet = np.asarray(image.open(demo[1]).convert("RGB")).astype(float)
    samples = DEMO.with_name("samples") / "samples.png"
    samples = np.asarray(image.open(samples)).astype(float)
    rows, columns = samples.shape[0] // 32, samples.shape[1] // 32
    # Every tile of the sheet stands on it somewhere, six times enlarged, with
    # its reconstruction one tile and one gap below.
    for row in range(rows):
        for column in range(columns):
            tile = samples[32 * row :, 32 * column :][:32, :32]
            top = 6 + row * (2 * (192 + 6) + 12)
            left = 6 + column * (192 + 6)
            shown = sheet[top : top + 192 : 6, left : left + 192 : 6]
            np.testing.assert_array_equal(shown, tile)
            below = top + 192 + 6
            seen = sheet[below : below + 192 : 6, left : left + 192 : 6]
            error = np.mean((seen - tile) ** 2)
            assert 0 < error < 1500, (row, column)


def test_the_picture_in_the_documentation_is_this_one(demo):
    image = pytest.importorskip("PIL.Image")
    drawn = np.asarray(image.open(demo[1]).convert("RGB")).astype(float)
    shown = image.open(ROOT / "docs" / "demo.png").convert("RGB")
    # Processors round differently, and a code may flip.
    assert np.mean(np.abs(drawn - np.asarray(shown))) < 1
