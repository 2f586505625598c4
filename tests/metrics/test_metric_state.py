import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.metrics.state import (
    RunningMean,
    RunningSum,
    broadcast_weights,
)


class Owner(keras.metrics.Metric):
    pass


def exact(running_sum):
    high, low = running_sum.high.numpy(), running_sum.low.numpy()
    return int(high) * int(running_sum.unit) + int(low)


def test_counts_past_the_precision_of_float32():
    total = RunningSum(Owner(), "counts")
    one_by_one = tf.function(total.add)
    for _ in range(5):
        total.add(np.float32(2**22))
    for _ in range(101):
        one_by_one(tf.constant(1.0))
    assert exact(total) == 5 * 2**22 + 101
    assert np.float32(2**24) + np.float32(1) == np.float32(2**24)


def test_large_and_negative_values_are_carried():
    rng = np.random.default_rng(0)
    total = RunningSum(Owner(), "sum", (3,), unit=16.0)
    values = rng.integers(-(2**20), 2**20, (200, 3)).astype("float32")
    for row in values:
        total.add(row)
    np.testing.assert_array_equal(total.value(), values.sum(0))
    low = total.low.numpy()
    assert (low >= 0).all() and (low < 16).all()


def test_mean_of_a_long_run_does_not_drift():
    rng = np.random.default_rng(1)
    values = (25 * 128 + rng.normal(size=20_000)).astype("float32")
    mean = RunningMean(Owner())

    @tf.function
    def run():
        for value in tf.constant(values):
            mean.add(value)

    run()
    expected = values.astype("float64").mean()
    assert abs(float(mean.value()) / expected - 1) < 2e-7


def test_mean_weights_leave_out_even_nan():
    mean = RunningMean(Owner())
    mean.add(np.array([1.0, np.nan, 3.0]), np.array([1, 0, 3]), None)
    assert float(mean.value()) == 2.5
    assert float(mean.any_weight()) == 1.0


def test_empty_is_zero_and_not_nan():
    mean = RunningMean(Owner())
    mean.add(np.zeros((0,), "float32"))
    assert float(mean.value()) == 0.0
    assert float(mean.any_weight()) == 0.0


@pytest.mark.parametrize(
    "shape", [(), (2,), (2, 1), (2, 3), (1, 3), (2, 3, 4), (2, 3, 4, 1)]
)
def test_weights_of_leading_axes(shape):
    weights = np.random.default_rng(2).random(shape).astype("float32")
    values = np.zeros((2, 3, 4), "float32")
    if len(shape) > 3:
        leading = weights[..., 0]
    else:
        leading = weights.reshape(shape + (1,) * (3 - len(shape)))
    np.testing.assert_array_equal(
        broadcast_weights(weights, values), np.broadcast_to(leading, (2, 3, 4))
    )


@pytest.mark.parametrize("shape", [(3,), (2, 4), (4,), (2, 3, 4, 5)])
def test_weights_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="leading axes.*Received"):
        broadcast_weights(np.ones(shape), np.zeros((2, 3, 4)))
