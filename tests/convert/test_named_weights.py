"""Published weights by name: fetched once, checked, converted, offline."""

import json
import pathlib
import shutil
import socket
import subprocess
import warnings

import numpy as np
import pytest

import keras_vq
from keras_vq.convert import DamagedFileError, download
from keras_vq.convert.layouts import diffusers, llamagen, taming, vqgan
from keras_vq.models import VQGAN, VQVAE, VQVAE2, VQAutoencoder
from keras_vq.presets import PresetUnavailableError, preset_info, registry
from tests.convert.layout_files import arrays_of, write

NAME = "vqvae_cifar_swasun"
PUBLISHED = sorted(
    name for name, e in registry.registry().items() if e.is_converted
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


# Files of which less is known


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Function that makes a registry of entries like those of their names."""
    path = tmp_path / "registry.json"

    def make(**changes):
        known = json.loads(registry.REGISTRY_PATH.read_text())
        path.write_text(
            json.dumps({n: {**known[n], **c} for n, c in changes.items()})
        )
        monkeypatch.setattr(registry, "REGISTRY_PATH", path)
        registry._read_registry.cache_clear()

    yield make
    registry._read_registry.cache_clear()


def assert_loaded(model):
    """That it has the weights of the files."""
    kernel = arrays_of("taming")["decoder.conv_out.weight"]
    np.testing.assert_array_equal(
        model.decoder.get_layer("conv_out").kernel, kernel.transpose(2, 3, 1, 0)
    )


def test_without_a_published_hash_it_is_said_once(cache, entries):
    """A file that was put where the error says, under two names."""
    pytest.importorskip("huggingface_hub")
    entries(vqgan_imagenet_f16_16384={}, vqgan_imagenet={})
    with pytest.raises(PresetUnavailableError) as error:
        VQGAN.from_preset("vqgan_imagenet")
    folder = cache / "vqgan_imagenet_f16_16384"
    where = preset_info("vqgan_imagenet")["where"]
    assert f"what is at {where} as {folder / 'flax_model.msgpack'}." in str(
        error.value
    )
    folder.mkdir(parents=True)
    path = write("flax", arrays_of("flax"), folder)
    with pytest.warns(UserWarning, match="none is known.*SHA-256") as told:
        model = VQGAN.from_preset("vqgan_imagenet")
    digest = subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    (message,) = (str(w.message) for w in told if w.category is UserWarning)
    assert digest in message
    assert model.fresh_parts == ("discriminator",)
    shutil.rmtree(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other = VQGAN.from_preset("vqgan_imagenet_f16_16384")
    assert_loaded(model)
    assert_loaded(other)
    (directory,) = cache.iterdir()
    facts = json.loads((directory / "metadata.json").read_text())["metadata"]
    assert facts["converted_from"] == {
        "url": where,
        "sha256": digest,
        "compared_with_a_published_hash": False,
        "layout": "flax",
    }


def test_a_directory_of_diffusers(cache, entries):
    pytest.importorskip("safetensors")
    entries(amused_256={})
    folder = cache / "amused_256"
    folder.mkdir(parents=True)
    write("diffusers", arrays_of("diffusers"), folder)
    with pytest.warns(UserWarning, match="none is known"):
        model = VQGAN.from_preset("amused_256")
    assert_loaded(model)


def test_a_file_that_git_knows(cache, entries):
    """Its hash is compared, and its argument is not asked for."""
    pytest.importorskip("safetensors")
    cache.mkdir(parents=True)
    path = write("rosinality", arrays_of("rosinality"), cache)
    path = path.rename(cache / "vqvae_560.pt")
    blob = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    with pytest.raises(DamagedFileError, match="git blob id: a71304f01e98dae"):
        VQVAE2.from_preset("vqvae2_ffhq")
    files = {"vqvae_560.pt": {"git_blob": blob, "size": "unknown"}}
    entries(vqvae2_ffhq={"files": files})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = VQVAE2.from_preset("vqvae2_ffhq")
    assert model.get_config()["inplace_relu_residual"] is True


# The entries


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_an_entry_says(name):
    entry = registry.registry()[name]
    for file in entry.files.values():
        assert file["sha256"] == "unknown" or len(file["sha256"]) == 64
        assert file["size"] == "unknown" or file["size"] > 0
    # A commit, not a branch, which moves; or it is said that none is known.
    commits = [
        part
        for part in entry.where.split("/")
        if len(part) == 40 and not set(part) - set("0123456789abcdef")
    ]
    if entry.metadata.get("revision") == "unknown":
        assert not commits
    else:
        assert len(commits) == 1
    state = entry.metadata["state"]
    assert state in (
        "verified on the real file",
        "verified on a file of this layout",
    )
    # What was verified on the real file is pinned to its bytes.
    if state == "verified on the real file":
        assert all(len(f["sha256"]) == 64 for f in entry.files.values())
    page = pathlib.Path(keras_vq.__file__).parents[1] / "docs" / "convert.md"
    row = f"| `{name}` | {entry.metadata['state']}"
    assert row in page.read_text(encoding="utf-8")


F16 = {
    "base_channels": 128,
    "channel_multipliers": (1, 1, 2, 2, 4),
    "residual_blocks": 2,
    "attention_factors": (16,),
    "middle_attention": True,
    "latent_channels": 256,
    "codebook_size": 16384,
    "codebook_dim": 256,
    "channels": 3,
}
AMUSED = {
    "channel_multipliers": (1, 2, 2, 4, 6),
    "attention_factors": (),
    "middle_attention": False,
    "latent_channels": 64,
    "codebook_size": 8192,
    "codebook_dim": 64,
}
F8 = {"channel_multipliers": (1, 2, 2, 4), "attention_factors": (8,)}


@pytest.mark.parametrize(
    "name, names, changes",
    [
        ("vqgan_imagenet_f16_1024", taming, {"codebook_size": 1024}),
        ("vqgan_imagenet_f16_16384", taming, {}),
        ("llamagen_vq_ds16_c2i", llamagen, {"codebook_dim": 8}),
        ("llamagen_vq_ds16_t2i", llamagen, {"codebook_dim": 8}),
        ("llamagen_vq_ds8_c2i", llamagen, {"codebook_dim": 8, **F8}),
        ("amused_256", diffusers, AMUSED),
        ("amused_512", diffusers, AMUSED),
    ],
)
def test_numbers_of_parameters(name, names, changes):
    rows = vqgan.network_rows({**F16, **changes}, names._NAMES)
    count = sum(int(np.prod(row.shape)) for row in rows if row.name)
    assert preset_info(name)["parameters"] == count


def test_parameters_of_the_hierarchy():
    model = VQVAE2(
        hidden_units=128,
        residual_units=32,
        residual_blocks=2,
        codebook_size=512,
        codebook_dim=64,
        encoder_kernel_size=4,
    )
    assert preset_info("vqvae2_ffhq")["parameters"] == model.count_params()
