"""Arguments of quantizers and of their calls that make no sense."""

import keras
import numpy as np
import pytest

from keras_vq.layers import EMAVectorQuantizer


@pytest.mark.parametrize("shape", [(2,), (2, 1), (3, 3), (2, 3, 1), (2, 3, 4)])
def test_mask_of_another_shape(shape):
    """Some of these would broadcast, to other means than those of a mask."""
    quantizer = EMAVectorQuantizer(8, 4)
    latents = np.ones((2, 3, 4), "float32")
    with pytest.raises(ValueError, match=r"shape \(2, 3\). Received: shape"):
        quantizer(latents, mask=np.ones(shape, bool))


def test_mask_of_unknown_batch():
    quantizer = EMAVectorQuantizer(8, 4)
    inputs = keras.Input((3, 4)), keras.Input((3,), dtype="bool")
    outputs = quantizer(inputs[0], mask=inputs[1])["losses"]["commitment"]
    model = keras.Model(inputs, outputs)
    latents = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    mask = np.array([[True, True, False], [True, False, False]])
    codebook = quantizer.codebook.numpy()
    distances = np.square(latents[:, :, None] - codebook).mean(-1).min(-1)
    expected = (distances[0, :2].mean() + distances[1, 0]) / 2
    np.testing.assert_allclose(model((latents, mask)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["k-means", "random"])
def test_unknown_initializer(name):
    with pytest.raises(ValueError, match='"kmeans", "data" or.*Received'):
        EMAVectorQuantizer(8, 4, codebook_initializer=name)
