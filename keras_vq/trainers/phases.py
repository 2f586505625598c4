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
        self._steps = None
        self._warned = False

    def on_epoch_begin(self, epoch, logs=None):
        first = self._steps is None
        # Once an epoch, because it makes the program wait for the device; on
        # JAX, to ask for the model at every step would do so.
        self._steps = self._steps_taken()
        self._phase, self._phase_at = self.model.phase, self.model.phase_at
        self._steps_per_execution = self.model.steps_per_execution
        if first and self.params.get("steps"):
            rest = (self.params["epochs"] - epoch) * self.params["steps"]
            self._warn_of_start(self._steps + rest)

    def on_train_end(self, logs=None):
        # The steps of a generator or of filtered data are not known before,
        # and another callback may have stopped the training.
        if self._steps is not None and not self._warned:
            self._warn_of_start(self._steps_taken())

    def _steps_taken(self):
        return int(keras.ops.convert_to_numpy(self.model.steps))

    def _warn_of_start(self, end):
        """Warns if this `fit` ends before the discriminator counts."""
        start = self.model.adversarial.adversarial_start
        if end > start or not is_chief(self.model):
            return
        self._warned = True
        warnings.warn(
            f"This `fit` ends after step {end}, and the discriminator counts "
            f"only after step {start}. Unless `fit` is called again, lower "
            "`discriminator_start` of keras_vq.losses.AdversarialTraining, or "
            "train with `discriminator=None`.",
            stacklevel=2,
        )

    def on_train_batch_begin(self, batch, logs=None):
        phase = self._phase_at(self._steps)
        if phase is not self._phase:
            self._phase = phase
            enter_phase(self.model, self._steps)
        self._steps += self._steps_per_execution
