"""Everything that the README shows is run, and its figures are compared."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import keras_vq
from keras_vq.training.card import by_level

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES = ROOT / "applications" / "vqvae_cifar" / "samples" / "samples.png"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with `photos/` as the README describes it."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("readme")
    sheet = np.asarray(image.open(SAMPLES).convert("RGB"))
    for number in range(24):
        row, column = divmod(number, 8)
        tile = sheet[32 * row :, 32 * column :][:32, :32]
        target = folder / "photos" / f"class_{number % 3}"
        target.mkdir(parents=True, exist_ok=True)
        # Pictures come in all sizes.
        size = (40 + number, 64 - number)
        image.fromarray(tile).resize(size).save(target / f"{number}.png")
    return folder


def test_there_is_something_to_run():
    assert len(blocks("python")) >= 5
    assert 'from_preset("vqvae_cifar")' in blocks("python")[0]
    # A block in another spelling would silently not be run.
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert set(fences[::2]) <= {"python", "shell"}
    assert set(fences[1::2]) == {""}


def test_python_blocks_run_in_order(folder, mirrored_is_two_replicas):
    namespace = {"__name__": "readme"}
    with contextlib.chdir(folder):
        for number, block in enumerate(blocks("python"), start=1):
            code = compile(block, f"README.md, python block {number}", "exec")
            exec(code, namespace)
            _check(number, namespace)
    assert (folder / "best.keras").is_file()
    assert (folder / "my_preset" / "model.weights.h5").is_file()
    assert sorted((folder / "grids").glob("*.png"))


def _check(number, names):
    """What the comments of a block claim."""
    if number == 1:
        count = len(names["labels"])
        assert names["codes"].shape == (count, 8, 8)
        assert np.asarray(names["codes"]).dtype == np.int32
        assert 0 <= np.min(names["codes"]) <= np.max(names["codes"]) < 512
        assert names["y"].shape == (count, 32, 32, 3)
        assert names["model"].bits_per_image(32, 32) == 576.0
        history = names["model"].history.history
        assert {"val_loss", "val_psnr", "perplexity"} <= set(history)
    if number == 3:
        count = len(names["images"])
        assert names["coarse"].shape == (count, 8, 8)
        assert names["fine"].shape == (count, 16, 16)
        assert names["restored"].shape == (count, 64, 64, 3)
        assert names["model"].bits_per_level(64, 64) == [576.0, 2304.0]
    if number == 4:
        count = len(names["images"])
        assert np.shape(names["codes"]) == (count, 8, 8)
        assert 0 <= np.min(names["codes"]) <= np.max(names["codes"]) < 1024
        assert names["restored"].shape == (count, 64, 64, 3)
    if number == 2:
        pixels = np.asarray(names["pixels"])
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (32, 32, 3)


def test_commands_run(folder):
    commands = [
        line
        for block in blocks("shell")
        for line in block.splitlines()
        if line.startswith("keras-vq ")
    ]
    assert len(commands) == 5
    outputs = {}
    for command in commands:
        words = shlex.split(command, comments=True)
        run = subprocess.run(
            [sys.executable, "-m", "keras_vq.cli", *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, f"{command}\n{run.stderr}"
        outputs[words[1]] = run.stdout
    assert "vqvae_cifar" in outputs["list"]
    assert len(list((folder / "seen").rglob("*.png"))) == 24
    assert len(list((folder / "restored").rglob("*.png"))) == 24


# Images of the evaluation.
BUNDLED = {
    "vqvae_cifar": 2000,
    "vqvae2_tiny_imagenet": 5000,
    "vqgan_tiny_imagenet": 5000,
}


def test_table_lists_every_bundled_preset():
    folders = ROOT.glob("applications/*/preset/metadata.json")
    assert {folder.parents[1].name for folder in folders} == set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_table_of_presets_has_the_measured_figures(name):
    path = ROOT / "applications" / name / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    figures = results["evaluation"]
    sizes = _levels(figures["codebook_size"])
    bits = _levels(figures.get("bits_per_level", figures["bits_per_image"]))
    maps = []
    for number, size in zip(bits, sizes, strict=True):
        side = int((number / np.log2(size)) ** 0.5)
        maps.append(f"{side}x{side} of {size}")
    row = " | ".join(
        [
            f"| [{name}](applications/{name}/README.md)",
            by_level(maps),
            f"{sum(bits):.0f}",
            f"{results['parameters'] / 1e6:.2f} M",
            f"{figures['psnr_db']:.2f} dB",
            f"{figures['ssim']:.3f}",
            by_level(figures["codes_used"]),
            f"{by_level(figures['perplexity'], '{:.0f}')} |",
        ]
    )
    # The registry, `keras-vq list` and `info` say the same.
    info = keras_vq.presets.preset_info(name)
    assert info["parameters"] == results["parameters"]
    assert info["metadata"]["evaluation"] == figures
    assert figures["images"] == BUNDLED[name]
    assert row in README, f"The row should be:\n{row}"


def _levels(value):
    return value if isinstance(value, list) else [value]


def test_links_to_files_work():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    for link in links:
        if not link.startswith("http"):
            assert os.path.exists(ROOT / link), link
