"""Published weights by name: fetched once, checked, converted, offline."""

import pathlib
import shutil
import socket

import numpy as np
import pytest

import keras_vq
from keras_vq.convert import DamagedFileError, download
from keras_vq.models import VQVAE, VQAutoencoder
from keras_vq.presets import PresetUnavailableError, preset_info, registry

NAME = "vqvae_cifar_swasun"
PUBLISHED = sorted(
    name for name, e in registry.registry().items() if e.is_published_file
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no connection."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def refuse(*_):
        raise OSError("no connection here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return download.cache_folder("presets")


@pytest.fixture
def checkpoint(data_dir):
    (name,) = preset_info(NAME)["files"]
    path = data_dir / "weights" / "vqvae_cifar10_swasun" / name
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return path


def test_cold_cache_says_which_file_to_put_where(cache):
    with pytest.raises(PresetUnavailableError) as error:
        VQVAE.from_preset(NAME)
    text = str(error.value)
    assert preset_info(NAME)["where"] in text
    assert f"save it as {cache / 'model_ema_norm_he-et-al.pth'}" in text
    assert not cache.exists() or not list(cache.iterdir())


def test_converted_once(cache, checkpoint):
    cache.mkdir(parents=True)
    copy = shutil.copy(checkpoint, cache)
    model = VQVAE.from_preset(NAME)
    assert model.count_params() == preset_info(NAME)["parameters"]
    images = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3))
    images = images.astype("float32")
    direct = VQVAE.from_preset(checkpoint)
    np.testing.assert_array_equal(model(images), direct(images))
    # From now on the preset is enough.
    pathlib.Path(copy).unlink()
    again = VQAutoencoder.from_preset(NAME)
    np.testing.assert_array_equal(again(images), direct(images))
    (directory,) = cache.iterdir()
    assert keras_vq.presets.verify(NAME) == keras_vq.presets.verify(directory)


def test_other_files_are_refused(cache, checkpoint):
    cache.mkdir(parents=True)
    path = cache / checkpoint.name
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="not the published"):
        VQVAE.from_preset(NAME)
    assert [entry.name for entry in cache.iterdir()] == [path.name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_entries_are_pinned(name):
    entry = registry.registry()[name]
    assert len(entry.files) == 1
    for file in entry.files.values():
        assert len(file["sha256"]) == 64 and file["size"] > 0
    # A commit, not a branch, which moves.
    assert any(
        len(part) == 40 and not set(part) - set("0123456789abcdef")
        for part in entry.where.split("/")
    )
    assert entry.metadata["state"] in (
        "verified on the real file",
        "verified on a file of this layout",
    )
    page = pathlib.Path(keras_vq.__file__).parents[1] / "docs" / "convert.md"
    row = f"| `{name}` | {entry.metadata['state']}"
    assert row in page.read_text(encoding="utf-8")
