"""Runs a script of this folder with float64 in the place of float32.

    JAX_ENABLE_X64=1 python tests/backends/in_float64.py recorded_runs.py ...

In float32 a training goes another way after some steps on any two sets of
kernels: rounding decides which of two nearly equal codes a latent takes. In
float64 it does not within 50 steps, and what is left between two backends is
what they compute differently.

This package computes losses, distances and statistics in float32 under every
policy, and Keras turns float64 into float32 on JAX; here both are rewritten.
"""

import importlib
import importlib.machinery
import pathlib
import runpy
import sys
from unittest import mock

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
_REWRITTEN = tuple(
    str(ROOT / "keras_vq" / part)
    for part in ("layers", "losses", "models", "trainers", "metrics")
)
_TRAINERS = str(ROOT / "keras_vq" / "trainers")


def rewrite_package():
    """Has the package's modules compiled with other words."""
    loader = importlib.machinery.SourceFileLoader
    compiled = loader.get_code

    def get_code(self, name):
        path = self.get_filename(name)
        if not path.startswith(_REWRITTEN):
            return compiled(self, name)
        source = self.get_data(path).replace(b'"float32"', b'"float64"')
        if path.startswith(_TRAINERS):
            # Elsewhere it names what a kernel of TensorFlow takes.
            source = source.replace(b"tf.float32", b"tf.float64")
        return self.source_to_code(source, path)

    loader.get_code = get_code


def rewrite_keras():
    """Has Keras keep float64, and read Python's numbers as float64."""
    import keras
    import keras.src.ops as ops
    from keras.src.backend.common import dtypes

    keras.config.set_floatx("float64")
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    for function in vars(dtypes).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()
    convert, cast = ops.convert_to_tensor, ops.cast

    def convert_to_tensor(x, dtype=None, **options):
        if isinstance(x, float):
            dtype = dtype or "float64"
        return convert(x, dtype, **options)

    def exact_cast(x, dtype):
        return convert(x, dtype) if isinstance(x, float) else cast(x, dtype)

    ops.convert_to_tensor, ops.cast = convert_to_tensor, exact_cast
    keras.ops.cast = exact_cast


def rewrite_functions():
    """Two that take float32 from elsewhere."""
    from keras_vq.layers import attention
    from keras_vq.losses import lpips

    # Keras' attention has a softmax in float32 on JAX.
    attention._attend_at_once = attention._average
    constant = lpips._constant
    lpips._constant = lambda array: constant(np.float64(array))


if __name__ == "__main__":
    rewrite_package()
    rewrite_keras()
    rewrite_functions()
    script = pathlib.Path(__file__).with_name(sys.argv[1])
    sys.path.insert(0, str(script.parent))
    with mock.patch.object(sys, "argv", sys.argv[1:]):
        runpy.run_path(str(script), run_name="__main__")
