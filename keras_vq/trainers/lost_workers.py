"""A worker that dies ends the others, soon and with an error that names it."""

import atexit
import contextlib
import logging
import os
import re
import socket
import sys
import textwrap
import threading

# A dead process refuses connections at once. TensorFlow's own heartbeat needs
# about ten seconds to notice one, and until then the others wait.
_SECONDS_BETWEEN_LOOKS = 0.5
_LOOKS = 2

# How TensorFlow passes on what another worker has reported.
_REPORT = re.compile(r"Error reported from /job:(\w+)/task:(\d+): (.*)")
_UNAVAILABLE = 14

_watch = None
_ends_with_error = False


class WorkerLostError(RuntimeError):
    """Another worker of the training is gone.

    The training cannot go on without it: its share of the batch is missing.
    Start all workers again and resume from the last checkpoint.

    Args:
        message: String.
        addresses: List of the addresses ("host:port") that are gone, empty if
            they are not known.
    """

    def __init__(self, message: str, addresses=()):
        super().__init__(message)
        self.addresses = list(addresses)


def end_with_error() -> None:
    """Says that this program, which shows the error itself, ends with it."""
    global _ends_with_error
    _ends_with_error = True


def _end_soon():
    """Ends a process that nobody kept from ending with the error.

    TensorFlow would wait for the lost worker once more when it takes its
    objects down, about ten seconds. Registered as early as this, it runs after
    what others registered.
    """
    uncaught = isinstance(getattr(sys, "last_value", None), WorkerLostError)
    if uncaught or _ends_with_error:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(1)


atexit.register(_end_soon)


@contextlib.contextmanager
def lost_worker_named(strategy):
    """Turns what TensorFlow raises for a lost worker into `WorkerLostError`.

    While the block runs, the addresses of the other workers are watched: one
    that refuses connections is gone, and the block ends with the error within
    seconds. Does nothing with one process.

    Args:
        strategy: The `tf.distribute.Strategy` of the training.

    Raises:
        WorkerLostError: If another worker is gone.
    """
    global _watch
    peers = _peers(strategy)
    if not peers or _watch is not None:
        yield
        return
    import tensorflow as tf

    from keras_vq.data.errors import ImageError

    _watch = _Watch(peers)
    try:
        yield
    except tf.errors.OpError as error:
        reported = _REPORT.search(error.message)
        if reported:
            job, index, reason = reported.groups()
            name = f"{job} {index}"
            raise _error({name: peers.get(name)}, peers, reason) from error
        lost = _watch.lost or _refusing(peers)
        gone = (tf.errors.UnavailableError, tf.errors.AbortedError)
        if not lost and not isinstance(error, gone):
            raise
        lost = lost or _named_in(error.message, peers)
        raise _error(lost, peers) from error
    except (ImageError, OSError) as error:
        _report(error)
        raise
    finally:
        _watch.stop()
        _watch = None


def _report(error: Exception) -> None:
    """Tells the others, for which this worker is as good as gone.

    What is wrong with the files of one worker nobody else can see, and its
    process may live on, in a notebook for example, while they wait.
    """
    from tensorflow.python.eager import context

    text = f"{type(error).__name__}: {error}"
    text = textwrap.shorten(text, 2000, placeholder=" ...")
    # If another was faster, nothing can be said any more.
    with contextlib.suppress(Exception):
        context.context().report_error_to_cluster(_UNAVAILABLE, text)


def _error(lost: dict, peers: dict, reason=None) -> WorkerLostError:
    names = lost or peers
    listed = ", ".join(f"{task} at {names[task]}" for task in names)
    which = "" if lost else "one of "
    why = "the process is gone, or cannot be reached. Its own output says why."
    if reason is not None:
        why = f"it ended its training with {reason}"
    return WorkerLostError(
        f"Lost {which}{listed}: {why} The training cannot go on without it: "
        "start all workers again, and resume from the last checkpoint.",
        lost.values(),
    )


def _peers(strategy) -> dict:
    """Addresses of the other workers by name, such as "worker 1"."""
    from keras_vq.trainers import workers

    if not workers.is_multi_worker(strategy):
        return {}
    own, tasks = workers.tasks_of(strategy)
    return {task: a for task, a in tasks.items() if task != own}


def _named_in(message: str, peers: dict) -> dict:
    """The workers that TensorFlow names in an error."""
    found = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message)
    names = {f"{job} {index}" for job, index in found}
    return {task: a for task, a in peers.items() if task in names}


def _refusing(peers: dict) -> dict:
    return {task: a for task, a in peers.items() if _refuses(a)}


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        # Slow, or a network that is away for a moment: for the heartbeat.
        return False
    return False


class _Watch:
    """Thread that looks for workers that are gone."""

    def __init__(self, peers: dict):
        self.lost = {}
        self._peers = peers
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self):
        self._done.set()

    def _look(self):
        looks = dict.fromkeys(self._peers, 0)
        while not self._done.wait(_SECONDS_BETWEEN_LOOKS):
            refusing = _refusing(self._peers)
            looks = {t: (n + 1) * (t in refusing) for t, n in looks.items()}
            gone = [task for task, n in looks.items() if n >= _LOOKS]
            if gone and not self._done.is_set():
                self.lost = {task: self._peers[task] for task in gone}
                self._abort()
                return

    def _abort(self):
        """Ends the all-reduce that waits for the lost worker."""
        import tensorflow as tf
        from tensorflow.python.eager import context

        context.context().abort_collective_ops(
            tf.errors.UNAVAILABLE, f"lost {', '.join(self.lost)}"
        )
