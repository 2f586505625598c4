"""On JAX the kernel of a transposed convolution gets Keras' gradient."""

import keras
import numpy as np
import pytest

from keras_vq.layers import Conv2DTranspose

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="of JAX; TensorFlow's is in tests/layers",
)


def _step(kind, dtype, filters, size):
    """Output, and gradients of input, kernel and bias."""
    import jax

    layer = kind(
        filters, 4, 2, "same", activation="tanh", dtype=dtype, name="layer"
    )
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, *size, 5)).astype(layer.compute_dtype)
    layer.build(inputs.shape)
    weights = [0.2 * rng.normal(size=w.shape) for w in layer.weights]
    layer.set_weights(weights)
    upstream = rng.normal(size=(3, 2 * size[0], 2 * size[1], filters))

    training = {"training": True} if kind is Conv2DTranspose else {}

    def run(inputs, weights):
        pairs = list(zip(layer.weights, weights, strict=True))
        with keras.StatelessScope(pairs):
            return layer(inputs, **training)

    values = [w.value for w in layer.weights]
    output, pull_back = jax.vjp(run, jax.numpy.asarray(inputs), values)
    of_input, of_weights = pull_back(upstream.astype(output.dtype))
    return [np.asarray(x, "float32") for x in (output, of_input, *of_weights)]


@pytest.mark.parametrize("filters", [1, 6])
@pytest.mark.parametrize("size", [(5, 4), (1, 3)])
@pytest.mark.parametrize(
    "dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 3e-2)]
)
def test_equals_keras(dtype, tolerance, size, filters):
    ours = _step(Conv2DTranspose, dtype, filters, size)
    theirs = _step(keras.layers.Conv2DTranspose, dtype, filters, size)
    for got, want in zip(ours, theirs, strict=True):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, atol=tolerance * scale)


def test_no_gradient_spreads_its_input():
    """Such a convolution reads zeros between the pixels, fifty times slower."""
    import jax

    layer = Conv2DTranspose(3, 4, 2, "same")
    inputs = np.ones((2, 4, 4, 5), "float32")
    layer.build(inputs.shape)

    def run(weights):
        return layer.stateless_call(weights, [], inputs, training=True)[0]

    output, pull_back = jax.vjp(run, [w.value for w in layer.weights])
    text = str(jax.make_jaxpr(pull_back)(output))
    assert "conv_general_dilated[" in text
    assert "lhs_dilation=(2, 2)" not in text
