"""What all tests share: devices, seed, data, replicas, printed figures.

The backend is that of KERAS_BACKEND. On JAX (`make test-jax`) there need be no
TensorFlow.
"""

import atexit
import gc
import json
import os
import pathlib
import shutil
import tempfile

# Before TensorFlow is imported, or its native code talks over the tests.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The program and the benchmarks turn it on: bits are compared with theirs.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# And this before JAX is: CPUs to train on as if they were several devices.
# Their code is made thrice as fast without LLVM's optimizations, and the tests
# mostly wait for that: most functions run a few times, on tiny images.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=0",
)

import keras
import pytest


def _compile_once():
    """What several tests compile, JAX compiles for the first, in any process.

    Most of its time would go into that.
    """
    if keras.backend.backend() != "jax":
        return
    import jax

    name = "JAX_COMPILATION_CACHE_DIR"
    if name not in os.environ:
        os.environ[name] = tempfile.mkdtemp(prefix="keras-vq-tests-")
        atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", os.environ[name])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


_compile_once()

# At import, because the first operation of any test module fixes the devices.
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 4,
    )


# Files that take longest, measured. They come first, so that no process
# begins with one of them when the others are about to end.
_LONGEST = (
    # Of `make soak`.
    "soak/test_kills_of_vqgan.py",
    "soak/test_kills.py",
    "soak/test_killed_workers_resumed.py",
    "soak/test_workers_equal_one_device.py",
    "soak/test_non_finite.py",
    # Of `make test`.
    "trainers/test_distributed_steps.py",
    "conformance/test_model_training.py",
    "conformance/test_model_replicas.py",
    "models/test_vqgan_phases.py",
    "test_docs.py",
    "training/test_fine_tuning.py",
    "trainers/test_workers.py",
    "training/test_launcher.py",
    "callbacks/test_resumable_checkpoint.py",
    "test_readme.py",
    "callbacks/test_resumed_workers.py",
    "trainers/test_determinism.py",
)
_TESTS = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    """Orders the files; within a file the order stays."""
    ranks = {_TESTS / name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same seed, whichever ran before it."""
    keras.utils.set_random_seed(0)
    return 0


@pytest.fixture(scope="module", autouse=True)
def what_stays_is_passed_over():
    """TensorFlow keeps part of every graph, gigabytes in the end.

    Python's garbage collector would go through all of it again and again, for
    seconds each time.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real data sets and published weights."""
    directory = os.environ.get("KERAS_VQ_DATA")
    if not directory:
        pytest.skip("needs real data: set KERAS_VQ_DATA to its folder")
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        pytest.skip(f"KERAS_VQ_DATA is no folder: {directory}")
    return directory


@pytest.fixture(scope="session")
def on_tensorflow():
    """Skips a test of what only TensorFlow has."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's own: tf.distribute, SavedModel, tf.data")


@pytest.fixture(scope="session")
def two_replicas(on_tensorflow):
    """A MirroredStrategy over two logical CPUs.

    One for all tests: the collective operations of several such objects in one
    process use the same keys and wait for each other.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def two_devices(request):
    """Two logical CPUs, as the backend trains on them."""
    if keras.backend.backend() == "tensorflow":
        return request.getfixturevalue("two_replicas")
    if keras.backend.backend() != "jax":
        pytest.skip("needs a backend that trains on several devices")
    devices = keras.distribution.list_devices("cpu")[:2]
    return keras.distribution.DataParallel(devices=devices)


@pytest.fixture
def mirrored_is_two_replicas(monkeypatch, two_replicas):
    """`MirroredStrategy()`, all devices, gives the one object of all tests."""
    kind = tf.distribute.MirroredStrategy

    class Kind(type):
        def __call__(cls):
            return two_replicas

        def __instancecheck__(cls, strategy):
            return isinstance(strategy, kind)

    same = Kind("MirroredStrategy", (), {})
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", same)


@pytest.fixture(scope="session")
def four_replicas(on_tensorflow):
    """A MirroredStrategy over four logical CPUs without collectives.

    It reduces on one device, in cross-replica context: the other of the two
    ways in which a strategy can work.
    """
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(4)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@pytest.fixture
def dtype_policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


# Of the long tests


_FIGURE = "figure: "


@pytest.fixture
def figure(record_property):
    """Function that records a figure, which is printed at the end.

    As a property of the test, it also comes out of a process of its own.
    """

    def record(name, text):
        record_property(_FIGURE + name, str(text))
        print(f"{name}: {text}", flush=True)

    return record


def pytest_terminal_summary(terminalreporter):
    figures = {
        name.removeprefix(_FIGURE): text
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name.startswith(_FIGURE)
    }
    if not figures:
        return
    terminalreporter.section("figures")
    for name, text in figures.items():
        terminalreporter.write_line(f"{name}: {text}")
    # To keep them after a run in the background.
    path = os.environ.get("KERAS_VQ_FIGURES")
    if path:
        path = pathlib.Path(path)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **figures}, indent=1) + "\n")
