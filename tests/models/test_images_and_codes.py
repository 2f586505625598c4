"""What a model takes, refuses and gives at its edges."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder


@pytest.fixture(scope="module")
def model():
    return VQAutoencoder(
        networks.encoder(), EMAVectorQuantizer(8, 4), networks.decoder()
    )


# Bytes and floats


def test_every_level_comes_back():
    levels = np.arange(256, dtype="uint8")
    floats = VQVAE.preprocess(levels)
    np.testing.assert_allclose(floats, levels / 127.5 - 1.0, atol=1e-6)
    np.testing.assert_array_equal(VQVAE.postprocess(floats), levels)
    tensors = VQVAE.preprocess(keras.ops.convert_to_tensor(levels))
    np.testing.assert_array_equal(VQVAE.postprocess(tensors), levels)


def test_clipped_and_rounded():
    floats = np.array([-3.0, -1.0, 0.0005, 1.0, 1.2], "float32")
    expected = [0, 0, 128, 255, 255]  # 0.0005 is level 127.56
    np.testing.assert_array_equal(VQVAE.postprocess(floats), expected)


def test_pillow_image():
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(12, dtype="uint8").reshape(2, 2, 3)
    np.testing.assert_array_equal(
        VQVAE.preprocess(image.fromarray(pixels)), VQVAE.preprocess(pixels)
    )


def test_lists():
    np.testing.assert_array_equal(VQVAE.postprocess([[-1.0, 1.0]]), [[0, 255]])
    with pytest.raises(ValueError, match="Received: dtype int64"):
        VQVAE.preprocess([[0, 255]])


def test_converted_twice():
    pixels = np.zeros((1, 2, 2, 3), "uint8")
    with pytest.raises(ValueError, match="Received: dtype uint8"):
        VQVAE.postprocess(pixels)
    with pytest.raises(ValueError, match="Received: dtype float32"):
        VQVAE.preprocess(VQVAE.preprocess(pixels))


# Images and codes


def test_no_images(model):
    for shape in [(0, 8, 8, 3), (2, 0, 8, 3)]:
        with pytest.raises(ValueError, match="one or more images"):
            model.encode(np.zeros(shape, "float32"))


def test_images_in_a_dict(model):
    model.compile()
    data = [{"image": networks.images(2, 8, 8, 3)}]
    with pytest.raises(ValueError, match="one array or tensor.*dict"):
        model.adapt(data)


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2, 1)])
def test_codes_that_are_no_batch_of_grids(model, shape):
    with pytest.raises(ValueError, match="3 axes.*Received"):
        model.decode(np.zeros(shape, "int32"))


def test_export_for_one_size_of_image(model, tmp_path):
    signature = [keras.InputSpec(shape=(None, 8, 12, 3), dtype="float32")]
    model.export(tmp_path / "saved", input_signature=signature, verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    images = networks.images(2, 8, 12, 3)
    np.testing.assert_array_equal(exported.encode(images), model.encode(images))
    np.testing.assert_allclose(exported.serve(images), model(images), atol=1e-6)
    with pytest.raises((TypeError, ValueError)):
        exported.encode(images[:, :, :8])
