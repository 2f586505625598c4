"""Replicas take the step of one device, and the test would tell if not."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import (
    decoder,
    encoder,
    images,
    lively_vqvae2,
    smooth_vqgan,
    vqgan,
)
from replicas import (
    assert_equal_training,
    assert_moved,
    assert_same_copies,
    number,
    train,
    values,
)

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder
from keras_vq.trainers import replicas as parts_of_replicas
from keras_vq.trainers import tensorflow as steps
from keras_vq.trainers import tensorflow_adversarial, tensorflow_gate


def _model(quantizer=EMAVectorQuantizer, **arguments):
    def make():
        codes = quantizer(8, 4, **{"decay": 0.9, **arguments})
        return VQAutoencoder(encoder(), codes, decoder())

    return make


_MODELS = {
    "ema": _model(),
    "vq": _model(VectorQuantizer),
    "vqvae2": lively_vqvae2,
    "vqgan": vqgan,
    "vqgan-smooth": smooth_vqgan,
}


def soak(*arguments):
    """A line that only `make soak` runs."""
    return pytest.param(*arguments, marks=pytest.mark.soak)


@pytest.fixture(scope="module")
def data():
    return images(21, 8, 8, 3)


@functools.cache
def _single(model="ema", epochs=2):
    """What one device makes of the data."""
    return train(_MODELS[model], images(21, 8, 8, 3), epochs=epochs)


@functools.cache
def _mirrored(model, epochs, strategy):
    """What the replicas of a strategy make of the data."""
    return train(_MODELS[model], images(21, 8, 8, 3), strategy, epochs=epochs)


# The last batch of 5 images leaves four replicas 2, 2, 1 and none.
@pytest.mark.parametrize(
    "model, replicas, epochs",
    [
        ("ema", "two_replicas", 17),
        ("ema", "four_replicas", 2),
        ("vq", "four_replicas", 2),
        soak("ema", "four_replicas", 17),
        soak("vq", "two_replicas", 17),
        soak("vqvae2", "two_replicas", 17),
        # Both networks from the first step on, with batch normalization. The
        # short form compares with PyTorch: tests/models.
        soak("vqgan", "two_replicas", 3),
        soak("vqgan-smooth", "two_replicas", 17),
    ],
)
def test_steps(model, replicas, epochs, request):
    strategy = request.getfixturevalue(replicas)
    single = _single(model, epochs)
    mirrored = _mirrored(model, epochs, strategy)
    assert number(mirrored.steps) == 3 * epochs
    assert_moved(single, 2e-5 * epochs)
    assert_equal_training(mirrored, single)
    assert_same_copies(mirrored)


@pytest.mark.soak
def test_adam_of_both_networks(two_replicas):
    """Five steps: more let rounding, divided by itself, move the weights."""
    data = images(40, 8, 8, 3)
    single, mirrored = (
        train(smooth_vqgan, data, strategy, optimizer="adam")
        for strategy in (None, two_replicas)
    )
    for model in (single, mirrored):
        iterations = [
            number(optimizer.iterations)
            for optimizer, _ in model.optimizer_groups.values()
        ]
        assert iterations == [5, 5]
    assert_moved(single, 1e-4)
    assert_equal_training(mirrored, single)
    assert_same_copies(mirrored)


def test_accumulation_on_replicas(two_replicas, data):
    single = train(_model(), data[:16], epochs=3)
    mirrored = train(
        _model(), data[:16], two_replicas, epochs=3, accumulation_steps=2
    )
    assert_equal_training(mirrored, single)
    assert_same_copies(mirrored)


# Batch normalization, where a part of the batch has no images


def _normalized_vqvae():
    return VQVAE(
        hidden_units=8,
        residual_units=4,
        codebook_size=8,
        codebook_dim=4,
        use_batch_normalization=True,
    )


def _normalized_vqgan():
    return vqgan({"r1_weight": 0.1})


def _fitted(make, data, batches, strategy=None, **arguments):
    """A model trained on batches of each size, given as (images, size)."""
    model = train(make, data, strategy, epochs=0, **arguments)
    model.logs = {}
    for count, size in batches:
        dataset = tf.data.Dataset.from_tensor_slices(data[:count]).batch(size)
        logs = model.fit(dataset, verbose=0).history
        model.logs |= {f"{name} of {count}": v for name, v in logs.items()}
    return model


_normalized = pytest.mark.parametrize(
    "make",
    [
        _normalized_vqvae,
        pytest.param(_normalized_vqgan, marks=pytest.mark.soak),
    ],
)


@_normalized
def test_replica_without_images(make, two_replicas, data):
    """Last batches of one image, or batches of just that."""
    batches = [(5, 4), (17, 8), (1, 2)]
    single = _fitted(make, data, batches)
    mirrored = _fitted(make, data, batches, two_replicas)
    assert number(mirrored.steps) == 6
    assert number(mirrored.skipped_steps) == 0
    assert_moved(single, 1e-4)
    assert_equal_training(mirrored, single)
    assert_same_copies(mirrored)


@_normalized
def test_micro_batches_without_images(make, data):
    """Two images are two micro-batches, among how many ever."""
    two, three = (
        _fitted(make, data, [(2, 2)], accumulation_steps=parts)
        for parts in (2, 3)
    )
    assert_moved(two, 1e-5)
    assert_equal_training(three, two)


def test_revival_on_replicas(two_replicas, four_replicas, data):
    """The candidates of all replicas form the table of one device."""
    make = _model(revival_threshold=0.8)
    single = train(make, data[:16], epochs=2)
    without = train(_model(revival_threshold=0), data[:16], epochs=2)
    codes = np.asarray(single.quantizer.codebook)
    assert np.abs(codes - np.asarray(without.quantizer.codebook)).max() > 0.05
    for strategy in (two_replicas, four_replicas):
        mirrored = train(make, data[:16], strategy, epochs=2)
        assert_equal_training(mirrored, single)
        assert_same_copies(mirrored)


# The comparison fails where it must


def _fails_to_equal(strategy, data, model="ema", epochs=2):
    mirrored = train(_MODELS[model], data, strategy, epochs=epochs)
    with pytest.raises(AssertionError):
        assert_equal_training(mirrored, _single(model, epochs))
    return mirrored


def test_without_the_all_reduce(two_replicas, data, monkeypatch):
    for module in (steps, tensorflow_gate):
        monkeypatch.setattr(module, "all_reduce", lambda values: values)
    mirrored = _fails_to_equal(two_replicas, data)
    with pytest.raises(AssertionError):
        assert_same_copies(mirrored)


@pytest.mark.soak
def test_without_the_all_reduce_of_the_adaptive_weight(
    two_replicas, data, monkeypatch
):
    monkeypatch.setattr(
        tensorflow_adversarial, "all_reduce", lambda values: values
    )
    mirrored = _fails_to_equal(two_replicas, data, "vqgan", 3)
    # The gradients are still summed: only the comparison can tell.
    assert_same_copies(mirrored)


def test_without_the_share(two_replicas, data, monkeypatch):
    whole = parts_of_replicas.share_of_replica

    def unscaled(count):
        return (1.0, *whole(count)[1:])

    monkeypatch.setattr(parts_of_replicas, "share_of_replica", unscaled)
    _fails_to_equal(two_replicas, data)


def test_with_equal_shares_of_an_uneven_batch(two_replicas, data, monkeypatch):
    whole = parts_of_replicas.share_of_replica

    def halves(count):
        return (0.5, *whole(count)[1:])

    monkeypatch.setattr(parts_of_replicas, "share_of_replica", halves)
    _fails_to_equal(two_replicas, data)


# Without fit


@pytest.mark.parametrize("model, epochs", [("ema", 2), soak("vqgan", 3)])
def test_evaluate_and_predict_on_replicas(model, epochs, two_replicas, data):
    single = _single(model, epochs)
    mirrored = _mirrored(model, epochs, two_replicas)
    # 17 images in batches of 8: the last one leaves a replica empty.
    arguments = {"batch_size": 8, "verbose": 0}
    want = single.evaluate(data[:17], return_dict=True, **arguments)
    got = mirrored.evaluate(data[:17], return_dict=True, **arguments)
    assert set(got) == set(want)
    for key, value in want.items():
        assert got[key] == pytest.approx(value, rel=1e-4), key
    np.testing.assert_allclose(
        mirrored.predict(data, **arguments),
        single.predict(data, **arguments),
        atol=1e-5,
    )


def test_file_written_on_replicas(two_replicas, data, tmp_path):
    mirrored = train(_model(), data, two_replicas, weight_ema=0.9)
    mirrored.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for got, want in zip(values(loaded), values(mirrored), strict=True):
        np.testing.assert_array_equal(got, want)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    loaded.logs = loaded.fit(dataset, verbose=0).history
    mirrored.logs = mirrored.fit(dataset, verbose=0).history
    assert_equal_training(mirrored, loaded)
