"""Pipelines come to rest before Python ends.

tf.data calls Python in threads of its own. A call that wants to begin or to
go on once Python has started to end never returns, and whoever destroys the
iterator then waits for it for ever. So it went with iterators that were kept
by the traceback of the error that ended the program, such as that of too many
bad images: the error was shown, and the process stayed.
"""

import atexit
import functools
import sys
import threading
import time

# Calls follow each other at once until the buffers are full.
_REST = 0.1
# For a batch that is still being read from a slow disk.
_LONGEST_WAIT = 30.0

_lock = threading.Lock()
_running = 0
_last = -_REST
_registered = False


def comes_to_rest(method):
    """Decorator of what tf.data calls: Python waits for it before it ends."""

    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        _count(1)
        try:
            return method(*args, **kwargs)
        finally:
            _count(-1)

    return wrapper


def _count(change):
    global _running, _last, _registered
    with _lock:
        _running += change
        _last = time.monotonic()
        if not _registered:
            # Late, so that it runs before what TensorFlow has registered.
            _registered = True
            atexit.register(_rest)


def _rest():
    """Lets go of iterators in a traceback, and waits for the calls."""
    _forget_frames(getattr(sys, "last_value", None))
    sys.last_traceback = None
    end = time.monotonic() + _LONGEST_WAIT
    while time.monotonic() < end:
        with _lock:
            if not _running and time.monotonic() - _last >= _REST:
                return
        time.sleep(_REST / 5)


def _forget_frames(error):
    # It was shown already; other functions may still ask for its type.
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
