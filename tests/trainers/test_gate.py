"""A step that is not finite leaves everything as it was."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import images
from replicas import assert_same_copies, number, variables

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.metrics import PSNR
from keras_vq.models import VQVAE

# What Keras' LossScaleOptimizer changes at a step that it skips.
_OF_THE_SCALE = ("dynamic_scale", "step_counter")


def _fit(batches, strategy=None, dtype=None, bad=np.nan, **arguments):
    """Trains a network with batch normalization on the given batches.

    "good" stands for a batch, "bad" for one with one value that is `bad`.
    """
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = VQVAE(
            hidden_units=8,
            residual_units=4,
            residual_blocks=1,
            use_batch_normalization=True,
            quantizer=EMAVectorQuantizer(8, 4, decay=0.5, dtype=dtype),
            codebook_dim=4,
            dtype=dtype,
        )
        optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
        if dtype == "mixed_float16":
            # Small enough to overflow only where a test wants it.
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=2.0**8
            )
        model.compile(
            optimizer,
            metrics=[PSNR()],
            weight_ema=0.9,
            **arguments,
        )
    model.adapt(images(8, 8, 8, 3, seed=99))
    data, good = [], 0
    for kind in batches:
        batch = images(8, 8, 8, 3, seed=good)
        if kind == "bad":
            batch[1, 3, 3, 0] = bad
        else:
            good += 1
        data.append(batch)
    dataset = tf.data.Dataset.from_tensor_slices(np.stack(data))
    model.logs = model.fit(dataset, verbose=0).history
    return model


def _state(model):
    """Names and values of everything but the counters of steps."""
    return [
        (v.name, np.array(keras.ops.convert_to_numpy(v)))
        for v in variables(model)
        if "steps" not in v.name and v.name not in _OF_THE_SCALE
    ]


def _assert_untouched(model, expected):
    assert number(model.skipped_steps) == 1
    assert number(expected.skipped_steps) == 0
    assert number(model.steps) == number(expected.steps) + 1
    assert model.logs == expected.logs
    names = []
    for (name, want), (_, got) in zip(
        _state(expected), _state(model), strict=True
    ):
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert np.isfinite(got).all(), name
        names.append(name)
    for name in ("moving_variance", "average_count", "iteration", "codebook"):
        assert name in names


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_device(bad):
    expected = _fit(["good", "good"])
    model = _fit(["good", "bad", "good"], bad=bad)
    _assert_untouched(model, expected)


def test_first_step_and_accumulation():
    expected = _fit(["good"], accumulation_steps=2, clipnorm=1.0)
    model = _fit(["bad", "good"], accumulation_steps=2, clipnorm=1.0)
    _assert_untouched(model, expected)


@pytest.mark.parametrize("replicas", ["two_replicas", "four_replicas"])
def test_one_replica_stops_all(replicas, request):
    strategy = request.getfixturevalue(replicas)
    expected = _fit(["good", "good"], strategy)
    model = _fit(["good", "bad", "good"], strategy)
    _assert_untouched(model, expected)
    assert_same_copies(model)


@pytest.mark.parametrize("replicas", [None, "two_replicas"])
def test_loss_scale(replicas, request):
    """Overflow halves the scale, as Keras' own step would have done."""
    strategy = request.getfixturevalue(replicas) if replicas else None
    expected = _fit(["good", "good"], strategy, "mixed_float16")
    model = _fit(["good", "good", "bad"], strategy, "mixed_float16")
    _assert_untouched(model, expected)
    before = number(expected.optimizer.dynamic_scale)
    assert number(model.optimizer.dynamic_scale) == before / 2
    assert number(expected.optimizer.step_counter) == 2
    assert number(model.optimizer.step_counter) == 0


def test_too_large_a_scale_is_found_by_itself():
    """Gradients overflow in float16 until the scale fits."""
    keras.utils.set_random_seed(0)
    model = VQVAE(
        hidden_units=8, residual_units=4, codebook_dim=4, dtype="mixed_float16"
    )
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=2.0**24
    )
    model.compile(optimizer)
    batch = images(8, 8, 8, 3)
    model.fit(np.tile(batch, (16, 1, 1, 1)), batch_size=8, verbose=0)
    skipped = number(model.skipped_steps)
    assert 0 < skipped < 16
    assert number(model.optimizer.dynamic_scale) == 2.0 ** (24 - skipped)
    assert number(model.optimizer.iterations) == 16 - skipped
