"""What changes a codebook, apart from training steps."""

import json

import numpy as np
import pytest

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer


def _latents(count, dim=2):
    return np.random.default_rng(0).normal(size=(count, dim)).astype("float32")


@pytest.mark.parametrize("method", ["adapt", "revive"])
@pytest.mark.parametrize(
    "latents,received",
    [
        (np.zeros((0, 2), "float32"), r"shape \(0, 2\)"),
        (np.full((4, 2), np.nan, "float32"), "NaN or infinite"),
        (np.array([[1.0, np.inf]], "float32"), "NaN or infinite"),
    ],
)
def test_latents_that_cannot_be_codes(method, latents, received):
    quantizer = EMAVectorQuantizer(4, 2)
    quantizer.adapt(_latents(16))
    quantizer.counts.assign([1.0, 1.0, 1.0, 0.0])
    before = [w.numpy() for w in quantizer.weights]
    with pytest.raises(ValueError, match=received):
        getattr(quantizer, method)(latents)
    for old, new in zip(before, quantizer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_revived_code_is_a_latent():
    quantizer = EMAVectorQuantizer(4, 2)
    quantizer.adapt(_latents(16))
    quantizer.counts.assign([1.0, 1.0, 1.0, 0.0])
    before = quantizer.codebook.numpy()
    latents = 10.0 + _latents(8)
    assert quantizer.revive(latents) == 1
    after = quantizer.codebook.numpy()
    np.testing.assert_array_equal(after[:3], before[:3])
    assert np.isclose(latents, after[3]).all(axis=1).any()


def test_adapt_to_a_list():
    quantizer = VectorQuantizer(2, 2)
    quantizer.adapt([[0.0, 0.0], [1.0, 1.0]])
    codes = sorted(quantizer.codebook.numpy().tolist())
    assert codes == [[0.0, 0.0], [1.0, 1.0]]


def test_sizes_computed_with_numpy():
    quantizer = VectorQuantizer(np.int64(8), np.int32(2))
    config = json.loads(json.dumps(quantizer.get_config()))
    assert (config["codebook_size"], config["codebook_dim"]) == (8, 2)
