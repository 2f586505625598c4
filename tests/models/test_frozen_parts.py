"""What is frozen stays frozen, in files and in models of models."""

import keras
import networks
import numpy as np
import pytest

from keras_vq.layers import EMAVectorQuantizer, ResidualBlock, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder

IMAGES = networks.images(8, 8, 8, 3)


def _vqvae(**arguments):
    return VQVAE(
        hidden_units=8,
        residual_units=4,
        residual_blocks=1,
        # Of other length than the latents: with projections.
        quantizer=VectorQuantizer(8, 2),
        codebook_dim=4,
        **{"use_batch_normalization": True, **arguments},
    )


def _own_networks():
    return VQAutoencoder(
        networks.encoder(), EMAVectorQuantizer(8, 2), networks.decoder()
    )


def _shapes(variables):
    return [tuple(variable.shape) for variable in variables]


@pytest.mark.parametrize(
    "make,part",
    [
        (_vqvae, "encoder"),
        (_vqvae, "quantizer"),
        (_vqvae, "decoder"),
        (_own_networks, "encoder"),
    ],
)
def test_frozen_part_of_a_loaded_model(make, part, tmp_path):
    model = make()
    getattr(model, part).trainable = False
    model.compile()
    trained = _shapes(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not getattr(loaded, part).trainable
    assert not getattr(loaded, part).trainable_variables
    assert _shapes(loaded.trainable_variables) == trained
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    getattr(loaded, part).trainable = True
    assert _shapes(loaded.trainable_variables) == _shapes(
        make().trainable_variables
    )


def test_training_goes_on_exactly_with_a_frozen_encoder(tmp_path):
    model = _vqvae(use_batch_normalization=False)
    model.adapt(IMAGES)
    model.encoder.trainable = False
    model.compile()
    model.fit(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    encoder = [w.numpy() for w in loaded.encoder.weights]
    for each in (model, loaded):
        each.fit(IMAGES, verbose=0, shuffle=False)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    for a, b in zip(encoder, loaded.encoder.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=b.path)


def test_single_frozen_layer():
    model = _vqvae()
    block = next(
        layer
        for layer in model.decoder.layers
        if isinstance(layer, ResidualBlock)
    )
    block.trainable = False
    copy = VQVAE.from_config(model.get_config())
    assert _shapes(copy.trainable_variables) == _shapes(
        model.trainable_variables
    )
    # Kernel and bias, scale and offset; twice.
    missing = len(_vqvae().trainable_variables) - len(copy.trainable_variables)
    assert missing == 8


def test_model_made_frozen():
    model = _vqvae(trainable=False)
    assert model.trainable_variables == []
    model.trainable = True
    assert model.trainable_variables


def test_preset_of_a_model_with_frozen_layers(tmp_path):
    model = _vqvae()
    model.encoder.trainable = False
    model.save_to_preset(tmp_path / "preset")
    loaded = VQVAE.from_preset(tmp_path / "preset")
    assert loaded.encoder.trainable
    assert _shapes(loaded.trainable_variables) == _shapes(
        _vqvae().trainable_variables
    )


def test_frozen_encoder_of_a_loaded_classifier(tmp_path):
    encoder = _vqvae().encoder
    encoder.trainable = False
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.GlobalAveragePooling2D()(encoder(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(features))
    model.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    assert _shapes(loaded.trainable_variables) == [(4, 2), (2,)]


def test_model_inside_of_a_loaded_functional_model(tmp_path):
    model = _vqvae()
    inputs = keras.Input((None, None, 3))
    outer = keras.Model(inputs, keras.layers.ReLU()(model(inputs)))
    outer.save(tmp_path / "outer.keras")
    loaded = keras.models.load_model(tmp_path / "outer.keras")
    np.testing.assert_array_equal(
        loaded(IMAGES), np.maximum(model(IMAGES), 0.0)
    )
