"""Which networks a training step concerns, as training goes on.

A step of each phase is a function of its own, compiled when the phase is
entered: before its start the discriminator costs nothing.
"""

import enum
import warnings

import keras

from keras_vq.trainers.workers import is_chief


class Phase(enum.Enum):
    """Which networks a training step concerns."""

    AUTOENCODER = "autoencoder"
    DISCRIMINATOR = "discriminator"
    BOTH = "both"


def enter_phase(model, steps: int) -> None:
    """Makes the next training step one of the phase that it belongs to.

    Args:
        model: A compiled model with `phase` and `phase_at`.
        steps: Integer, steps taken so far.
    """
    phase = model.phase_at(steps)
    if phase is not model.phase:
        model.phase = phase
        if model.train_function is not None:
            model.make_train_function(force=True)


class PhaseSwitch(keras.callbacks.Callback):
    """Enters each phase at its step. `fit` adds it by itself.

    With `steps_per_execution` a phase begins with the first execution that
    lies in it wholly.
    """

    def on_train_begin(self, logs=None):
        self._warned = False

    def on_epoch_begin(self, epoch, logs=None):
        # Once an epoch, because it makes the program wait for the device.
        self._steps = int(keras.ops.convert_to_numpy(self.model.steps))
        if not self._warned and is_chief(self.model):
            self._warn_of_start(epoch)
        self._warned = True

    def _warn_of_start(self, epoch):
        """Warns if this `fit` ends before the discriminator counts."""
        if not self.params.get("steps"):
            return
        rest = (self.params["epochs"] - epoch) * self.params["steps"]
        start = self.model.adversarial.adversarial_start
        if self._steps + rest <= start:
            warnings.warn(
                f"This `fit` ends after step {self._steps + rest}, and the "
                f"discriminator counts only after step {start}. Unless `fit` "
                "is called again, lower `discriminator_start` of "
                "keras_vq.losses.AdversarialTraining, or train with "
                "`discriminator=None`.",
                stacklevel=2,
            )

    def on_train_batch_begin(self, batch, logs=None):
        enter_phase(self.model, self._steps)
        self._steps += self.model.steps_per_execution
