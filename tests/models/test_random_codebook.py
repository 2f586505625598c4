"""A codebook of random numbers is not used without a word."""

import warnings

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder


def _model(**arguments):
    quantizer = EMAVectorQuantizer(8, 4, **arguments)
    return VQAutoencoder(networks.encoder(), quantizer, networks.decoder())


@pytest.fixture(scope="module")
def images():
    return networks.images(8, 8, 8, 3)


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_train_on_batch(images):
    model = _model()
    model.compile()
    with pytest.raises(ValueError, match=r"model\.adapt\(images\)"):
        model.train_on_batch(images)
    assert int(model.steps) == 0
    model.adapt(images)
    logs = model.train_on_batch(images, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert int(model.steps) == 1


def test_codebook_that_does_not_wait_for_data(images, no_warning):
    model = _model(codebook_initializer="random_normal")
    model.compile()
    model.encode(images)
    model.train_on_batch(images)


@pytest.mark.parametrize("method", ["encode", "evaluate"])
def test_one_warning(method, images):
    model = _model()
    model.compile()
    with pytest.warns(UserWarning, match=f"`{method}` runs on") as caught:
        getattr(model, method)(images)
        getattr(model, method)(images)
        model.encode(images)
    found = [w for w in caught if "random numbers" in str(w.message)]
    assert len(found) == 1


def test_no_warning_after_adapt_fit_or_loading(images, tmp_path, no_warning):
    model = _model()
    model.compile()
    model.adapt(images)
    model.encode(images)
    model.evaluate(images, verbose=0)
    trained = _model()
    trained.compile()
    trained.fit(images, validation_data=images, verbose=0)
    trained.evaluate(images, verbose=0)
    trained.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras").encode(images)
    other = _model()
    other.set_weights(trained.get_weights())
    other.encode(images)


def test_no_warning_in_graphs(images, tmp_path, no_warning):
    model = _model()
    codes = tf.function(model.encode)(images)
    assert codes.shape == (8, 2, 2)
    model.export(tmp_path / "exported", verbose=False)
    # What was traced says nothing about the use of the model.
    with pytest.warns(UserWarning, match="`encode` runs on"):
        model.encode(images)


def test_presets(images, tmp_path):
    model = _model()
    model.adapt(images)
    model.save_to_preset(tmp_path / "preset")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        VQAutoencoder.from_preset(str(tmp_path / "preset")).encode(images)
    fresh = VQAutoencoder.from_preset(
        str(tmp_path / "preset"), load_weights=False
    )
    with pytest.warns(UserWarning, match="`encode` runs on"):
        fresh.encode(images)
