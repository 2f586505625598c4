"""Moving average of a model's weights."""

import warnings

import keras
from keras import ops


class WeightAverage:
    """Exponential moving average of all floating-point weights of a model.

    It covers the codebook, its statistics and batch statistics too: an
    averaged encoder with a codebook of another moment would give other codes.
    After `n` updates the momentum is `min(momentum, (1 + n) / (10 + n))`, so
    that a short run is not dominated by its start.

    Args:
        weights: List of `keras.Variable`, the weights to average.
        momentum: Float in (0, 1), such as 0.999.
    """

    def __init__(self, weights, momentum: float):
        self.momentum = momentum
        self.weights = [
            w for w in weights if keras.backend.is_float_dtype(w.dtype)
        ]
        self.count = _variable((), "int32", "average_count")
        self.averages = [
            _variable(w.shape, w.dtype, "average") for w in self.weights
        ]

    @property
    def variables(self):
        return [self.count, *self.averages]

    def update(self):
        """Takes the current weights in. The first update copies them."""
        count = ops.cast(self.count, "float32")
        momentum = ops.minimum(self.momentum, (1.0 + count) / (10.0 + count))
        momentum = ops.where(count == 0.0, 0.0, momentum)
        for weight, average in zip(self.weights, self.averages, strict=True):
            m = ops.cast(momentum, average.dtype)
            weight = ops.convert_to_tensor(weight)
            average.assign(m * average + (1 - m) * weight)
        self.count.assign(self.count + 1)

    def swap(self):
        """Exchanges weights and averages, once there is an average."""
        if not int(ops.convert_to_numpy(self.count)):
            return
        for weight, average in zip(self.weights, self.averages, strict=True):
            values = ops.convert_to_numpy(weight).copy()
            weight.assign(ops.convert_to_numpy(average))
            average.assign(values)


def next_average(old, weights, momentum: float | None):
    """The average of a model that is compiled, maybe not for the first time.

    Args:
        old: The `WeightAverage` so far, or None.
        weights: List of `keras.Variable`, the weights to average.
        momentum: Float in (0, 1), or None for no average.

    Returns:
        `old` if it is of these weights and with this momentum, which goes on
        then, else a new one, or None.
    """
    new = None
    if momentum is not None:
        new = WeightAverage(weights, momentum)
    if old is None:
        return new
    if new is not None and old.momentum == momentum:
        if [id(w) for w in old.weights] == [id(w) for w in new.weights]:
            return old
    count = int(ops.convert_to_numpy(old.count))
    if count:
        warnings.warn(
            f"Compiling drops the averages of {count} steps: they go on only "
            f"with the same weights and `weight_ema={old.momentum}`. To keep "
            "what they hold, copy them first: `with model.averaged_weights(): "
            "best = model.get_weights()`. "
            f"Received: weight_ema={momentum}",
            stacklevel=4,
        )
    return new


def _variable(shape, dtype, name):
    return keras.Variable(
        "zeros", shape=shape, dtype=dtype, trainable=False, name=name
    )
