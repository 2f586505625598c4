"""VQGANs of other programs: the same codes and images as there."""

import argparse
import hashlib
import json
import math

import numpy as np
import pytest
from other_names import diffusers_name, flax_tree, llamagen_name, packed

from keras_vq.convert import ConversionError, LayoutError
from keras_vq.convert.layouts import diffusers, llamagen, taming, vqgan
from keras_vq.convert.loading import describe
from keras_vq.models import VQGAN, VQVAE
from keras_vq.models.vqgan_networks import VQGANNetworks

SIZES = {
    "base_channels": 32,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_factors": (2,),
    "latent_channels": 8,
    "codebook_dim": 4,
}
CODES = 24
PLAIN = {"discriminator": None, "perceptual_loss": None}


@pytest.fixture(scope="module")
def published():
    return pytest.importorskip("published", reason="compares with PyTorch")


@pytest.fixture(scope="module")
def original(published):
    """Weights by the names of taming-transformers, in float64."""
    from tests import torch_vqgan

    networks = VQGANNetworks(**SIZES)
    variables = {
        **torch_vqgan.named_variables(networks.encoder()),
        **torch_vqgan.named_variables(networks.decoder()),
    }
    weights = {
        name: weight.detach()
        for name, weight in torch_vqgan.randomize(variables).items()
    }
    generator = published.torch.Generator().manual_seed(1)
    codes = published.torch.randn(CODES, 4, generator=generator)
    return {**weights, "quantize.embedding.weight": codes.double()}


@pytest.fixture(scope="module")
def images():
    from networks import images

    return images(2, 16, 24, 3)


def state_of(weights):
    return {name: weight.float() for name, weight in weights.items()}


def reference(published, weights, images, unit_length=False):
    """Codes and images by the original's arithmetic."""
    from tests import torch_vqgan

    x = torch_vqgan.images_to_torch(images).detach()
    latents = torch_vqgan.encode(weights, x, 2, 1, 32)
    codes = weights["quantize.embedding.weight"]
    if unit_length:
        latents = published.functional.normalize(latents, dim=1)
        codes = published.functional.normalize(codes, dim=-1)
    indices, quantized = published.nearest(latents, codes)
    outputs = torch_vqgan.decode(weights, quantized, 2, 1, 32)
    return indices.numpy(), torch_vqgan.images_from_torch(outputs)


def assert_same(model, images, wanted):
    codes, want = wanted
    assert len(np.unique(codes)) > 5
    np.testing.assert_array_equal(model.encode(images), codes)
    error = np.abs(np.asarray(model(images)) - want).max()
    assert error < 1e-4 * np.abs(want).max()


def critic_state(published, layers):
    from tests.models import torch_discriminator

    network = torch_discriminator.patch_gan(4, layers, 3, "batch")
    published.randomized(network, seed=2)
    state = {
        f"loss.discriminator.{name}": value.clone()
        for name, value in network.state_dict().items()
    }
    return network, state


@pytest.mark.parametrize("layers", [2, 3])
def test_taming_with_its_discriminator(
    published, original, images, tmp_path, layers
):
    critic, state = critic_state(published, layers)
    path = tmp_path / "last.ckpt"
    checkpoint = {
        "epoch": 3,
        "state_dict": {**state_of(original), **state},
        "callbacks": {argparse.Namespace: {"best": np.float64(0.5)}},
    }
    published.torch.save(checkpoint, path)
    model = VQGAN.from_preset(path, perceptual_loss=None, dtype="float32")
    assert_same(model, images, reference(published, original, images))
    assert model.loss_weights["commitment_loss"] == 1.0
    assert model.loss_weights["codebook_loss"] == 0.25
    larger = np.tile(images, (1, 2, 1, 1))
    with published.torch.no_grad():
        want = critic.main(published.swap(larger).double())
    got = model.discriminator(larger, training=False)
    want = published.back(want)
    assert np.abs(np.asarray(got) - want).max() < 1e-4 * np.abs(want).max()
    assert model.fresh_parts == ()
    # Other ways to have it, or not.
    fresh = VQGAN.from_preset(path, load_parts=False, perceptual_loss=None)
    assert fresh.fresh_parts == ("discriminator",)
    kernel, other = (m.discriminator.main[0].kernel for m in (model, fresh))
    assert np.abs(np.asarray(kernel) - other).max() > 0.1
    without = VQGAN.from_preset(path, **PLAIN)
    np.testing.assert_array_equal(without.encode(images), model.encode(images))


