"""Variables that count the training of a model."""

import keras


class CountingMixin:
    """Steps, skipped steps with their causes, and the metrics of the losses."""

    def _create_training_state(self, loss_names):
        # Every batch counts once here, whatever number of optimizers or
        # micro-batches it passes through.
        self.steps = self._add_counter("steps")
        self.skipped_steps = self._add_counter("skipped_steps")
        # What `keras_vq.trainers` records of skipped steps: the latest that
        # follow each other, how often each term was the cause, and number and
        # terms (a bit each) of the latest, newest last.
        self.skipped_in_a_row = self._add_counter("skipped_in_a_row")
        # As long for every model, so that weights go from one to another.
        self.skipped_by_term = self._add_counter("skipped_by_term", (31,))
        self.skipped_log = self._add_counter("skipped_log", (16, 2))
        self._trackers = self._create_trackers()
        self._loss_names = tuple(loss_names)
        self._trackers |= {n: keras.metrics.Mean(n) for n in loss_names}

    @property
    def training_state(self) -> list:
        """Variables that count the training: no part of a preset."""
        return [
            self.steps,
            self.skipped_steps,
            self.skipped_in_a_row,
            self.skipped_by_term,
            self.skipped_log,
        ]

    def _add_counter(self, name, shape=()):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype="int32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
