"""A progress bar over files, and what is said about those that failed."""

import sys
from collections.abc import Sized

from keras_vq.cli.errors import FAILURE


class Progress:
    """Keras' progress bar, on a terminal and unless told otherwise.

    Args:
        total: number of files.
        quiet: show nothing.
    """

    def __init__(self, total: int, quiet: bool = False):
        import keras

        self.done = 0
        self._bar = None
        if not quiet and sys.stdout.isatty():
            self._bar = keras.utils.Progbar(total, unit_name="image")

    def advance(self, count: int) -> None:
        """Counts files as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self.done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, error, trace) -> None:
        # An error begins on a line of its own.
        if self._bar is not None and error is not None and self.done:
            print(flush=True)


def count_of(things: Sized, noun: str) -> str:
    """Writes "1 image" or "2 images"."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def report_failures(failed: list[str], done: Sized) -> int:
    """Names the files that were skipped; returns the exit status."""
    for message in failed:
        print(f"keras-vq: skipped: {message}", file=sys.stderr)
    if not failed:
        return 0
    print(
        f"keras-vq: error: {count_of(failed, 'image')} could not be read, "
        f"{len(done)} could",
        file=sys.stderr,
    )
    return FAILURE
