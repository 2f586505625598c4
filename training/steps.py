"""How many steps a run takes: neither more nor fewer than it was asked for."""

from keras_vq.callbacks import ResumableCheckpoint


def steps_of_epoch(steps: int, wanted: int) -> int:
    """Steps between two validations of which `steps` are a whole number.

    Args:
        steps: Integer, steps of the run.
        wanted: Integer, steps between two validations, as the recipe has it.

    Returns:
        `steps` if they are fewer than `wanted`, otherwise the largest divisor
        of `steps` up to `wanted`.

    Raises:
        ValueError: If that is less than half of `wanted`: so many validations
            would take their time.
    """
    most = min(steps, wanted)
    fitting = max(n for n in range(1, most + 1) if steps % n == 0)
    if 2 * fitting < most:
        raise ValueError(
            "Expected steps that are a whole number of epochs of "
            f"steps_per_epoch={wanted}, or of at least half as many, such as "
            f"--steps {round(steps / wanted) * wanted}. Received: {steps} "
            "steps"
        )
    return fitting


class Stopped(Exception):
    """The run was asked to stop here, in the middle of an epoch."""


class StoppingCheckpoint(ResumableCheckpoint):
    """A `ResumableCheckpoint` after which a run may be over.

    The run that goes on from it is the one that would have been without the
    stop, so that the stop need not be the end of an epoch.

    Args:
        directory: See `ResumableCheckpoint`.
        save_every: See there.
        stop_after: Steps of the run after which it is saved and stopped; None:
            it goes on.
    """

    def __init__(self, directory, save_every, stop_after=None):
        super().__init__(directory, save_every)
        self.stop_after = stop_after

    def on_train_begin(self, logs=None):
        """Refuses to go on where this would not end at the last step.

        Raises:
            ValueError: If the epochs have another length than those of the
                checkpoint, or all steps and more are taken already.
            Stopped: If so many steps are taken already.
        """
        super().on_train_begin(logs)
        steps, epochs = self.params["steps"], self.params["epochs"]
        whole = self.batches - self.step
        if whole != self.epoch * steps:
            raise ValueError(
                f"{self.directory} was begun with steps_per_epoch="
                f"{whole // self.epoch}, and goes on with the same: give "
                f"--steps-per-epoch {whole // self.epoch}, and --steps that "
                f"are a multiple of it. Received: steps_per_epoch={steps}"
            )
        if self.batches > epochs * steps:
            raise ValueError(
                f"{self.directory} holds a run that has taken {self.batches} "
                "steps: give --steps that are at least as many. Received: "
                f"{epochs * steps} steps"
            )
        if self._is_time():
            raise Stopped

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        # At the end of an epoch its validation comes first.
        if self._is_time() and self.step != self.params["steps"]:
            self._save()
            raise Stopped

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self._is_time():
            self.model.stop_training = True

    def _is_time(self) -> bool:
        return self.stop_after is not None and self.batches >= self.stop_after