def lpips_state(torch):
    state, inputs, index = {}, 3, 0
    slices = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    name = "loss.perceptual_loss"
    for number, (width, count) in enumerate(slices):
        for _ in range(count):
            layer = f"{name}.net.slice{number + 1}.{index}"
            state[f"{layer}.weight"] = torch.zeros(width, inputs, 3, 3)
            state[f"{layer}.bias"] = torch.zeros(width)
            inputs, index = width, index + 2
        index += 1
        linear = f"{name}.lin{number}.model.1.weight"
        state[linear] = torch.zeros(1, width, 1, 1)
    for part in ("shift", "scale"):
        state[f"{name}.scaling_layer.{part}"] = torch.zeros(1, 3, 1, 1)
    return state


def test_taming_with_its_perceptual_loss(published, original, tmp_path):
    path = tmp_path / "last.ckpt"
    state = {**state_of(original), **lpips_state(published.torch)}
    published.torch.save({"state_dict": state}, path)
    model = VQGAN.from_preset(path)
    # The file has no discriminator.
    assert model.fresh_parts == ("discriminator",)
    loss = model.perceptual_loss
    loss.load()
    assert set(loss.files.values()) == {str(path)}
    found = describe(path)
    assert (found.layout, found.elsewhere) == ("taming", 33)
    assert found.tensors == found.used + found.elsewhere == len(state)
    # A preset names no file of this machine.
    model.save_to_preset(tmp_path / "preset", include_parts=False)
    again = VQGAN.from_preset(tmp_path / "preset", discriminator=None)
    assert again.perceptual_loss.get_config()["trunk_weights"] is None
    del state["loss.perceptual_loss.lin2.model.1.weight"]
    published.torch.save({"state_dict": state}, path)
    with pytest.raises(LayoutError, match="lin2.*received none"):
        VQGAN.from_preset(path)


def test_llamagen(published, original, images, tmp_path):
    torch = published.torch
    state = {llamagen_name(k): v for k, v in state_of(original).items()}
    state["quantize.codebook_used"] = torch.zeros(65536)
    last = {name: value + 1 for name, value in state.items()}
    path = tmp_path / "vq.pt"
    torch.save({"model": last, "ema": state, "steps": 7}, path)
    model = VQGAN.from_preset(path, **PLAIN)
    wanted = reference(published, original, images, unit_length=True)
    assert_same(model, images, wanted)


def test_flax(published, original, images, tmp_path):
    path = tmp_path / "flax_model.msgpack"
    tree = flax_tree(state_of(original))
    assert list(tree["quantize"]["embedding"]) == ["embedding"]
    whole = packed(tree)
    path.write_bytes(whole)
    model = VQGAN.from_preset(path, **PLAIN)
    assert_same(model, images, reference(published, original, images))
    assert describe(path).layout == "flax"
    # Half precision rounds, and is read.
    half = {k: v.half() for k, v in state_of(original).items()}
    path.write_bytes(packed(flax_tree(half)))
    rounded = VQGAN.from_preset(path, **PLAIN)
    error = np.abs(np.asarray(rounded(images)) - np.asarray(model(images)))
    assert 0 < np.median(error) < 0.05
    for damaged in (
        whole[:-1],
        whole[:5000],
        whole + b"x",
        whole.replace(b"float32", b"object1"),
        whole.replace(b"\x93\x94", b"\x93\x95", 1),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ConversionError):
            VQGAN.from_preset(path)


