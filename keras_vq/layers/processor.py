"""Where the computation takes place, and with what."""

import contextlib
import contextvars
import functools
import pathlib

import keras

_plain = contextvars.ContextVar("keras_vq_plain_operations", default=False)


def tensorflow_on_processor() -> bool:
    """Whether TensorFlow computes, and without a graphics card."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


@functools.cache
def vectors_are_of_avx2() -> bool:
    """Whether the processor has AVX2 and nothing wider; Linux says so."""
    try:
        known = pathlib.Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx2" in known and "avx512f" not in known


@contextlib.contextmanager
def plain_operations():
    """What is traced in here has no functions that XLA must compile.

    For graphs that other programs run or convert.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def xla_is_allowed() -> bool:
    """Whether TensorFlow may leave a function to XLA."""
    return not _plain.get()
