"""Running sums that stay exact however long they are."""

import contextlib

import keras
from keras import ops


class RunningSum:
    """A sum that is kept in two float32 variables of a metric.

    A single float32 stops growing by one at 2**24: on a collapsed codebook a
    few thousand images are enough for that, and means of long runs drift in
    the same way. Here `low` stays below `unit`, and whole multiples of it are
    carried over to `high`, so that counts are exact up to `unit` * 2**24.
    Both parts are plain sums, which add up over the replicas of a
    `tf.distribute` strategy and need no integer or double precision variables
    (some accelerators and JAX's default have none of them).

    Args:
        metric: keras.metrics.Metric. The owner of the two variables.
        name: str. Prefix of the names of the variables.
        shape: tuple of ints. Shape of the sum.
        unit: float. A power of two. One call should not add much more than
            that, and the rounding error of a call is about
            `unit` * 2**-24 for values that are no integers.
    """

    def __init__(
        self,
        metric: keras.metrics.Metric,
        name: str,
        shape: tuple = (),
        unit: float = 2.0**20,
    ):
        self.unit = unit
        self.low, self.high = (
            metric.add_variable(
                shape=shape,
                initializer="zeros",
                dtype="float32",
                name=f"{name}_{part}",
            )
            for part in ("low", "high")
        )

    def add(self, values) -> None:
        """Adds float32 values of the sum's shape."""
        low = self.low + values
        carried = ops.floor(low / self.unit)
        self.low.assign(low - carried * self.unit)
        self.high.assign(self.high + carried)

    def value(self):
        """Returns the sum as a float32 tensor."""
        return self.high * self.unit + self.low


class RunningMean:
    """A weighted mean, as two running sums of a metric.

    Args:
        metric: keras.metrics.Metric. The owner of the variables.
        name: str. Prefix of the names of the variables.
    """

    def __init__(self, metric: keras.metrics.Metric, name: str = "mean"):
        # Small units, because the values are no integers: 2**10 keeps the
        # rounding error of one call under 1e-4 of one unit of the values.
        self.total = RunningSum(metric, f"{name}_total", unit=2.0**10)
        self.weight = RunningSum(metric, f"{name}_weight")

    def add(self, values, *factors) -> None:
        """Adds values, weighted by the product of the factors given.

        Args:
            values: Tensor of any shape.
            *factors: None, or masks or weights as `broadcast_weights` takes.
        """
        values = ops.cast(values, "float32")
        weights = ops.ones_like(values)
        for factor in factors:
            if factor is not None:
                weights = weights * broadcast_weights(factor, values)
        # What is masked out must not count even if it is NaN.
        values = ops.where(weights > 0, values * weights, 0.0)
        self.total.add(ops.sum(values))
        self.weight.add(ops.sum(weights))

    def any_weight(self):
        """Returns 1.0 where something was added, else 0.0."""
        return ops.cast(self.weight.value() > 0, "float32")

    def value(self):
        """Returns the mean as a float32 tensor, 0 where nothing was added."""
        return ops.divide_no_nan(self.total.value(), self.weight.value())


def float64_allowed():
    """Context in which the backend computes in float64, as JAX must be told."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def broadcast_weights(weights, values):
    """Brings weights of the leading axes to the shape of `values`.

    Args:
        weights: Booleans or numbers, shaped like `values` or like its leading
            axes; axes of length one are stretched. A scalar weighs all.
        values: Tensor of any shape.

    Returns:
        float32 weights of the shape of `values`.

    Raises:
        ValueError: If the shapes do not fit.
    """
    weights = ops.cast(ops.convert_to_tensor(weights), "float32")
    expected, received = tuple(values.shape), tuple(weights.shape)
    # Keras hands sample weights on as (B,) or as (B, 1).
    while len(received) > len(expected) and received[-1] == 1:
        weights = ops.squeeze(weights, axis=-1)
        received = received[:-1]
    fits = len(received) <= len(expected) and all(
        have in (None, 1, want) or want is None
        for have, want in zip(received, expected, strict=False)
    )
    if not fits:
        raise ValueError(
            "A mask or sample weight must have the shape of the values "
            f"{expected} or of their leading axes. Received: shape={received}"
        )
    for _ in range(len(expected) - len(received)):
        weights = ops.expand_dims(weights, axis=-1)
    return ops.broadcast_to(weights, ops.shape(values))
