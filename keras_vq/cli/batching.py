"""Batches of things of one size out of a stream of many sizes."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

# How many things may wait for others of their size, in batches.
_WAITING_BATCHES = 4


def batches_by_size(
    things: Iterable[tuple[Hashable, Any]], batch_size: int
) -> Iterator[list]:
    """Groups things of the same size into batches.

    Images of different sizes cannot be computed together, so each waits for
    others of its size, but never so many that memory grows with the stream:
    when a few batches are waiting, the oldest group goes as it is. Batches
    therefore come out of order.

    The same stream always gives the same batches. `reconstruct`, `encode` and
    `decode` all use this, because the last bits of a convolution may depend
    on the size of the batch, and their results are to be equal.

    Args:
        things: pairs of size and thing.
        batch_size: things in a batch, at most.

    Yields:
        Lists of things of one size, each thing once.
    """
    waiting: dict[Hashable, list] = {}
    total = 0
    for size, thing in things:
        group = waiting.setdefault(size, [])
        group.append(thing)
        total += 1
        if len(group) < batch_size:
            if total < _WAITING_BATCHES * batch_size:
                continue
            size, group = next(iter(waiting.items()))
        del waiting[size]
        total -= len(group)
        yield group
    yield from waiting.values()
