"""Weights of other programs on the Hub, converted at loading."""

import shutil
import sys

import numpy as np
import pytest
from hub_server import COMMIT
from preset_models import TinyModel

from keras_vq import presets
from keras_vq.models import VQGAN
from keras_vq.presets import load_preset
from tests.convert.layout_files import arrays_of, write

PLAIN = {"discriminator": None, "perceptual_loss": None}


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Files of each layout, that no test changes."""
    made = {}

    def make(layout):
        if layout not in made:
            folder = tmp_path_factory.mktemp(layout)
            made[layout] = write(layout, arrays_of(layout), folder)
        return made[layout]

    return make


@pytest.fixture
def repository(tmp_path, written):
    """Function that puts files of layouts into folders of a repository."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "README.md").write_text("# Weights")

    def add(layout, name=""):
        path, target = written(layout), root / name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target / path.name if not name else target)
        return root

    return add


def assert_loaded(model, layout="taming"):
    """That it has the weights of the file; what they do is tested there."""
    assert type(model) is VQGAN
    kernel = arrays_of(layout)["decoder.conv_out.weight"]
    np.testing.assert_array_equal(
        model.decoder.get_layer("conv_out").kernel, kernel.transpose(2, 3, 1, 0)
    )


def gets(server):
    """Files that were sent since the last call."""
    names = [
        line.split("/resolve/")[1].partition("/")[2]
        for line in server.log
        if line.startswith("GET") and "/resolve/" in line
    ]
    server.log.clear()
    return names


def test_diffusers_in_a_folder(hub, repository, request):
    """Once; from then on a pinned commit opens no socket."""
    root = repository("diffusers", "vqvae")
    (root / "vqvae" / "diffusion_pytorch_model.fp16.safetensors").touch()
    (root / "unet").mkdir()
    (root / "unet" / "big.bin").touch()
    server = hub(root)
    assert_loaded(VQGAN.from_preset("hf://user/repo/vqvae", **PLAIN))
    assert gets(server) == [
        "vqvae/config.json",
        "vqvae/diffusion_pytorch_model.safetensors",
    ]
    fresh = VQGAN.from_preset("hf://user/repo/vqvae@v1", load_weights=False)
    assert fresh.quantizer.codebook_size == 24 and gets(server) == []
    tried = request.getfixturevalue("no_sockets")
    model = VQGAN.from_preset(f"hf://user/repo/vqvae@{COMMIT}", **PLAIN)
    assert_loaded(model)
    assert tried == []
    # The present commit is only known by asking, which is tried at first.
    assert_loaded(VQGAN.from_preset("hf://user/repo/vqvae", **PLAIN))
    assert tried


def test_flax_comes_before_other_files(hub, repository):
    root = repository("flax")
    (root / "pytorch_model.bin").touch()
    server = hub(root)
    assert_loaded(VQGAN.from_preset("hf://user/repo", **PLAIN))
    assert gets(server) == ["flax_model.msgpack"]


def test_the_only_file_of_weights(hub, repository):
    root = repository("taming", "vq.safetensors")
    server = hub(root)
    assert_loaded(VQGAN.from_preset("hf://user/repo@v1", **PLAIN))
    assert gets(server) == ["vq.safetensors"]


def test_one_of_several_files_is_named(hub, repository, request):
    repository("taming", "a.safetensors")
    root = repository("llamagen", "b.safetensors")
    repository("diffusers", "vqvae")
    server = hub(root)
    with pytest.raises(presets.UnknownPresetError) as error:
        VQGAN.from_preset("hf://user/repo@v1", **PLAIN)
    for name in ("a.safetensors", "b.safetensors", "vqvae"):
        assert f"'hf://user/repo/{name}@v1'" in str(error.value)
    assert gets(server) == []
    model = VQGAN.from_preset("hf://user/repo/b.safetensors@v1", **PLAIN)
    assert_loaded(model, "llamagen")
    assert gets(server) == ["b.safetensors"]
    request.getfixturevalue("no_sockets")
    address = f"hf://user/repo/b.safetensors@{COMMIT}"
    assert_loaded(VQGAN.from_preset(address, **PLAIN), "llamagen")
    with pytest.raises(presets.PresetUnavailableError) as error:
        VQGAN.from_preset(f"hf://user/repo/a.safetensors@{COMMIT}")
    assert "Needed: a.safetensors." in str(error.value)


def test_what_is_not_there(hub, repository):
    server = hub(repository("diffusers", "vqvae"))
    for address, message in (
        ("hf://user/repo", "Name one: .*hf://user/repo/vqvae"),
        ("hf://user/repo/vae", "in the folder vae.*repo/vqvae"),
        ("hf://user/repo/last.ckpt", "has no file last.ckpt"),
        ("hf://user/repo/vqvae@v9", "no such revision"),
    ):
        with pytest.raises(presets.UnknownPresetError, match=message):
            VQGAN.from_preset(address)
    shutil.rmtree(server.directory / "vqvae")
    with pytest.raises(presets.UnknownPresetError, match="Received: none"):
        VQGAN.from_preset("hf://user/repo")


def test_other_models_of_diffusers_are_not_fetched(hub, repository):
    root = repository("diffusers", "unet")
    (root / "unet" / "config.json").write_text('{"_class_name": "UNet"}')
    server = hub(root)
    with pytest.raises(presets.UnknownPresetError, match="Received: 'UNet'"):
        VQGAN.from_preset("hf://user/repo/unet")
    assert gets(server) == ["unet/config.json"]


def test_half_a_download_is_not_loaded(hub, repository, request):
    """The configuration came, the weights did not."""
    server = hub(repository("diffusers"))
    original = server.find

    def lose(path):
        if "safetensors" in path:
            raise ConnectionError
        return original(path)

    server.find = lose
    server.handle_error = lambda *args: None
    with pytest.raises(presets.PresetUnavailableError, match="safetensors"):
        VQGAN.from_preset("hf://user/repo")
    request.getfixturevalue("no_sockets")
    with pytest.raises(presets.PresetUnavailableError, match="not answer"):
        VQGAN.from_preset(f"hf://user/repo@{COMMIT}")


def test_offline_by_environment(hub, repository, monkeypatch, request):
    hub(repository("flax"))
    VQGAN.from_preset("hf://user/repo", load_weights=False)
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tried = request.getfixturevalue("no_sockets")
    assert_loaded(VQGAN.from_preset("hf://user/repo", **PLAIN))
    assert tried == []


def test_a_preset_in_a_folder(hub, preset, images, tiny_model, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(preset, root / "models" / "tiny")
    server = hub(root)
    address = f"hf://user/repo/models/tiny@{COMMIT}"
    for _ in "12":
        model = load_preset(TinyModel, address)
        np.testing.assert_array_equal(model(images), tiny_model(images))
    assert sorted(gets(server)) == [
        "models/tiny/config.json",
        "models/tiny/metadata.json",
        "models/tiny/model.weights.h5",
    ]
