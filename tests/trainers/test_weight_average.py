"""`weight_ema` against the averages computed by hand in NumPy."""

import warnings

import keras
import numpy as np
import pytest
from networks import images

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQVAE


def _make():
    return VQVAE(
        hidden_units=8,
        residual_units=4,
        residual_blocks=1,
        use_batch_normalization=True,
        quantizer=EMAVectorQuantizer(8, 4, decay=0.5),
        codebook_dim=4,
    )


class _Record(keras.callbacks.Callback):
    """The weights after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(_weights(self.model))


def _weights(model):
    return {
        w.path: np.asarray(w, "float64")
        for w in model.weights
        if w.dtype == "float32"
    }


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model, record = _make(), _Record()
    model.compile(keras.optimizers.Adam(1e-2), weight_ema=0.7)
    model.fit(
        images(40, 8, 8, 3),
        batch_size=8,
        epochs=2,
        callbacks=[record],
        validation_data=images(8, 8, 8, 3, seed=5),
        verbose=0,
    )
    return model, record.steps


def _expected(steps):
    averages = steps[0]
    for count, weights in enumerate(steps[1:], 1):
        m = min(0.7, (1 + count) / (10 + count))
        averages = {
            path: m * averages[path] + (1 - m) * value
            for path, value in weights.items()
        }
    return averages


def test_averages_of_all_weights(trained):
    model, steps = trained
    assert len(steps) == int(model.weight_average.count) == 10
    expected = _expected(steps)
    before = _weights(model)
    names = " ".join(expected)
    for name in ("codebook", "counts", "sums", "moving_variance", "kernel"):
        assert name in names
    with model.averaged_weights():
        for path, value in _weights(model).items():
            np.testing.assert_allclose(
                value, expected[path], rtol=1e-4, atol=1e-6, err_msg=path
            )
    for path, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[path])
    changed = [np.abs(before[p] - expected[p]).max() > 1e-4 for p in before]
    assert np.mean(changed) > 0.8


def test_evaluation_uses_the_averages(trained):
    model, _ = trained
    data = images(8, 8, 8, 3, seed=5)
    plain = _make()
    plain.compile()
    with model.averaged_weights():
        plain.set_weights(model.get_weights())
    want = plain.evaluate(data, verbose=0, return_dict=True)
    got = model.evaluate(data, verbose=0, return_dict=True)
    assert got == pytest.approx(want, rel=1e-5)
    plain.set_weights(model.get_weights())
    raw = plain.evaluate(data, verbose=0, return_dict=True)
    assert raw["loss"] != pytest.approx(want["loss"], rel=1e-3)


def test_weights_come_back_after_an_error(trained):
    model, _ = trained
    before = _weights(model)
    with pytest.raises(RuntimeError, match="stop"), model.averaged_weights():
        raise RuntimeError("stop")
    for path, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[path])


def test_nothing_to_average():
    model = _make()
    before = _weights(model)
    for weight_ema in (None, 0.9):
        model.compile(weight_ema=weight_ema)
        with model.averaged_weights() as same:
            assert same is model
            for path, value in _weights(model).items():
                np.testing.assert_array_equal(value, before[path])


def test_compile_again_goes_on_with_the_averages():
    model = _make()
    data = images(16, 8, 8, 3)
    model.compile(keras.optimizers.Adam(1e-2), weight_ema=0.7)
    model.fit(data, batch_size=8, verbose=0)
    average = model.weight_average
    values = [np.asarray(v) for v in average.variables]
    model.encoder.trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.compile(keras.optimizers.SGD(0.1), weight_ema=0.7)
    assert model.weight_average is average
    for variable, value in zip(average.variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(data, batch_size=8, verbose=0)
    assert int(average.count) == 4


@pytest.mark.parametrize("weight_ema", [0.9, None])
def test_compile_says_that_averages_are_dropped(weight_ema):
    model = _make()
    model.compile(weight_ema=0.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.compile(weight_ema=weight_ema)  # There is nothing in them yet.
        model.compile(weight_ema=0.7)
    model.fit(images(16, 8, 8, 3), batch_size=8, verbose=0)
    with pytest.warns(UserWarning, match="drops the averages of 2 steps"):
        model.compile(weight_ema=weight_ema)
    if weight_ema is None:
        assert model.weight_average is None
    else:
        assert int(model.weight_average.count) == 0


def test_weight_files_with_and_without_averages(trained, tmp_path):
    model, _ = trained
    path = tmp_path / "trained.weights.h5"
    model.save_weights(path)
    averaged = _make()
    averaged.compile(weight_ema=0.7)
    averaged.load_weights(path)
    for a, b in zip(
        averaged.weight_average.variables,
        model.weight_average.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    plain = _make()
    plain.load_weights(path)
    for a, b in zip(plain.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    plain.save_weights(tmp_path / "plain.weights.h5")
    averaged.load_weights(tmp_path / "plain.weights.h5")
