"""Where the computation takes place."""

import keras


def tensorflow_on_processor() -> bool:
    """Whether TensorFlow computes, and without a graphics card."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
