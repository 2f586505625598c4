"""Pictures of the model's reconstructions while it learns."""

import contextlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vq.callbacks.summaries import can_write_summaries, check_summaries
from keras_vq.trainers.workers import is_chief
from keras_vq.utils.images import (
    comparison_grid,
    first_images,
    to_uint8,
    write_png,
)


class ReconstructionGrid(keras.callbacks.Callback):
    """Writes originals above their reconstructions, one PNG an epoch.

    The files are called `epoch_0001.png`, `epoch_0002.png`, ... (the number of
    finished epochs, as in the file names of `keras.callbacks.ModelCheckpoint`)
    and each is either complete or not there. Where the package `tensorboard`
    and TensorFlow are installed, the same sheet also goes to TensorBoard as an
    image summary.

    A model that keeps an average of its weights (`compile(weight_ema=...)`)
    is shown with the averaged weights, the ones that its checkpoints are
    meant to be used with. With several workers all of them compute, since
    reading a variable may need every one, and the chief alone writes.

    Args:
        images: the images to show: an array or tensor of shape (batch,
            height, width, channels) with 1 or 3 channels, floating point in
            [-1, 1] or uint8; or a dataset (`tf.data` or any iterable) of such
            batches or of (images, anything) tuples, whose first batch is
            taken once, when the callback is made.
        directory: folder of the PNG files, created when needed.
        every: write after every that many epochs, and after the last one.
        max_images: at most that many images are shown.
        columns: pairs of original and reconstruction next to each other.
        scale: whole number by which pixels are repeated; None enlarges images
            below 64 pixels to about that size.
        tensorboard: True, False, or None for "if it is installed".
        log_dir: folder of the TensorBoard files; `directory` by default.

    Example:
    ```python
    grid = keras_vq.callbacks.ReconstructionGrid(images[:16], "grids", every=5)
    model.fit(dataset, epochs=100, callbacks=[grid])
    ```
    """

    def __init__(
        self,
        images: Any,
        directory: str | os.PathLike,
        every: int = 1,
        max_images: int = 16,
        columns: int = 8,
        scale: int | None = None,
        tensorboard: bool | None = None,
        log_dir: str | os.PathLike | None = None,
    ):
        super().__init__()
        if every < 1 or max_images < 1 or columns < 1:
            raise ValueError(
                "`every`, `max_images` and `columns` must be at least 1. "
                f"Received: every={every}, max_images={max_images}, "
                f"columns={columns}"
            )
        self.images = first_images(images, max_images)
        # What could not be drawn later is refused now.
        comparison_grid(self.images, self.images, columns, scale=scale)
        self.directory = Path(directory)
        self.every = every
        self.columns = columns
        self.scale = scale
        self.log_dir = Path(log_dir if log_dir is not None else directory)
        self._tensorboard = _use_tensorboard(tensorboard)
        self._writer = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        last = epoch + 1 == self.params.get("epochs")
        if last or (epoch + 1) % self.every == 0:
            self._write(epoch + 1)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def reconstruct(self) -> np.ndarray:
        """Returns the model's present reconstruction of the images.

        Returns:
            uint8 array of the same shape as `images`.
        """
        model = self.model
        averaged = getattr(model, "averaged_weights", contextlib.nullcontext)
        with averaged():
            reconstruction = model(self.images, training=False)
        return to_uint8(reconstruction)

    def _write(self, number: int) -> None:
        reconstruction = self.reconstruct()
        if not is_chief(self.model):
            return
        sheet = comparison_grid(
            self.images, reconstruction, self.columns, scale=self.scale
        )
        write_png(self.directory / f"epoch_{number:04d}.png", sheet)
        if self._tensorboard:
            self._write_summary(sheet, number)

    def _write_summary(self, sheet: np.ndarray, number: int) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        with self._writer.as_default():
            tf.summary.image("reconstruction", sheet[np.newaxis], step=number)
        self._writer.flush()


def _use_tensorboard(wanted: bool | None) -> bool:
    if wanted is None:
        # Another backend is not to share its device with TensorFlow unasked.
        on_tensorflow = keras.backend.backend() == "tensorflow"
        return on_tensorflow and can_write_summaries()
    if wanted:
        check_summaries("`tensorboard=True`")
    return wanted
