"""Accumulated micro-batches make the step of the whole batch, for long."""

import keras
import pytest
from networks import images, smooth_vqgan
from replicas import (
    assert_equal_training,
    assert_moved,
    largest_differences,
    number,
    sgd,
    train,
)

STEPS = 50


def _make():
    # Batch normalization and the adaptive weight depend on how a batch is
    # split: each micro-batch has its own.
    model = smooth_vqgan({"adaptive_weight": False}, critic="group")
    # Where rounding takes an activation across the kink of LeakyReLU, a
    # gradient jumps, and the two runs part from there.
    for layer in model.discriminator.main:
        if isinstance(layer, keras.layers.LeakyReLU):
            layer.call = keras.ops.silu
    return model


def _trained(parts):
    data = images(8 * STEPS, 8, 8, 3)
    keras.backend.clear_session()
    return train(
        _make, data, None, 1, sgd(), accumulation_steps=parts, weight_ema=0.9
    )


@pytest.mark.soak
def test_two_networks_for_50_steps():
    whole = _trained(1)
    # Ten times what may differ.
    assert_moved(whole, 1e-4)
    accumulated = _trained(4)
    for model in (whole, accumulated):
        iterations = [
            number(optimizer.iterations)
            for optimizer, _ in model.optimizer_groups.values()
        ]
        assert iterations == [STEPS, STEPS]
    print("weights, codebook:", largest_differences(accumulated, whole))
    assert_equal_training(accumulated, whole)
