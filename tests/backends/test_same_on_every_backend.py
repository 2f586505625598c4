"""Every backend computes what TensorFlow has computed; see `recorded`."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import recorded


@pytest.fixture(scope="module")
def expected():
    with np.load(recorded.FILE) as file:
        return dict(file)


# The curves are of `train_on_batch`, the runs of `keras-vq train`.
_LOSSES = ["vqvae_curve", "vqvae2_curve", "vqgan_curve"]
_LOSSES += ["vqgan_curve_in_float64", "vqvae_run", "vqgan_run"]
if keras.backend.backend() == "tensorflow":
    # Long, and on the backend that they were recorded on.
    _LOSSES = [pytest.param(name, marks=pytest.mark.soak) for name in _LOSSES]


# In float64 rounding decides on nothing, and what is left is what differs.
_TOLERANCES = {"vqgan_curve_in_float64": 1e-7}


@pytest.mark.parametrize("name", _LOSSES)
def test_same_losses_over_50_steps(name, expected):
    tolerance = _TOLERANCES.get(name, 1e-3)
    losses = recorded.compute([name])[name]
    assert losses.shape == expected[name].shape
    assert (losses[-1] != losses[0]).all()
    # Of a term near 0, relative to what the terms are.
    scale = np.abs(expected[name]).mean(0)
    np.testing.assert_allclose(
        losses, expected[name], rtol=tolerance, atol=tolerance * scale.min()
    )


@pytest.mark.parametrize("name", ["vqvae_step", "vqvae2_step", "vqgan_step"])
def test_same_step_of_sgd(name, expected):
    """Weights, slots, codebook and averages; two micro-batches, clipped."""
    changes, want = recorded.compute([name])[name], expected[name]
    assert changes.shape == want.shape and (want[:, 0] > 0).sum() > 10
    # Within 1e-4 of the length of each change; those that are rounding alone,
    # such as of a bias before a normalization, within 1e-6.
    atol = 1e-4 * want[:, :1] + 1e-6
    difference = np.abs(changes - want)
    assert (difference <= atol).all(), (difference / atol).max(axis=1)


@pytest.mark.parametrize("name", recorded.OUTPUTS)
def test_same_codes_and_reconstructions(name, expected):
    _assert_same_outputs(name, recorded.outputs(name), expected)


def test_same_codes_and_reconstructions_on_torch(expected, tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch (extra `bench`)")
    file = tmp_path / "outputs.npz"
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run(
        [sys.executable, recorded.__file__, file, *recorded.OUTPUTS],
        env=environment,
        check=True,
    )
    with np.load(file) as arrays:
        for name in recorded.OUTPUTS:
            _assert_same_outputs(name, arrays, expected)


def _assert_same_outputs(name, found, expected):
    keys = [key for key in expected if key.startswith(f"{name}_codes")]
    assert len(keys) == (2 if "vqvae2" in name else 1)
    for key in keys:
        fewest = 20 if name in recorded.PRESETS else 1
        assert len(np.unique(expected[key])) > fewest
        np.testing.assert_array_equal(found[key], expected[key])
    key = f"{name}_rows"
    np.testing.assert_allclose(found[key], expected[key], atol=1e-5)


def test_same_figures(data_dir, expected):
    """LPIPS and the Fréchet distance, too, which sums in float64."""
    figures = recorded.compute(["evaluation"])["evaluation"]
    np.testing.assert_allclose(figures, expected["evaluation"], rtol=2e-4)


def test_the_backend_is_the_one_asked_for():
    asked = os.environ.get("KERAS_BACKEND", keras.backend.backend())
    assert keras.backend.backend() == asked
    if asked == "jax" and importlib.util.find_spec("tensorflow") is None:
        assert "tensorflow" not in sys.modules
