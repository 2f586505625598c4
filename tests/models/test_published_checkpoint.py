"""A checkpoint published by others, trained with PyTorch, in our network."""

import numpy as np
import pytest
import torch_networks as reference
from numpy_reference import perplexity

from keras_vq.models import VQVAE

torch = reference.torch


def _keys(part):
    """Layer by layer as in the file; residual layers have no biases."""
    stack = [
        f"_{part}._residual_stack._layers.{i}._block.{j}"
        for i in (0, 1)
        for j in (1, 3)
    ]
    if part == "encoder":
        first = [f"_encoder._conv_{i}" for i in (1, 2, 3)]
        return [*first, *stack, "_pre_vq_conv"]
    last = [f"_decoder._conv_trans_{i}" for i in (1, 2)]
    return ["_decoder._conv_1", *stack, *last]


@pytest.fixture(scope="module")
def state(data_dir):
    path = data_dir / "weights" / "vqvae_cifar10_swasun" / "model_ema.pth"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return torch.load(path, weights_only=True, map_location="cpu")


def _load(state, **arguments):
    model = VQVAE(**arguments)
    read = {"_vq_vae._embedding.weight"}
    for part in ("encoder", "decoder"):
        layers = reference.leaves(getattr(model, part))
        for layer, key in zip(layers, _keys(part), strict=True):
            kernel = state[f"{key}.weight"].numpy()
            layer.kernel.assign(reference.to_keras(kernel))
            bias = state.get(f"{key}.bias")
            layer.bias.assign(np.zeros(layer.bias.shape))
            if bias is not None:
                layer.bias.assign(bias.numpy())
            read |= {f"{key}.weight", f"{key}.bias"}
    model.quantizer._restart(state["_vq_vae._embedding.weight"].numpy())
    # Nothing in the file is left over but the averages behind the codes.
    assert {k for k in state if k not in read} == {
        "_vq_vae._ema_w",
        "_vq_vae._ema_cluster_size",
    }
    return model


def _fidelity(model, images):
    """MSE on [0, 1], mean PSNR per image, and all codes."""
    errors, codes = [], []
    for start in range(0, len(images), 200):
        batch = images[start : start + 200]
        x = model.preprocess(batch)
        output = np.clip((np.asarray(model(x)) + 1) / 2, 0, 1)
        errors.append(((output - batch / 255.0) ** 2).mean((1, 2, 3)))
        codes.append(np.asarray(model.encode(x)))
    errors = np.concatenate(errors)
    return errors.mean(), -10 * np.log10(errors).mean(), np.concatenate(codes)


def test_measured_fidelity(state, data_dir):
    with np.load(data_dir / "cifar10" / "lossless_eval.npz") as file:
        images = file["image"]
    model = _load(state, inplace_relu_residual=True)
    mse, psnr, codes = _fidelity(model, images)
    assert mse == pytest.approx(0.00383, abs=1e-5)
    assert psnr == pytest.approx(24.685, abs=0.005)
    assert len(np.unique(codes)) == 512
    assert perplexity(codes, 512) == pytest.approx(436.5, abs=0.2)
    # With the textbook's skip path the same weights are useless.
    wrong = _fidelity(_load(state), images[:200])[1]
    assert wrong < psnr - 5


def test_every_pixel_as_in_torch(state, data_dir):
    with np.load(data_dir / "cifar10" / "lossless_eval.npz") as file:
        images = VQVAE.preprocess(file["image"][:8])
    model = _load(state, inplace_relu_residual=True)
    sizes = (3, 128, 32, 64, True)
    twin = reference.Autoencoder(
        reference.copy_to_torch(
            model.encoder, reference.sonnet_encoder(*sizes)
        ),
        state["_vq_vae._embedding.weight"].double(),
        reference.copy_to_torch(
            model.decoder, reference.sonnet_decoder(*sizes)
        ),
    )
    with torch.no_grad():
        output, indices, _, _ = twin(reference.images_to_torch(images))
    np.testing.assert_array_equal(model.encode(images), indices)
    np.testing.assert_allclose(
        model(images), reference.images_from_torch(output), atol=2e-5
    )
