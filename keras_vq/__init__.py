"""Vector-quantized image models for Keras 3."""

import sys as _sys
from pathlib import Path as _Path

from keras_vq.backend_check import missing_backend_explained as _explained
from keras_vq.version import __version__ as __version__


def _waits_for_keras() -> bool:
    """Whether this process is the program `keras-vq` and has just begun.

    It answers `--help` without the seconds that Keras takes to load, and sets
    what TensorFlow reads first; then it loads this package once more.
    """
    program = _Path(_sys.argv[0]).stem if _sys.argv else ""
    modules = {"keras_vq.cli", "keras_vq.training.train"}
    as_module = program == "-m" and not modules.isdisjoint(_sys.orig_argv)
    return "keras" not in _sys.modules and (program == "keras-vq" or as_module)


if not _waits_for_keras():
    with _explained():
        import keras as _keras  # noqa: F401

    from keras_vq import callbacks as callbacks
    from keras_vq import data as data
    from keras_vq import layers as layers
    from keras_vq import losses as losses
    from keras_vq import metrics as metrics
    from keras_vq import models as models
    from keras_vq import presets as presets
    from keras_vq import utils as utils
    from keras_vq.presets import list_presets as list_presets