# diffusers: see also tests/parity


def write_directory(published, original, folder, old, **config):
    state = {}
    for name, value in state_of(original).items():
        name = diffusers_name(name, old)
        is_linear = "attentions" in name and value.ndim == 4
        state[name] = value[:, :, 0, 0] if is_linear else value
    folder.mkdir()
    config = {"_class_name": "VQModel", "norm_num_groups": 32, **config}
    (folder / "config.json").write_text(json.dumps(config))
    if old:
        path = folder / "diffusion_pytorch_model.bin"
        published.torch.save(state, path)
        return folder
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.mark.parametrize("old", [True, False])
def test_diffusers(published, original, images, tmp_path, old):
    folder = write_directory(published, original, tmp_path / "vqvae", old)
    model = VQGAN.from_preset(folder, **PLAIN)
    assert_same(model, images, reference(published, original, images))
    found = describe(folder)
    assert (found.layout, found.tensors) == ("diffusers", found.used)


@pytest.mark.parametrize(
    "config",
    [
        {"norm_type": "spatial"},
        {"act_fn": "relu"},
        {"_class_name": "AutoencoderKL"},
        {"norm_num_groups": 5},
        {"norm_num_groups": "32"},
        {"norm_num_groups": 0},
    ],
)
def test_other_networks_of_diffusers(published, original, tmp_path, config):
    folder = tmp_path / "vqvae"
    write_directory(published, original, folder, False, **config)
    with pytest.raises(LayoutError):
        VQGAN.from_preset(folder)


def test_damaged_directories(published, original, tmp_path):
    folder = write_directory(published, original, tmp_path / "vqvae", False)
    path = folder / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    for damaged in (
        whole[:-1],
        whole[:1000],
        b"\xff" * 7 + b"\x7f" + whole[8:],
        whole[:9] + b"!" + whole[10:],
        b"",
        b"<html>" * 99,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ConversionError):
            VQGAN.from_preset(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        VQGAN.from_preset(folder)


# The published sizes, which no test can load


def digest(rows):
    lines = sorted(f"{row.name} {list(row.shape)}" for row in rows if row.name)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), len(lines)


DEFAULTS = {
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
AMUSED = {
    **DEFAULTS,
    "channel_multipliers": [1, 2, 2, 4, 6],
    "attention_factors": [],
    "middle_attention": False,
    "latent_channels": 64,
    "codebook_size": 8192,
    "codebook_dim": 64,
}
LLAMAGEN = {**DEFAULTS, "codebook_size": 16384, "codebook_dim": 8}


def test_names_of_the_published_sizes():
    """Names and shapes are those that were listed of the originals."""
    for arguments, names, wanted in (
        (DEFAULTS, taming._NAMES, "daa361925932ed87 343"),
        (DEFAULTS, diffusers._NAMES, "219b82959dfbffcd 343"),
        (AMUSED, diffusers._NAMES, "5d919826cdd3bff4 277"),
    ):
        found = digest(vqgan.network_rows(arguments, names))
        assert f"{found[0][:16]} {found[1]}" == wanted
    critic = taming._critic_rows(filters=64, num_layers=3, channels=3)
    found = digest(critic)
    assert f"{found[0][:16]} {found[1]}" == "14f2e229c77cd074 19"
    rows = vqgan.network_rows(LLAMAGEN, llamagen._NAMES)
    count = sum(math.prod(row.shape) for row in rows if row.name)
    assert count == 71_883_403


def test_wrong_class(published, original, tmp_path):
    folder = write_directory(published, original, tmp_path / "vqvae", False)
    with pytest.raises(ValueError, match="holds a VQGAN. Expected: VQVAE"):
        VQVAE.from_preset(folder)
