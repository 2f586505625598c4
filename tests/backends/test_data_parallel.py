"""`keras.distribution.DataParallel` takes the step of one device, on JAX."""

import contextlib
import functools

import keras
import numpy as np
import pytest
from networks import decoder, encoder, images, lively_vqvae2, smooth_vqgan
from replicas import (
    assert_equal_training,
    assert_moved,
    compile_model,
    number,
    sgd,
    values,
    variables,
)

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="keras.distribution is of JAX; TensorFlow has tf.distribute",
)


@contextlib.contextmanager
def _devices(count):
    devices = keras.distribution.list_devices("cpu")[:count]
    before = keras.distribution.distribution()
    distribution = keras.distribution.DataParallel(devices=devices)
    keras.distribution.set_distribution(distribution)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _autoencoder():
    codes = EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.5)
    return VQAutoencoder(encoder(), codes, decoder())


_MODELS = {
    "ema": _autoencoder,
    "vqvae2": lively_vqvae2,
    "vqgan": functools.partial(smooth_vqgan, attention_factors=()),
    "vqgan-attention": smooth_vqgan,
}


def _train(make, data, epochs=1, optimizer=sgd, **arguments):
    keras.utils.set_random_seed(0)
    model = compile_model(make(), optimizer(), **arguments)
    model.start = model.get_weights()
    model.logs = model.fit(
        data, batch_size=8, epochs=epochs, shuffle=False, verbose=0
    ).history
    return model


@pytest.mark.parametrize(
    "name, count, epochs, parts",
    [
        ("ema", 2, 13, 1),
        ("ema", 8, 13, 1),
        ("ema", 2, 2, 2),
        ("vqgan", 2, 2, 1),
        pytest.param("vqvae2", 8, 13, 1, marks=pytest.mark.soak),
        pytest.param("vqgan-attention", 8, 13, 1, marks=pytest.mark.soak),
    ],
)
def test_equals_one_device(name, count, epochs, parts):
    data = images(32, 8, 8, 3)
    arguments = {
        "weight_ema": 0.9,
        "clipnorm": 1.0,
        "accumulation_steps": parts,
    }
    single = _train(_MODELS[name], data, epochs, **arguments)
    with _devices(count):
        model = _train(_MODELS[name], data, epochs, **arguments)
    assert_equal_training(model, single)
    assert_moved(model, 1e-4)
    assert number(model.steps) == 4 * epochs
    for variable in variables(model):
        copies = variable.value.addressable_shards
        assert len(copies) == count
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy.data, copies[0].data)


@pytest.mark.parametrize("name", ["ema", "vqgan"])
def test_equals_one_device_with_adam(name):
    # Five steps: Adam's are about the sign of a gradient, whatever its size,
    # and later rounding decides on more of them.
    data, adam = images(40, 8, 8, 3), keras.optimizers.Adam
    single = _train(_MODELS[name], data, optimizer=adam, weight_ema=0.9)
    with _devices(2):
        model = _train(_MODELS[name], data, optimizer=adam, weight_ema=0.9)
    assert_equal_training(model, single)
    assert_moved(model, 1e-4)
    assert number(model.steps) == 5


def test_what_a_skipped_step_leaves():
    data = images(16, 8, 8, 3)
    with _devices(2):
        model = _train(_autoencoder, data, weight_ema=0.9)
        before = values(model)
        # On the second device alone.
        data[7, 0, 0, 0] = np.nan
        with pytest.warns(UserWarning, match="Step 3 was skipped: images"):
            model.fit(data[:8], batch_size=8, shuffle=False, verbose=0)
        assert number(model.skipped_steps) == 1
        counters = {id(v) for v in model.training_state}
        metrics = {id(v) for v in model.metrics_variables}
        for variable, old, new in zip(
            variables(model), before, values(model), strict=True
        ):
            if id(variable) not in counters | metrics:
                np.testing.assert_array_equal(new, old, err_msg=variable.path)


def test_evaluate_and_predict_take_batches_of_any_size():
    data = images(21, 8, 8, 3)
    single = _train(_autoencoder, data[:16])
    with _devices(2):
        model = _train(_autoencoder, data[:16])
        got = model.evaluate(data, batch_size=8, verbose=0, return_dict=True)
        output = model.predict(data, batch_size=8, verbose=0)
    want = single.evaluate(data, batch_size=8, verbose=0, return_dict=True)
    assert set(got) == set(want)
    for key, value in want.items():
        assert got[key] == pytest.approx(value, rel=1e-4), key
    np.testing.assert_allclose(output, single(data), atol=1e-5)


def test_refusals():
    data = images(12, 8, 8, 3)
    outside = compile_model(_autoencoder())
    with _devices(8):
        with pytest.raises(ValueError, match="not made under the distrib"):
            outside.fit(data, batch_size=8, verbose=0)
        model = compile_model(_autoencoder())
        with pytest.raises(ValueError, match="batch of 4 images cannot be"):
            model.fit(data, batch_size=8, verbose=0)
        with pytest.raises(ValueError, match="batch of 6 images cannot be"):
            model.fit(data, batch_size=6, verbose=0)
    mesh = keras.distribution.DeviceMesh(
        (2, 1), ["batch", "model"], keras.distribution.list_devices("cpu")[:2]
    )
    layout_map = keras.distribution.LayoutMap(mesh)
    other = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )
    with other.scope(), pytest.raises(ValueError, match="no other distrib"):
        compile_model(_autoencoder())
