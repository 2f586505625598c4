"""The devices of a run, by the name of a strategy."""

import contextlib
import json
import os

import keras

# By backend; torch trains nothing.
NAMES = {
    "tensorflow": ("one", "mirrored", "multiworker"),
    "jax": ("one", "data-parallel"),
}

EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host-a:12345", "host-b:12345"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


def make_strategy(name: str):
    """Strategy of a run; the first thing that a run does with its backend.

    Args:
        name: `"one"` device; on TensorFlow `"mirrored"` over all GPUs of this
            machine, or `"multiworker"`, one process a host, as TF_CONFIG
            says; on JAX `"data-parallel"` over all devices of this machine.

    Returns:
        An object with a `scope`: a `tf.distribute.Strategy`, or a
        `keras.distribution.DataParallel`, which is set for the rest of the
        program.

    Raises:
        ValueError: If the backend has no such strategy, or TF_CONFIG is
            missing or wrong.
    """
    backend = keras.backend.backend()
    names = NAMES.get(backend, ("one",))
    if name not in names:
        known = ", ".join(f"--strategy {other}" for other in names)
        raise ValueError(
            f"On the {backend} backend there are {known}. "
            f"Received: --strategy {name}"
        )
    if backend != "tensorflow":
        return _of_keras(name)
    if name == "multiworker":
        check_tf_config(os.environ.get("TF_CONFIG"))
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _of_keras(name):
    if name == "one":
        return _OneDevice()
    distribution = keras.distribution.DataParallel()
    # Batches are divided by what is set when they are read, not by what the
    # model was made under.
    keras.distribution.set_distribution(distribution)
    return distribution


class _OneDevice:
    """A strategy that does nothing."""

    def scope(self):
        return contextlib.nullcontext()


def check_tf_config(text: str | None) -> None:
    """Refuses a TF_CONFIG with which the workers would wait for ever.

    Args:
        text: Value of the environment variable, or None.

    Raises:
        ValueError: If it does not list the workers, and which of them this
            process is.
    """
    if not text:
        raise _error("it is not set", text)
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _error(f"it is no JSON ({error})", text) from error
    if not isinstance(config, dict):
        raise _error("it is no JSON object", text)
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _error('"cluster" and "task" must be objects', text)
    other = sorted(set(cluster) - {"chief", "worker"})
    if other:
        raise _error(
            f'only the jobs "chief" and "worker" take part, not {other}', text
        )
    tasks = [address for job in cluster.values() for address in _list(job)]
    bad = [address for address in tasks if not _is_address(address)]
    if bad or not tasks:
        raise _error(
            "each job must be a list of addresses, host:port"
            + (f"; this is none: {bad[0]!r}" if bad else ""),
            text,
        )
    if len(set(tasks)) < len(tasks):
        raise _error("two workers have the same address", text)
    index, kind = task.get("index"), task.get("type")
    count = len(_list(cluster.get(kind, [])))
    whole = isinstance(index, int) and not isinstance(index, bool)
    if not whole or not 0 <= index < count:
        raise _error(
            '"task" must name a job of the cluster ("type") and the place of '
            'this process in its list ("index", from 0)',
            text,
        )


def _list(value):
    return value if isinstance(value, list) else [value]


def _is_address(text) -> bool:
    if not isinstance(text, str):
        return False
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536


def _error(what, text):
    return ValueError(
        "--strategy multiworker reads the cluster from the environment "
        f"variable TF_CONFIG, but {what}. Expected, with the same list on "
        f"every host and an index of its own on each: {EXAMPLE}. Received: "
        f"TF_CONFIG={text!r}"
    )
