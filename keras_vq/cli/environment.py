"""Loading Keras and TensorFlow: fast kernels, no log on the terminal."""

import contextlib
import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

from keras_vq.backend_check import missing_backend_explained

DEBUG_VARIABLE = "KERAS_VQ_DEBUG"


def debugging() -> bool:
    """Tells whether tracebacks and library logs are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def prepare_tensorflow() -> None:
    """Sets what TensorFlow reads while it loads; a user's own values stay.

    It is asked for errors only, and for oneDNN. By itself it takes that where
    there is AVX-512; with AVX2 our networks train with it 1.4 to 1.9 times as
    fast.
    """
    if "tensorflow" in sys.modules:
        return
    if not debugging():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def quiet_import(name: str) -> ModuleType:
    """Imports a module and drops what its native code prints meanwhile.

    TensorFlow writes some lines ("All log messages before ...") before it
    reads its log level, straight to file descriptor 2. If the import fails,
    they are shown after all.
    """
    if name in sys.modules or debugging():
        return importlib.import_module(name)
    with _native_stderr_held():
        return importlib.import_module(name)


def load_package() -> None:
    """Imports Keras, its backend and this package, without their noise."""
    with missing_backend_explained():
        keras = quiet_import("keras")
        if keras.backend.backend() == "tensorflow":
            quiet_import("tensorflow")
    import keras_vq

    if not hasattr(keras_vq, "models"):
        # In the program `keras-vq` it has waited for Keras so far.
        importlib.reload(keras_vq)


@contextlib.contextmanager
def _native_stderr_held() -> Iterator[None]:
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # Standard error is closed: there is nothing to hold.
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
