"""VQ-VAEs of other programs: the same codes and images as there."""

import hashlib

import numpy as np
import pytest
from numpy_reference import perplexity

from keras_vq.convert import (
    ConversionError,
    DamagedFileError,
    LayoutError,
    UnsafeFileError,
)
from keras_vq.models import VQGAN, VQVAE, VQVAE2, VQAutoencoder
from keras_vq.presets import PresetError

# Mean squared error and perplexity that the published checkpoints have on
# 2,000 images of CIFAR-10, to the last digit that was noted.
MEASURED = {
    "model_ema": ("0.00383", "436.5"),
    "model_ema_norm_he-et-al": ("0.00360", "437.2"),
}


@pytest.fixture(scope="module")
def swasun_files(data_dir):
    folder = data_dir / "weights" / "vqvae_cifar10_swasun"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(scope="module")
def cifar(data_dir):
    with np.load(data_dir / "cifar10" / "lossless_eval.npz") as file:
        return file["image"]


@pytest.mark.parametrize("name", MEASURED)
def test_published_checkpoints(swasun_files, cifar, name):
    path = swasun_files / f"{name}.pth"
    model = VQVAE.from_preset(path)
    errors, codes = [], []
    for start in range(0, len(cifar), 500):
        batch = cifar[start : start + 500]
        codes.append(np.asarray(model.encode(model.preprocess(batch))))
        errors.append(squared_errors(model.decode(codes[-1]), batch))
    codes = np.concatenate(codes)
    used = perplexity(codes, 512)
    assert (f"{np.mean(errors):.5f}", f"{used:.1f}") == MEASURED[name]
    assert len(np.unique(codes)) == 512
    # With the textbook's skip path the same weights are much worse.
    wrong = VQVAE.from_preset(path, inplace_relu_residual=False)
    outputs = wrong(wrong.preprocess(cifar[:100]))
    assert squared_errors(outputs, cifar[:100]).mean() > 1.5 * np.mean(errors)


def squared_errors(outputs, images):
    outputs = np.clip((np.asarray(outputs) + 1) / 2, 0, 1)
    return ((outputs - images / 255.0) ** 2).mean((1, 2, 3))


@pytest.fixture(scope="module")
def published():
    return pytest.importorskip("published", reason="compares with PyTorch")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (2, 16, 24, 3)).astype("float32")


@pytest.fixture
def make(published, images):
    """Makes the model of another program, with codes that are used."""

    def make(name, **arguments):
        twin = getattr(published, name)(**arguments)
        with published.torch.no_grad():
            twin.start(published.swap(images))
        return twin

    return make


def assert_same(published, model, twin, images, tolerance=1e-4):
    with published.torch.no_grad():
        codes, want = twin(published.swap(images))
    got = model.encode(images)
    levels = got if isinstance(got, list) else [got]
    wanted = codes if isinstance(codes, list) else [codes]
    for ours, theirs in zip(levels, wanted, strict=True):
        assert len(np.unique(theirs)) > 2
        np.testing.assert_array_equal(ours, theirs)
    want = published.back(want)
    error = np.abs(np.asarray(model(images)) - want).max()
    assert error < tolerance * np.abs(want).max()


@pytest.mark.parametrize("name", MEASURED)
def test_every_pixel_as_in_torch(published, swasun_files, cifar, name):
    path = swasun_files / f"{name}.pth"
    twin = published.Swasun(units=128, inner=32, dim=64, codes=512)
    if "norm" in name:
        published.with_weight_normalization(twin)
    state = published.torch.load(path, weights_only=True, map_location="cpu")
    twin.load_state_dict(state)
    images = VQVAE.preprocess(cifar[:8])
    assert_same(published, VQVAE.from_preset(path), twin, images, 2e-5)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_swasun(published, make, images, tmp_path, normalized, zipped):
    passes = 32 if zipped else 2
    twin = make("Swasun", passes=passes)
    if normalized:
        published.with_weight_normalization(twin)
    state = twin.state_dict()
    # As many entries as the published files of these kinds have.
    assert (
        len(state)
        == {
            (2, False): 25,
            (2, True): 42,
            (32, False): 145,
            (32, True): 282,
        }[passes, normalized]
    )
    path = tmp_path / "model.pth"
    published.torch.save(state, path, _use_new_zipfile_serialization=zipped)
    model = VQVAE.from_preset(path)
    assert model.get_config()["residual_blocks"] == passes
    assert_same(published, model, twin, images)
    quantizer = model.quantizer
    for name, variable in (
        ("_ema_w", quantizer.sums),
        ("_ema_cluster_size", quantizer.counts),
    ):
        np.testing.assert_array_equal(variable, state[f"_vq_vae.{name}"])
    assert quantizer.initialized


