"""LPIPS beside PyPI's `lpips`, with its own linear layers.

Its trunks are torchvision's networks. Those of `tests/losses/torch_lpips.py`,
which have the same layers, stand in for them, with random weights: nothing
but the definition of the network is taken from torchvision.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_vq.losses import LPIPS
from tests.losses import torch_lpips

torch = torch_lpips.torch

if importlib.util.find_spec("lpips") is None:
    pytest.skip("needs lpips: pip install --no-deps lpips", True)


@pytest.fixture
def published(monkeypatch):
    """The module `lpips`, that finds its trunks here."""
    models = types.ModuleType("torchvision.models")
    models.vgg16 = lambda pretrained: torch_lpips.LPIPS("vgg")
    models.squeezenet1_1 = lambda pretrained: torch_lpips.LPIPS("squeeze")
    torchvision = types.ModuleType("torchvision")
    torchvision.models = models
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    for name in [n for n in sys.modules if n.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    import lpips

    return lpips


def _torch(distance, images, others, dtype):
    """Distances and the gradient of the second images, as NHWC arrays."""
    first, second = (
        torch.tensor(x, dtype=dtype).permute(0, 3, 1, 2)
        for x in (images, others)
    )
    second.requires_grad_()
    values = distance.to(dtype)(first, second)[:, 0, 0, 0]
    (slopes,) = torch.autograd.grad(values.sum(), second)
    return values.detach().numpy(), slopes.numpy().transpose(0, 2, 3, 1)


def _keras(distance, images, others):
    second = tf.constant(others)
    with tf.GradientTape() as tape:
        tape.watch(second)
        values = distance(tf.constant(images), second)
    return values.numpy(), tape.gradient(values, second).numpy()


def _errors(got, wanted):
    return [
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(got, wanted, strict=True)
    ]


@pytest.mark.parametrize("trunk", ["vgg", "squeeze"])
def test_distances_and_gradients(trunk, published, tmp_path, figure):
    theirs = published.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    # It seeds the random trunk, so that it is the one of `theirs`.
    features = torch_lpips.LPIPS(trunk).features.state_dict()
    state = {f"features.{name}": value for name, value in features.items()}
    torch.save(state, tmp_path / "trunk.pth")
    linear = pathlib.Path(published.__file__).parent / "weights/v0.1"
    ours = LPIPS(trunk, tmp_path / "trunk.pth", linear / f"{trunk}.pth")

    rng = np.random.default_rng(0)
    pair = rng.uniform(-1, 1, (2, 2, 61, 64, 3)).astype("float32")
    single = _torch(theirs, *pair, torch.float32)
    exact = _torch(theirs, *pair, torch.float64)
    errors = _errors(_keras(ours, *pair), exact)
    rounding = _errors(single, exact)
    figure(
        f"lpips 0.1.4, {trunk}, 64 px, beside its float64",
        f"distance {exact[0][0]:.4f} equal to {errors[0]:.1e} (its own float32 "
        f"to {rounding[0]:.1e}), gradient of the reconstruction to "
        f"{errors[1]:.1e} (to {rounding[1]:.1e})",
    )
    assert exact[0][0] > 0.01
    assert errors[0] < 1e-5
    # Rounding takes some activations of VGG16 across the kink of their ReLU.
    assert errors[1] < max(1e-4, 3 * rounding[1])
