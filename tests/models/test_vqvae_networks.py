"""The networks that VQVAE builds, against what is published of them."""

import keras
import numpy as np
import pytest

from keras_vq.layers import VectorQuantizer
from keras_vq.models import VQVAE

KUMAR = {
    "hidden_units": 256,
    "residual_units": 256,
    "bottleneck_convolutions": False,
    "codebook_dim": 256,
    "use_batch_normalization": True,
    "output_activation": "tanh",
    "inplace_relu_residual": True,
}


def test_size_of_the_reproduction_of_kumar():
    """The PyTorch original has 4,882,179 parameters, codebook included."""
    model = VQVAE(**KUMAR, quantizer=VectorQuantizer(512, 256))
    count = sum(np.prod(w.shape) for w in model.trainable_weights)
    assert count == 4_882_179
    assert model.decoder.layers[-1].get_config()["activation"] == "tanh"


def test_size_of_the_default_network():
    """Counted by hand from Sonnet's example: 128, 2 x 32, 64, K 512."""
    residual = 2 * (3 * 3 * 128 * 32 + 32 + 32 * 128 + 128)
    encoder = (
        (4 * 4 * 3 * 64 + 64)
        + (4 * 4 * 64 * 128 + 128)
        + (3 * 3 * 128 * 128 + 128)
        + residual
        + (128 * 64 + 64)
    )
    decoder = (
        (3 * 3 * 64 * 128 + 128)
        + residual
        + (4 * 4 * 128 * 64 + 64)
        + (4 * 4 * 64 * 3 + 3)
    )
    model = VQVAE()
    for network, want in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(np.prod(w.shape) for w in network.weights) == want
    assert model.quantizer.codebook.shape == (512, 64)
    assert model.bits_per_image(32, 32) == 576


def test_published_constants_of_batch_normalization():
    model = VQVAE(**{**KUMAR, "hidden_units": 8, "codebook_dim": 8})
    found = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            found.append((layer.momentum, layer.epsilon, layer.synchronized))
    # 1 + 2 x 2 in the encoder, 2 x 2 + 1 in the decoder.
    assert found == [(0.9, 1e-5, True)] * 10


@pytest.mark.parametrize(
    "factor, units", [(2, [8]), (4, [8, 16]), (8, [8, 8, 16])]
)
def test_strides(factor, units):
    model = VQVAE(
        hidden_units=16,
        residual_units=4,
        downsample_factor=factor,
        codebook_dim=4,
    )
    strided = [
        layer.filters
        for layer in model.encoder.layers
        if getattr(layer, "strides", None) == (2, 2)
    ]
    assert strided == units
    transposed = [
        layer.filters
        for layer in model.decoder.layers
        if isinstance(layer, keras.layers.Conv2DTranspose)
    ]
    assert transposed == [*units[-2::-1], 3]
    latents = model.encoder(np.zeros((1, 2 * factor, 3 * factor, 3), "float32"))
    assert latents.shape == (1, 2, 3, 4)


@pytest.mark.parametrize("factor", [0, 1, 3, 6, -4])
def test_factor_that_is_no_power_of_two(factor):
    with pytest.raises(ValueError, match=f"power of two.*={factor}"):
        VQVAE(downsample_factor=factor)


@pytest.mark.parametrize("factor", [4.0, "4", True, None])
def test_factor_that_is_no_integer(factor):
    with pytest.raises(ValueError, match=f"power of two.*={factor!r}"):
        VQVAE(downsample_factor=factor)


def test_size_of_the_codebook():
    small = {"hidden_units": 8, "residual_units": 4, "codebook_dim": 4}
    model = VQVAE(**small, quantizer=VectorQuantizer(16, 4))
    assert model.get_config()["codebook_size"] == 16
    VQVAE(**small, quantizer=VectorQuantizer(16, 4), codebook_size=16)
    message = "codebook_size=512, and a quantizer of 16 codes"
    with pytest.raises(ValueError, match=message):
        VQVAE(**small, quantizer=VectorQuantizer(16, 4), codebook_size=512)
    assert VQVAE(**small).get_config()["codebook_size"] == 512
    model = VQVAE(**small, codebook_size=16)
    assert model.quantizer.codebook_size == 16


def test_parameters_are_those_of_networks_and_codebook():
    """Statistics and counters of the training do not count."""
    model = VQVAE()
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert model.count_params() == trained + 512 * 64
    # What the original of Kumar et al. trains, means and variances of its ten
    # batch normalizations, and the two projections to shorter codes.
    model = VQVAE(**KUMAR, quantizer=VectorQuantizer(512, 32))
    projections = (256 * 32 + 32) + (32 * 256 + 256)
    codebook = 512 * 32 - 512 * 256
    statistics = 2 * 256 * 10
    want = 4_882_179 + codebook + projections + statistics
    assert model.count_params() == want


def test_latents_that_do_not_fit_the_codes():
    with pytest.raises(ValueError, match="hidden_units=8, codebook_dim=64"):
        VQVAE(hidden_units=8, bottleneck_convolutions=False)
    # A quantizer of one's own projects instead.
    model = VQVAE(
        hidden_units=8,
        residual_units=4,
        bottleneck_convolutions=False,
        quantizer=VectorQuantizer(16, 3),
    )
    assert model.quantizer.project_in.kernel.shape == (8, 3)
    assert model(np.zeros((1, 8, 8, 3), "float32")).shape == (1, 8, 8, 3)
    config = model.get_config()
    assert config["quantizer"]["config"]["codebook_dim"] == 3
    assert VQVAE.from_config(config).quantizer.codebook_size == 16


def test_bytes_and_floats():
    """x / 127.5 - 1, back with clipping and rounding."""
    every = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1)
    floats = VQVAE.preprocess(every)
    assert floats.dtype == "float32"
    want = every.astype("float64") / 127.5 - 1
    np.testing.assert_allclose(floats, want, atol=1e-6)
    np.testing.assert_array_equal(VQVAE.postprocess(floats), every)
    tensor = keras.ops.convert_to_tensor(every)
    np.testing.assert_allclose(VQVAE.preprocess(tensor), want, atol=1e-6)
    back = VQVAE.postprocess(keras.ops.convert_to_tensor(floats))
    np.testing.assert_array_equal(back, every)
    outside = np.array([-7.0, 1.004, 1.5, 0.0], "float32")
    for values in (outside, keras.ops.convert_to_tensor(outside)):
        got = VQVAE.postprocess(values)
        np.testing.assert_array_equal(got, [0, 255, 255, 128])
    with pytest.raises(ValueError, match="uint8 images.*float32"):
        VQVAE.preprocess(floats)
