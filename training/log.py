"""log.csv: one line an epoch, also of a run that was interrupted."""

import csv
import pathlib
import time

import keras

from keras_vq.utils.files import atomic_path


class EpochLog(keras.callbacks.CSVLogger):
    """Writes the logs of every epoch and the seconds that its steps took.

    Args:
        path: The file.
        checkpoint: The `ResumableCheckpoint` of the run. Lines of epochs that
            it takes once more are removed.
    """

    def __init__(self, path: pathlib.Path, checkpoint):
        super().__init__(str(path), append=True)
        self.path = path
        self.checkpoint = checkpoint
        self._seconds = 0.0

    def on_train_begin(self, logs=None):
        _keep_epochs_before(self.path, self.checkpoint.epoch)
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._seconds = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._seconds += time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        logs = {**(logs or {}), "seconds": round(self._seconds, 2)}
        super().on_epoch_end(epoch, logs)


def training_seconds(path: pathlib.Path) -> float:
    """Seconds of all steps in a log; of an interrupted epoch the last part."""
    return sum(float(row["seconds"]) for row in _rows(path))


def _keep_epochs_before(path, epoch):
    if not path.exists():
        return
    rows = [row for row in _rows(path) if int(row["epoch"]) < epoch]
    if not rows:
        path.unlink()
        return
    with atomic_path(path) as temporary:
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _rows(path):
    with open(path, newline="") as file:
        # A line that was cut off in the middle does not count.
        return [row for row in csv.DictReader(file) if None not in row.values()]
