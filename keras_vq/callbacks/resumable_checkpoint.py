"""A callback after which an interrupted training goes on as if it had not."""

import io
import os
import pathlib

import keras
import numpy as np

from keras_vq.trainers import state, workers
from keras_vq.trainers.signals import DelayedSignals
from keras_vq.utils import snapshots


class ResumableCheckpoint(keras.callbacks.Callback):
    """Saves all that the next step needs, and goes on from there.

    Run the same program again after it was killed: it takes the newest
    checkpoint, and ends with the same weights, bit for bit, as if nothing
    had happened. A checkpoint holds weights, codebook and its statistics,
    optimizer, averaged weights, counters, metrics and random states. It is
    written beside the others and renamed when it is whole, so that a process
    killed in the middle leaves the earlier ones as they were. When it is
    read, hashes are compared; a damaged one is named in a warning, and the
    one before it is taken.

    With the endless data sets of `keras_vq.data` (`repeat=True`), training
    goes on with the very next batch. Its finite ones begin the epoch anew that
    was interrupted, in the same order; any other data set does so in whatever
    order it has. What was taken twice is said in a warning.

    On SIGTERM and SIGINT (Ctrl-C) the step in progress is finished and saved;
    then the process ends with exit code 143, or `KeyboardInterrupt` is raised
    (exit code 130). A second signal ends it at once. After the last step of
    an epoch, its validation is finished first.

    With several workers only the first one writes; at the start the others
    get everything from it. They leave signals to it, and end when it ends.

    Callbacks with a memory of their own, such as `EarlyStopping`, start anew.
    For the models of this package only: their `fit` does its part.

    Args:
        directory: Directory of the checkpoints of one run.
        save_every: Integer, steps between two checkpoints. There is one at
            the end of every epoch as well.
        keep: Integer, at least 1: so many checkpoints are kept.

    Example:
    ```python
    checkpoint = keras_vq.callbacks.ResumableCheckpoint("runs/1/checkpoints")
    model.fit(
        checkpoint.resume(dataset),
        steps_per_epoch=1000,
        epochs=24,
        callbacks=[checkpoint],
    )
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        save_every: int = 1000,
        keep: int = 2,
    ):
        super().__init__()
        for name, value in (("save_every", save_every), ("keep", keep)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: "
                    f"{name}={value!r}"
                )
        self.directory = pathlib.Path(directory)
        self.save_every = save_every
        self.keep = keep
        self.signals = DelayedSignals()
        self._resumes = False
        self._reset()

    def _reset(self):
        # Where the training stands: `step` counts in the epoch, `batches`
        # since the start of the run.
        self.epoch = self.step = self.batches = 0
        self._metrics = None
        self._restored = False

    def resume(self, dataset):
        """Asks `fit` to go on from the newest checkpoint, if there is one.

        Args:
            dataset: The data set for `fit`, made as at the first start.

        Returns:
            The data set. `fit` moves it on to the next batch.
        """
        self._resumes = True
        return dataset

    def restore(self, model: keras.Model) -> None:
        """Puts the model into the state of the newest checkpoint, if any.

        `fit` calls this before everything else.

        Args:
            model: The compiled model.

        Raises:
            ValueError: If there are checkpoints but `resume` was not called,
                or they are of another model.
            OSError: If there are checkpoints and none is sound.
        """
        self._reset()
        self._restored = True
        if getattr(model.optimizer, "use_ema", False):
            raise ValueError(
                "An optimizer with `use_ema=True` replaces the weights at the "
                "end of `fit`, which a resumed run could not repeat. Use "
                "`compile(weight_ema=...)` instead."
            )
        state.start_generators()
        arrays, info = self._newest(model)
        if info is None:
            return
        state.write_state(model, arrays, info["generators"])
        for name in ("epoch", "step", "batches"):
            setattr(self, name, info[name])
        if self.step:
            self._metrics = arrays
        print(
            f"Resuming at epoch {self.epoch + 1} after {self.step} of its "
            f"steps, {self.batches} in all.",
            flush=True,
        )

    def begin_epoch_anew(self) -> None:
        """Forgets how far the epoch has come; `fit` calls it if it must."""
        self.step, self._metrics = 0, None

    def _newest(self, model):
        found, arrays, info = None, {}, None
        if workers.is_chief(model):
            if self._resumes:
                found = snapshots.newest_snapshot(self.directory)
            elif snapshots.find_snapshots(self.directory):
                raise ValueError(
                    f"{self.directory} holds the checkpoints of an earlier "
                    "run. Go on from them with `fit(checkpoint.resume("
                    "dataset), ...)`, or give an empty directory."
                )
        if found is not None:
            _, arrays, info = found
        if workers.is_multi_worker(workers.strategy_of(model)):
            return _from_chief(model, arrays, info)
        return arrays, info

    def on_train_begin(self, logs=None):
        if not self._restored:
            raise ValueError(
                "`ResumableCheckpoint` works with the models of keras_vq, "
                "whose `fit` restores it. Received: a "
                f"{type(self.model).__name__}. Use `keras.callbacks."
                "BackupAndRestore` for other models."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if self._metrics is not None:
            # `fit` has just reset them.
            state.write_metrics(self.model, self._metrics)
            self._metrics = None

    def on_train_batch_end(self, batch, logs=None):
        steps = batch + 1 - self.step
        due = (self.batches + steps) // self.save_every
        due -= self.batches // self.save_every
        self.step, self.batches = batch + 1, self.batches + steps
        if self.step == self.params.get("steps"):
            return  # the end of the epoch saves
        if due or self.signals.received:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch, self.step = epoch + 1, 0
        self._save()

    def _save(self):
        if workers.is_chief(self.model):
            path = self.directory / snapshots.snapshot_name(
                self.epoch, self.step
            )
            arrays, generators = state.read_state(self.model)
            counters = {
                "epoch": self.epoch,
                "step": self.step,
                "batches": self.batches,
            }
            snapshots.write_snapshot(
                path, arrays, {**counters, "generators": generators}, counters
            )
            snapshots.remove_old_snapshots(self.directory, self.keep)
            self.signals.act(f"Saved {path}")


def _from_chief(model, arrays, info):
    """What the chief read, on all workers."""
    packed = b""
    if info is not None:
        buffer = io.BytesIO()
        snapshots.write_arrays(buffer, arrays, info)
        packed = buffer.getvalue()
    (size,) = workers.broadcast([np.int64(len(packed))], model)
    if not size:
        return {}, None
    mine = np.frombuffer(packed.ljust(int(size), b"\0"), np.uint8)
    (received,) = workers.broadcast([mine], model)
    return snapshots.read_arrays(io.BytesIO(received.tobytes()))
