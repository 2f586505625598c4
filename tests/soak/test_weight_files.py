"""Files of weights: one bit changed, and the memory that loading takes."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_vq.convert import ConversionError, read_torch_file
from keras_vq.convert.layouts import taming, vqgan
from keras_vq.convert.loading import describe
from keras_vq.convert.weight_file import open_weights

COUNT = 20_000


@pytest.fixture
def files(data_dir, tmp_path):
    """Copies of published files, and one of them in two other formats."""
    torch = pytest.importorskip("torch", reason="writes with PyTorch")
    from safetensors.numpy import save_file

    folder = data_dir / "weights"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    copies = []
    for kind in ("vqvae*", "lpips*"):
        for path in sorted(folder.glob(f"{kind}/*.pth")):
            copies.append(tmp_path / path.name)
            copies[-1].write_bytes(path.read_bytes())
    arrays = read_torch_file(copies[0])
    copies.append(tmp_path / "model.safetensors")
    save_file({k: np.array(v) for k, v in arrays.items()}, copies[-1])
    copies.append(tmp_path / "zipped.pth")
    state = {k: torch.tensor(np.array(v)) for k, v in arrays.items()}
    torch.save(state, copies[-1])
    return copies


def test_mutations(files, figure):
    rng = np.random.default_rng(0)
    results = collections.Counter()
    for i in range(COUNT):
        path = files[i % len(files)]
        size = path.stat().st_size
        # Half of them where the names and sizes are: at either end.
        end = min(size, 8192)
        place = int(rng.integers(size))
        if i % 4 < 2:
            place = int(rng.integers(end)) + (size - end) * (i % 2)
        with open(path, "r+b") as file:
            file.seek(place)
            (before,) = file.read(1)
            file.seek(place)
            file.write(bytes([before ^ 1 << int(rng.integers(8))]))
        try:
            _read(path, with_values=i % 3 == 0)
            results["read"] += 1
        except ConversionError as error:
            results[type(error).__name__] += 1
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(bytes([before]))
    for path in files:  # As they were before.
        _read(path)
    assert set(results) <= {
        "read",
        "DamagedFileError",
        "LayoutError",
        "UnsafeFileError",
    }
    figure(f"{COUNT} weight files with one bit changed", dict(results))
    assert results["read"] < COUNT


def _read(path, with_values=True):
    if path.stat().st_size < 2**20:
        read_torch_file(path)  # The linear layers of LPIPS are no model.
        return
    describe(path)
    if with_values:
        with open_weights(path) as file:
            for name in file.shapes:
                file.read(name)


_MEASURE = r"""
import re, sys
import keras, keras_vq
from keras_vq.models import VQGAN

def peak():
    # Not `getrusage`, which starts from the process before it.
    text = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024

# What any model takes once: code, and TensorFlow's own memory.
VQGAN(base_channels=32, perceptual_loss=None, discriminator=None)
before = peak()
model = VQGAN.from_preset(sys.argv[1], perceptual_loss=None, discriminator=None)
print(peak() - before, model.count_params())
"""


def test_memory(tmp_path, figure):
    """The original for ImageNet: 72,141,699 parameters, 289 MB."""
    torch = pytest.importorskip("torch", reason="writes with PyTorch")
    if not pathlib.Path("/proc/self/status").exists():
        pytest.skip("needs Linux to measure")
    arguments = {
        "base_channels": 128,
        "channel_multipliers": [1, 1, 2, 2, 4],
        "residual_blocks": 2,
        "attention_factors": [16],
        "middle_attention": True,
        "latent_channels": 256,
        "codebook_size": 1024,
        "codebook_dim": 256,
        "channels": 3,
    }
    rows = vqgan.network_rows(arguments, taming._NAMES)
    state = {row.name: torch.ones(row.shape) for row in rows if row.name}
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state}, path)
    command = [sys.executable, "-c", _MEASURE, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, count = map(int, run.stdout.split())
    assert count == 72_141_699
    size = 4 * count
    assert grown > size  # Or nothing was measured.
    figure(
        "memory of from_preset with a VQGAN of 72 M parameters",
        f"{grown / 1e6:.0f} MB, {grown / size:.2f} of the model's size",
    )
    assert grown < 1.2 * size + 64 * 2**20
