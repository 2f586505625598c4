"""The `tf.distribute` strategy of a run, by name."""

import json
import os

NAMES = ("one", "mirrored", "multiworker")

EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host-a:12345", "host-b:12345"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


def make_strategy(name: str):
    """Strategy of a run; the first thing that a run does with TensorFlow.

    Args:
        name: `"one"` device, `"mirrored"` over all GPUs of this machine, or
            `"multiworker"`, one process a host, as TF_CONFIG says.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: If TF_CONFIG is missing or wrong.
    """
    if name == "multiworker":
        check_tf_config(os.environ.get("TF_CONFIG"))
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


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
