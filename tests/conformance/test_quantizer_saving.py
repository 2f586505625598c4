"""Configuration, files and clear errors of every quantizer."""

import json

import keras
import numpy as np
import pytest
from cases import QUANTIZERS, parametrize

pytestmark = parametrize(QUANTIZERS)


@pytest.mark.parametrize("start", ["kmeans", "data", None])
def test_configuration(case, start):
    overrides = {"decay": 0.8, "revival_threshold": 0.2, "seed": 3}
    if start is not None:
        overrides["codebook_initializer"] = start
    quantizer = case.make(name="codes", **overrides)
    config = json.loads(json.dumps(quantizer.get_config()))
    for name, value in {**overrides, **case.arguments, "name": "codes"}.items():
        assert config[name] == value
    again = case.quantizer.from_config(config)
    assert again.get_config() == quantizer.get_config()
    packed = keras.saving.serialize_keras_object(quantizer)
    assert packed["registered_name"].startswith("keras_vq>")
    again = keras.saving.deserialize_keras_object(packed)
    assert type(again) is case.quantizer and again.built
    assert again.initialized is (start is None)
    if start is None and quantizer.project_in is None:
        np.testing.assert_array_equal(again.codebook, quantizer.codebook)


def test_keras_file(case, tmp_path):
    quantizer = case.make(decay=0.5, codebook_initializer="kmeans")
    latents = case.latents(4, 3, 3)
    quantizer.adapt(latents)
    quantizer.update(quantizer(latents, training=True)["statistics"], 1)
    inputs = keras.Input((None, None, case.channels))
    output = quantizer(inputs)
    model = keras.Model(inputs, [output["quantized"], output["indices"]])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model(latents), loaded(latents), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.layers[-1].initialized
    assert loaded.layers[-1].get_config() == quantizer.get_config()


def test_facts(case):
    quantizer = case.make()
    assert quantizer.codebook_size == 16
    assert quantizer.num_codebooks == 1
    assert quantizer.bits_per_position == 4.0
    assert quantizer.codebook.shape == (16, quantizer.codebook_dim)
    rank = len(quantizer(case.latents(3, 4, 5))["indices"].shape)
    assert quantizer.indices_shape(4) == (None,) * rank


@pytest.mark.parametrize(
    "indices, received",
    [
        ([[0, 16]], "values from 0 to 16"),
        ([[-1, 3]], "values from -1 to 3"),
        ([[0.0, 1.0]], "float"),
        ([[True, False]], "bool"),
    ],
)
def test_decode_refuses(case, indices, received):
    with pytest.raises(ValueError, match=r"\[0, 16\).*" + received):
        case.make().decode(np.array(indices))


def test_decode_takes_every_integer_type(case):
    quantizer = case.make()
    expected = quantizer.decode([[0, 15]])
    assert expected.shape == (1, 2, case.channels)
    for dtype in ("uint8", "uint16", "int64", "int32"):
        got = quantizer.decode(np.array([[0, 15]], dtype))
        np.testing.assert_array_equal(got, expected)


def test_wrong_channels(case):
    quantizer = case.make()
    wrong = np.zeros((2, 3, case.channels + 1), "float32")
    for method in (quantizer, quantizer.encode, quantizer.adapt):
        with pytest.raises(ValueError, match=f"{case.channels} channels"):
            method(wrong)


def test_not_built(case):
    quantizer = case.quantizer(16, 4)
    assert not quantizer.initialized
    with pytest.raises(ValueError, match="no codebook yet"):
        quantizer.encode(case.latents(2, 3))
    with pytest.raises(ValueError, match="no codebook yet"):
        quantizer.decode([[0, 1]])
    with pytest.raises(ValueError, match="known number of channels"):
        quantizer.build((None, None, None))


@pytest.mark.parametrize(
    "name, value",
    [
        ("codebook_size", 0),
        ("codebook_size", 2.5),
        ("codebook_dim", -1),
        ("decay", 1.0),
        ("decay", -0.1),
        ("revival_threshold", -1.0),
    ],
)
def test_arguments_out_of_range(case, name, value):
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        case.make(**{name: value})
