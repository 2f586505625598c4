"""The ONNX files of the `export` extra, run by another engine."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.models import VQVAE

runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
tf2onnx = pytest.importorskip("tf2onnx", reason="needs keras-vq[export]")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = VQVAE(
        hidden_units=16, residual_units=8, codebook_size=32, codebook_dim=8
    )
    model.adapt(_images(16, 16, 16))
    return model


def _images(*shape):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (*shape, 3)).astype("float32")


def _run(path, array):
    session = runtime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    (argument,) = session.get_inputs()
    (result,) = session.run(None, {argument.name: array})
    return result


def test_reconstruction(model, tmp_path):
    path = tmp_path / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    for shape in [(2, 16, 16), (1, 13, 22)]:  # any number, any size
        images = _images(*shape)
        np.testing.assert_allclose(_run(path, images), model(images), atol=1e-5)


def test_codes_there_and_back(model, tmp_path):
    images = _images(2, 16, 24)
    codes = np.asarray(model.encode(images))
    assert len(np.unique(codes)) > 4
    for method, shape, dtype, given, want in [
        (model.encode, (None, None, None, 3), "float32", images, codes),
        (model.decode, (None, None, None), "int32", codes, model.decode(codes)),
    ]:
        path = tmp_path / f"{method.__name__}.onnx"
        tf2onnx.convert.from_function(
            tf.function(method),
            [tf.TensorSpec(shape, dtype)],
            output_path=str(path),
        )
        result = _run(path, given)
        assert result.dtype == np.asarray(want).dtype
        np.testing.assert_allclose(result, want, atol=1e-5)