def test_swasun_without_averages(published, make, images, tmp_path):
    twin = make("Swasun", ema=False)
    path = tmp_path / "model.pth"
    published.torch.save({"state_dict": twin.state_dict()}, path)
    model = VQAutoencoder.from_preset(str(path), dtype="float32")
    assert type(model.quantizer).__name__ == "VectorQuantizer"
    assert_same(published, model, twin, images)
    # The model goes on training, and is a preset like any other.
    model.compile("sgd")
    model.fit(images, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    again = VQVAE.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(again(images), model(images))


def test_kumar(published, make, images, tmp_path):
    twin = make("Kumar")
    path = tmp_path / "best.pt"
    published.torch.save(twin.state_dict(), path)
    model = VQVAE.from_preset(path)
    assert_same(published, model, twin, images)
    half = VQVAE.from_preset(path, dtype="mixed_bfloat16")
    policies = {half.dtype_policy.name, half.quantizer.dtype_policy.name}
    assert policies == {"mixed_bfloat16"}
    # Files of the first versions of PyTorch do not count batches.
    state = {k: v for k, v in twin.state_dict().items() if v.ndim}
    assert len(state) < len(twin.state_dict())
    published.torch.save(state, path)
    np.testing.assert_array_equal(
        VQVAE.from_preset(path)(images), model(images)
    )


def test_names_of_the_published_sizes(published):
    """Names and shapes are those that were listed of the originals."""
    for twin, wanted in (
        (published.Kumar(256, 512), "5a665fd03ed0f933 65"),
        (published.Rosinality(128, 32, 64, 512), "d46a559902eb6cd3 64"),
    ):
        lines = sorted(
            f"{name} {list(value.shape)}"
            for name, value in twin.state_dict().items()
            if value.ndim
        )
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        assert f"{digest[:16]} {len(lines)}" == wanted


@pytest.mark.parametrize("inplace", [True, False])
def test_rosinality(published, make, images, tmp_path, inplace):
    twin = make("Rosinality", inplace=inplace)
    path = tmp_path / "vqvae.pt"
    state = twin.state_dict()
    # As a distributed training saves it.
    state = {f"module.{name}": value for name, value in state.items()}
    published.torch.save(state, path)
    with pytest.raises(LayoutError, match="inplace_relu_residual=.*2021"):
        VQVAE2.from_preset(path)
    model = VQVAE2.from_preset(path, inplace_relu_residual=inplace)
    assert_same(published, model, twin, images)
    wrong = VQVAE2.from_preset(path, inplace_relu_residual=not inplace)
    assert np.abs(wrong(images) - np.asarray(model(images))).max() > 0.01


def test_published_vqvae2_is_known_by_its_bytes(
    published, tmp_path, monkeypatch
):
    import subprocess

    from keras_vq.convert.layouts import rosinality

    path = tmp_path / "vqvae_560.pt"
    published.torch.save(published.Rosinality().state_dict(), path)
    blob = subprocess.run(
        ["git", "hash-object", path], capture_output=True, text=True, check=True
    ).stdout.strip()
    with open(path, "rb") as file:
        assert rosinality.git_blob_id(file) == blob
    monkeypatch.setattr(rosinality, "PUBLISHED_BLOB", blob)
    model = VQVAE2.from_preset(path)
    assert model.get_config()["inplace_relu_residual"] is True


# What does not fit


@pytest.fixture
def change(published, tmp_path):
    """Loads a sound file after a change of its dict."""

    def load(function, cls=VQVAE, **arguments):
        state = dict(published.Swasun().state_dict())
        function(state)
        path = tmp_path / "changed.pth"
        published.torch.save(state, path)
        return cls.from_preset(path, **arguments)

    return load


def test_differences_are_listed(published, change):
    torch = published.torch

    def several(state):
        del state["_pre_vq_conv.bias"]
        state["_decoder._conv_1.bias"] = torch.zeros(5)
        state["_extra"] = torch.zeros(2)

    with pytest.raises(LayoutError) as error:
        change(several)
    text = str(error.value)
    assert "3 of them differ" in text
    assert "_pre_vq_conv.bias: expected (4,), received none" in text
    assert "_decoder._conv_1.bias: expected (16,), received (5,)" in text
    assert "_extra: expected none, received (2,)" in text


def test_other_files(published, tmp_path, change):
    torch = published.torch
    path = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 3).state_dict(), path)
    with pytest.raises(LayoutError, match="one of these: .*swasun.*weight"):
        VQVAE.from_preset(path)
    path.write_bytes(b"<!DOCTYPE html><html>" * 9)
    with pytest.raises(DamagedFileError, match="web pages"):
        VQVAE.from_preset(path)
    with pytest.raises(PresetError, match="holds a VQVAE. Expected: VQGAN"):
        change(lambda state: None, cls=VQGAN)
    with pytest.raises(PresetError, match="no argument 'hidden_unit'"):
        change(lambda state: None, hidden_unit=3)
    with pytest.raises(LayoutError, match="load_weights=False"):
        change(lambda state: None, codebook_size=5)
    model = change(lambda state: None, codebook_size=5, load_weights=False)
    assert model.quantizer.codebook_size == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(change, value):
    def spoil(state):
        state["_decoder._conv_trans_2.bias"][1] = value

    with pytest.raises(DamagedFileError, match="NaN or infinity.*trans_2"):
        change(spoil)


def test_repetitions_of_a_block_are_the_same(change):
    name = "_decoder._residual_stack._layers.1._block.3.weight"

    def spoil(state):
        state[name] = state[name] + 1

    with pytest.raises(LayoutError, match="one and the same"):
        change(spoil)


def test_small_files_stay_small(published, change):
    torch = published.torch

    def aliases(state):
        """Kernels that are all the same bytes."""
        state.update(published.Swasun(units=64).state_dict())
        storage = torch.zeros(64 * 64 * 9)
        for key, value in state.items():
            if value.ndim == 4:
                count = value.numel()
                state[key] = storage[:count].reshape(value.shape)

    with pytest.raises(UnsafeFileError, match="its own bytes"):
        change(aliases)

    def empty(state):
        state["_vq_vae._embedding.weight"] = torch.zeros(0, 1 << 40)

    with pytest.raises(LayoutError, match="_embedding.weight"):
        change(empty)


def test_integers_are_refused(change):
    def spoil(state):
        state["_pre_vq_conv.bias"] = state["_pre_vq_conv.bias"].int()

    with pytest.raises(ConversionError, match="floating point.*_pre_vq_conv"):
        change(spoil)
