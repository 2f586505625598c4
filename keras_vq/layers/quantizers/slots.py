"""Which part of the batch a call of a quantizer sees.

A batch may reach a quantizer in several calls: one for each micro-batch of
each replica. Most statistics are sums and need not know. The candidates for
reviving dead codes are rows of one table for the whole batch, and each call
fills in the rows that fall into its own part: it must know which that is.
"""

import contextlib
import threading

_local = threading.local()


@contextlib.contextmanager
def statistics_slot(index, count: int):
    """Declares that calls inside see part `index` of `count` equal parts.

    Args:
        index: Integer or scalar tensor in `[0, count)`.
        count: Integer, number of parts of the whole batch.
    """
    previous = current_slot()
    _local.slot = (index, count)
    try:
        yield
    finally:
        _local.slot = previous


def current_slot():
    """`(index, count)` of the innermost `statistics_slot`, `(0, 1)` outside."""
    return getattr(_local, "slot", (0, 1))
