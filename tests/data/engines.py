"""Which engine the tests run on: that of Keras' backend."""

import keras
import pytest

from keras_vq.data import ImageError

TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(
    not TENSORFLOW, reason="tf.data is the engine of TensorFlow"
)


def error_in_a_loop():
    """What becomes of an `ImageError` in a loop over a dataset."""
    if not TENSORFLOW:
        return ImageError
    import tensorflow as tf

    return tf.errors.InvalidArgumentError
