"""Which library does the work: TensorFlow, or grain, Pillow and NumPy.

What is where in a batch follows from `Pipeline` alone; an engine only calls
it in threads of its own, and ahead of time. TensorFlow is the engine where it
is Keras' backend. Everywhere else it is not needed, and not imported as long
as there is another way.
"""

import functools
import importlib.util

_MODULES = {"pillow": "PIL"}
_EXTRA = "Install it with `pip install keras_vq[jax]`."


@functools.cache
def is_tensorflow(part: str, instead: str | None) -> bool:
    """Whether TensorFlow does a part of the work.

    Args:
        part: What it is, for the message.
        instead: The package that does it otherwise; None for NumPy.

    Raises:
        ImportError: If neither is installed.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        return True
    if instead is None or is_installed(instead):
        return False
    if is_installed("tensorflow"):
        return True
    raise ImportError(
        f"{part} with Keras' backend {keras.backend.backend()!r} needs the "
        f"package {instead}, or TensorFlow; neither is installed. {_EXTRA}"
    )


def is_installed(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    module = _MODULES.get(package, package)
    return importlib.util.find_spec(module) is not None


def needs_tensorflow(what: str) -> None:
    """Raises an `ImportError` that says so where TensorFlow is missing.

    Args:
        what: What needs it, as the beginning of a sentence.
    """
    if not is_installed("tensorflow"):
        raise ImportError(
            f"{what} needs TensorFlow, which is not installed: "
            "`pip install keras_vq[cpu]`."
        )


def make_dataset(pipeline):
    """Returns the dataset of a `Pipeline`.

    Returns:
        A `tf.data.Dataset` where TensorFlow is Keras' backend; otherwise a
        `grain.IterDataset`.
    """
    if is_tensorflow("A data set", "grain"):
        from keras_vq.data.tf_engine import make_dataset
    else:
        from keras_vq.data.grain_engine import make_dataset
    return make_dataset(pipeline)
