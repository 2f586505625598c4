"""What every model promises before any training."""

import json

import keras
import numpy as np
import pytest
from cases import MODELS, levels, parametrize
from replicas import compile_model

pytestmark = parametrize(MODELS)


def test_reconstruction_is_decode_of_encode(case):
    model = case.make()
    factor = case.downsample_factor
    assert model.downsample_factor == factor
    assert model.channels == case.channels
    images = case.images(2, 2 * factor, 3 * factor)
    output = model(images)
    assert output.shape == images.shape and output.dtype == "float32"
    codes = model.encode(images)
    grids = case.grids(2, 3)
    for level, grid in zip(levels(codes), grids, strict=True):
        assert level.shape == (2, *grid) and level.dtype == "int32"
    np.testing.assert_allclose(model.decode(codes), output, atol=1e-5)
    latents = model.encoder(images)
    again = model.quantizer.encode(latents)
    for level, same in zip(levels(codes), levels(again), strict=True):
        np.testing.assert_array_equal(same, level)
    np.testing.assert_array_equal(model(images), output)
    bits = [3 * rows * columns for rows, columns in grids]
    assert model.bits_per_level(2 * factor, 3 * factor) == bits
    assert model.bits_per_image(2 * factor, 3 * factor) == sum(bits)


def test_any_height_and_width(case):
    model, factor = case.make(), case.downsample_factor
    small = case.smallest_side
    for height, width in [
        (small, small),
        (factor + 1, 2 * factor - 1),
        (factor, max(3, small)),
    ]:
        images = case.images(2, height, width)
        output = np.asarray(model(images))
        assert output.shape == images.shape
        rows, columns = -(-height // factor), -(-width // factor)
        codes = model.encode(images)
        grids = case.grids(rows, columns)
        assert [x.shape for x in levels(codes)] == [(2, *g) for g in grids]
        bits = sum(3 * rows * columns for rows, columns in grids)
        assert model.bits_per_image(height, width) == bits
        # The last pixels are repeated, and cropped off again.
        bottom, right = rows * factor - height, columns * factor - width
        padding = ((0, 0), (0, bottom), (0, right), (0, 0))
        padded = model(np.pad(images, padding, "edge"))
        np.testing.assert_allclose(
            output, padded[:, :height, :width], atol=1e-6
        )
        decoded = model.decode(codes)
        np.testing.assert_allclose(padded, decoded, atol=1e-5)


def test_every_variable_is_there_from_the_start(case):
    model = case.make()
    before = len(model.variables)
    model(case.images(1, 16, 16), training=True)
    assert len(model.variables) == before
    assert all(layer.built for layer in model.layers)


def test_configuration(case):
    model = case.make()
    config = json.loads(json.dumps(model.get_config()))
    again = type(model).from_config(config)
    for name, value in json.loads(json.dumps(again.get_config())).items():
        # Keras writes the edges of a loaded graph in another form.
        if name not in ("encoder", "decoder"):
            assert value == config[name], name
    shapes = [w.shape for w in model.weights]
    assert [w.shape for w in again.weights] == shapes
    again.set_weights(model.get_weights())
    images = case.images(2, 16, 16)
    np.testing.assert_array_equal(again(images), model(images))
    with pytest.raises((TypeError, ValueError), match="no_such_argument"):
        type(model).from_config({**config, "no_such_argument": 1})


def test_keras_file_without_training(case, tmp_path):
    model = case.make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and not loaded.compiled
    images = case.images(2, 16, 16)
    np.testing.assert_array_equal(loaded(images), model(images))
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a, b)


# Errors


def test_refuses_bytes(case):
    """Silently taken, uint8 images would be 127 times too large."""
    model = case.make()
    images = np.zeros((8, 16, 16, case.channels), "uint8")
    compile_model(model)
    for method in (model, model.encode, model.fit, model.adapt, model.predict):
        with pytest.raises(ValueError, match=r"\[-1, 1\].*preprocess.*uint8"):
            method(images)
    with pytest.raises(ValueError, match="uint8"):
        model.evaluate(images, verbose=0)
    output = model(model.preprocess(images))
    assert model.postprocess(output).dtype == "uint8"


def test_refuses_other_channels(case):
    model = case.make()
    compile_model(model)
    wrong = np.zeros((8, 16, 16, case.channels + 1), "float32") - 1
    expected = rf"height, width, {case.channels}\).*Received: shape \(8, 16"
    for method in (model, model.encode, model.fit, model.adapt):
        with pytest.raises(ValueError, match=expected):
            method(wrong)
    with pytest.raises(ValueError, match="batch, height, width"):
        model(wrong[0, ..., :-1])


def test_refuses_codes_outside_of_the_codebook(case):
    model = case.make()
    codes = levels(model.encode(case.images(1, 16, 16)))
    for i, quantizer in enumerate(model.quantizer.levels()):
        size = quantizer.codebook_size

        def decode(wrong, i=i):
            maps = [*codes[:i], wrong, *codes[i + 1 :]]
            return model.decode(maps if len(maps) > 1 else maps[0])

        for value in (-1, size):
            with pytest.raises(ValueError, match=rf"\[0, {size}\)"):
                decode(np.full(codes[i].shape, value))
        with pytest.raises(ValueError, match="integers"):
            decode(np.zeros(codes[i].shape, "float32"))
