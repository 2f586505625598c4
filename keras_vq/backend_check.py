"""One sentence where Keras' backend is not installed. Imports no package."""

import contextlib
from collections.abc import Iterator

_BACKENDS = ("tensorflow", "jax", "torch")


@contextlib.contextmanager
def missing_backend_explained() -> Iterator[None]:
    """Says what to do when Keras, imported in here, misses its backend.

    Raises:
        ImportError: If TensorFlow, JAX or PyTorch is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _BACKENDS:
            raise
        raise ImportError(
            f"Keras is to compute with {name}, which is not installed. Install "
            'it, for example with `pip install "keras_vq[cpu]"`, or name the '
            "one that is there before Keras is imported: KERAS_BACKEND=jax, "
            "in the environment or as `backend` in ~/.keras/keras.json"
        ) from error
