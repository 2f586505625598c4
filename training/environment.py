"""What a run computes on, for results and model card."""

import importlib.metadata
import os
import platform

import keras


def devices() -> str:
    """The accelerators that Keras' backend uses, or this machine's cores."""
    found = {"tensorflow": _of_tensorflow, "jax": _of_jax, "torch": _of_torch}
    names = found.get(keras.backend.backend(), list)()
    if names:
        return f"{len(names)} x {names[0]}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _of_tensorflow():
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [
        details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def _of_jax():
    import jax

    return [d.device_kind for d in jax.devices() if d.platform != "cpu"]


def _of_torch():
    import torch

    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(number) for number in range(count)]


def backend_version() -> str:
    """Version of Keras' backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        # Its package has one of several names.
        import tensorflow as tf

        return tf.__version__
    return importlib.metadata.version(backend)


def make_deterministic() -> None:
    """Makes the same seed give the same weights on the same devices.

    Raises:
        ValueError: If that has to be said before the program starts.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    elif backend == "jax":
        _check_flags_of_xla()


def _check_flags_of_xla():
    flag = "--xla_gpu_deterministic_ops=true"
    given = os.environ.get("XLA_FLAGS", "")
    if _of_jax() and flag not in given:
        raise ValueError(
            "With JAX, --deterministic needs a flag that XLA reads at its "
            f"start: set XLA_FLAGS={flag} as well. Received: "
            f"XLA_FLAGS={given!r}"
        )
