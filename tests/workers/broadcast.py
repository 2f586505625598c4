"""One worker of several: takes the chief's values."""

import numpy as np
import tensorflow as tf
from workers_harness import report

from keras_vq.trainers import workers

strategy = tf.distribute.MultiWorkerMirroredStrategy()
chief = workers.is_chief(strategy)


def any_bits(dtype, *shape):
    rng = np.random.default_rng(0 if chief else 1)
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    return np.frombuffer(rng.bytes(size), dtype).reshape(shape)


values = [
    any_bits("float32", 3, 5),
    any_bits("int32"),
    any_bits("int64", 2),
    any_bits("uint32", 7),
    any_bits("float16", 3),
    np.array([-0.0, np.nan, np.inf] if chief else [1, 2, 3], "float32"),
    np.array([True, False] if chief else [False, True]),
    np.zeros((0, 4), "float32"),
]
received = workers.broadcast(values, strategy)
for value, got in zip(values, received, strict=True):
    assert (value.dtype, value.shape) == (got.dtype, got.shape)
    # They are written to, as arrays from elsewhere are.
    assert got.flags.writeable
report(
    {
        "chief": chief,
        "own": [value.tobytes().hex() for value in values],
        "received": [value.tobytes().hex() for value in received],
    }
)
