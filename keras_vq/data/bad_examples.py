"""What becomes of the examples that cannot be read.

Whether an example is bad is a property of its file, and the good one that
takes its place is the next in the source's own order. So a batch is the same
whichever thread, worker or resumed run makes it, and nothing has to be saved
or agreed upon: whoever meets the example comes to the same end.
"""

import collections
import contextlib
import copy
import logging
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from keras_vq.data.errors import ImageError, TooManyBadImagesError

_NAMED = 5  # How many bad examples one message names.
_logger = logging.getLogger("keras_vq.data")
_known = weakref.WeakSet()
_failures = collections.deque(maxlen=64)


class Skipped(NamedTuple):
    """A bad example: what it is called, and why it was skipped."""

    name: str
    reason: str


class BadExamples:
    """The bad examples of one source that were met so far.

    Each is read once; after that its index is known. Used by several threads
    at once.

    Args:
        size: Number of examples in the source, all shards together.
        max_fraction: Which part of them may be bad, in [0, 1]. One may
            always be, unless this is 0; not all, whatever this is.
        name_of: Function from the index of an example to its name.
    """

    def __init__(
        self, size: int, max_fraction: float, name_of: Callable[[int], str]
    ):
        self._size = size
        self._fraction = max_fraction
        self._name_of = name_of
        allowed = math.floor(size * max_fraction + 1e-9)
        if max_fraction > 0:
            allowed = max(allowed, 1)
        self.allowed = min(allowed, size - 1)
        self._found = {}
        self._logged = 0
        self._lock = threading.Lock()
        _known.add(self)

    @property
    def skipped(self) -> list[Skipped]:
        """All that were met, in the order of the source."""
        with self._lock:
            return [self._found[index] for index in sorted(self._found)]

    def read(self, read: Callable[[int], Any], index: int, fill: bool):
        """Returns `read(index)`, or what stands for it if it is bad.

        Args:
            read: Function from an index to an example.
            index: The example that is wanted.
            fill: Whether the next good example stands for a bad one (the
                first follows the last); otherwise None does.

        Raises:
            TooManyBadImagesError: If too many are bad.
        """
        while True:
            if index not in self._found:
                try:
                    return read(index)
                except ImageError as error:
                    self._add(index, str(error))
            self._check()
            if not fill:
                return None
            # This ends, because not all are allowed to be bad.
            index = (index + 1) % self._size

    def _add(self, index, reason):
        with self._lock:
            if index in self._found:
                return
            self._found[index] = Skipped(self._name_of(index), reason)
            count = len(self._found)
        if count == 1:
            self._logged = 1
            _logger.warning(
                "A bad example is skipped: %s (%d of %d may be bad.)",
                reason,
                self.allowed,
                self._size,
            )
        elif count == 10 ** (len(str(count)) - 1):
            self.log_summary()

    def _check(self):
        count = len(self._found)
        if count > self.allowed:
            listed = "".join(f"\n- {s.reason}" for s in self.skipped[:_NAMED])
            raise TooManyBadImagesError(
                f"Expected at most {self.allowed} bad example(s) in "
                f"{self._size} (max_bad_fraction={self._fraction}). Received: "
                f"{count} so far. Repair them or take them out "
                "(`keras_vq.data.pipeline_of(dataset).skipped` lists all that "
                "were met), or raise `max_bad_fraction`. The first ones:"
                f"{listed}"
            )

    def log_summary(self):
        """Logs one line if more were skipped since the last one."""
        skipped = self.skipped
        if len(skipped) <= self._logged:
            return
        self._logged = len(skipped)
        names = ", ".join(s.name for s in skipped[:_NAMED])
        _logger.warning(
            "%d of %d examples are bad and were skipped so far (%d may be): "
            "%s%s. `keras_vq.data.pipeline_of(dataset).skipped` lists them "
            "with their reasons.",
            len(skipped),
            self._size,
            self.allowed,
            names,
            ", ..." if len(skipped) > _NAMED else "",
        )


@contextlib.contextmanager
def remembered_errors():
    """Context inside an engine in which errors are kept for `named_errors`."""
    try:
        yield
    except Exception as error:
        _failures.append((f"{type(error).__name__}: {error}", _copy(error)))
        raise


@contextlib.contextmanager
def named_errors():
    """Context in which errors of this package's pipelines keep their type.

    tf.data turns whatever a function raises into an `InvalidArgumentError`
    or `UnknownError` with two tracebacks in its text, and grain's traceback
    is of its insides. Inside this context the exception is raised that was
    behind it, such as an `ImageError` that names the file. It knows the
    pipelines of this package whatever was done to the dataset afterwards
    (`map`, a distribution strategy, ...). When it ends, one line is logged on
    the examples that were skipped in it.

    `fit`, `evaluate` and `predict` of this package's models are inside such a
    context already.

    Example:
    ```python
    with keras_vq.data.named_errors():
        for images in dataset:
            ...
    ```
    """
    try:
        yield
    except Exception as error:
        original = _original(error)
        if original is None:
            raise
        raise original from None
    finally:
        for bad in list(_known):
            bad.log_summary()


def _original(error):
    # grain raises it as it is; tf.data puts it into the text of another.
    text = f"{type(error).__name__}: {error}"
    for message, failure in reversed(_failures):
        if message in text:
            return _copy(failure)
    return None


def _copy(error):
    """Returns the exception without its traceback, which holds batches."""
    try:
        return copy.copy(error)
    except TypeError:  # Its constructor takes other arguments.
        return error.with_traceback(None)
