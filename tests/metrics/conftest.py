"""Two replicas on one machine, and a dtype policy that is put back."""

import contextlib

import keras
import pytest
import tensorflow as tf


def _two_logical_cpus() -> None:
    """Asks for two logical CPUs, unless TensorFlow runs or has them."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * 2
            )


# At import, because the first operation of any test module fixes the devices.
_two_logical_cpus()


@pytest.fixture(scope="session")
def two_replicas():
    """A MirroredStrategy over two logical CPUs."""
    devices = [d.name for d in tf.config.list_logical_devices("CPU")][:2]
    if len(devices) < 2:
        pytest.skip("TensorFlow was initialised with one logical CPU")
    return tf.distribute.MirroredStrategy(devices)


@pytest.fixture
def dtype_policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
