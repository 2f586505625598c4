"""Says which training steps were skipped and why, and when to give up."""

import warnings

import keras
import numpy as np

from keras_vq.trainers.workers import is_chief

# Steps between two looks at the counters: each makes the program wait for the
# device.
_LOOK_EVERY = 10
# Skipped steps that get a warning of their own; then one an epoch.
_SINGLE_WARNINGS = 3


class NonFiniteTrainingError(RuntimeError):
    """Training has stopped because step after step was not finite.

    The weights in the model are those of the last good step.
    """


class NonFiniteSteps(keras.callbacks.Callback):
    """Warns of skipped steps, and stops a training that only skips.

    A step in which anything is NaN or infinite (the images, a loss, a gradient
    or a statistic) leaves weights, optimizer, codebook, averages and metrics
    as they were. This callback says which steps that were and what was not
    finite: a warning for each of the first three, then one at the end of each
    epoch. When `max_in_a_row` steps in a row have been skipped it ends the
    training with an error. `fit` adds it by itself, unless one is given.

    With `mixed_float16` steps are also skipped while the optimizer looks for
    its loss scale: the losses are finite, and the scaled gradients too large
    for float16. That is normal and halves the scale; such steps are counted
    under `"loss_scale"`, without a warning, and not as steps in a row. At a
    scale of 1 there is nothing to be gained any more, and they count like all
    others.

    The counters are looked at every 10 steps (or `max_in_a_row`, if that is
    less), so that a GPU need not wait at each step: a training ends up to 9
    steps later than it could.

    Args:
        max_in_a_row: Integer, so many skipped steps in a row end the training
            with a `NonFiniteTrainingError`. None: go on for ever.

    Attributes:
        skipped: Dict of the number of skipped steps in this `fit`, by what was
            not finite. A step can count under several names.

    Raises:
        NonFiniteTrainingError: In `fit`, after `max_in_a_row` skipped steps.

    Example:
    ```python
    watch = keras_vq.callbacks.NonFiniteSteps(max_in_a_row=100)
    model.fit(dataset, callbacks=[watch])
    print(watch.skipped)
    ```
    """

    def __init__(self, max_in_a_row: int | None = 10):
        super().__init__()
        if max_in_a_row is not None and max_in_a_row < 1:
            raise ValueError(
                "`max_in_a_row` must be a positive integer, or None to go on "
                f"whatever happens. Received: max_in_a_row={max_in_a_row}"
            )
        self.max_in_a_row = max_in_a_row
        self.skipped = {}
        self._look_every = min(_LOOK_EVERY, max_in_a_row or _LOOK_EVERY)
        self._start = None

    def on_train_begin(self, logs=None):
        if not hasattr(self.model, "skipped_log"):
            raise ValueError(
                "NonFiniteSteps reads what the training step of keras_vq "
                "models records. Received: a model of class "
                f"{type(self.model).__name__}; use "
                "keras.callbacks.TerminateOnNaN with it."
            )
        self.skipped, self._start, self._calls = {}, None, 0
        self._warned, self._silent = 0, 0
        self._epoch_start = None

    # Before a step and not after it: a callback that acts after each step
    # makes Keras wait for the losses of each.
    def on_train_batch_begin(self, batch, logs=None):
        if self._start is None:
            # Not earlier: a checkpoint may have set the counters by now.
            self._start = self._before_epoch = self._read()
            self._seen = self._start
        elif self._calls % self._look_every == 0:
            self._look()
        self._calls += 1

    def on_epoch_end(self, epoch, logs=None):
        if self._start is None:
            return
        self._look()
        if self._silent:
            steps = self._seen["steps"] - self._before_epoch["steps"]
            terms = _differences(self.model, self._seen, self._before_epoch)
            self._warn(
                f"{self._silent} more of the {steps} steps of epoch "
                f"{epoch + 1} were skipped. Not finite in the epoch: "
                + ", ".join(f"{name} ({n} times)" for name, n in terms.items())
                + "."
            )
        self._silent, self._before_epoch = 0, self._seen

    def _look(self):
        if _value(self.model.skipped_steps) == self._seen["skipped_steps"]:
            self._seen["steps"] = int(_value(self.model.steps))
            return
        before, self._seen = self._seen, self._read()
        self.skipped = _differences(self.model, self._seen, self._start)
        scale = self.model.gate_terms.index("loss_scale")
        new = int(self._seen["skipped_steps"] - before["skipped_steps"])
        rows = self._seen["skipped_log"][-new:]
        overflows = (self._seen["skipped_by_term"] - before["skipped_by_term"])[
            scale
        ]
        rows = [(int(s), int(b)) for s, b in rows if not int(b) >> scale & 1]
        single = rows[: max(_SINGLE_WARNINGS - self._warned, 0)]
        for step, bits in single:
            self._warn(
                f"Step {step} was skipped: {self._names(bits)} not finite. "
                "Weights, optimizer and codebook are as before it."
            )
        self._warned += len(single)
        self._silent += new - int(overflows) - len(single)
        self._stop_if_stuck()

    def _stop_if_stuck(self):
        seen = self._seen
        last, bits = (int(n) for n in seen["skipped_log"][-1])
        # Those before this `fit` do not count, nor those of the loss scale.
        since = seen["skipped_steps"] - self._start["skipped_steps"]
        since -= self.skipped.get("loss_scale", 0)
        row = min(seen["skipped_in_a_row"], since)
        limit = self.max_in_a_row
        if limit is None or row < limit or last != seen["steps"]:
            return
        raise NonFiniteTrainingError(
            f"The last {row} steps up to step {last} were skipped: "
            f"{self._names(bits)} not finite. The weights in the model are "
            "those of the last good step, and can be saved. "
            + self._advice(bits)
            + " Received: max_in_a_row="
            f"{limit} (see keras_vq.callbacks.NonFiniteSteps)"
        )

    def _advice(self, bits):
        names = self._terms(bits)
        if "images" in names:
            return (
                "The images themselves hold NaN or infinite values: look at "
                "the data and at what augments it."
            )
        if names == ["learning_rate"]:
            return "Look at the schedule of the learning rate."
        advice = [
            "images in [-1, 1] (`model.preprocess` or keras_vq.data)",
            "a lower learning rate, or a warm-up",
            "`compile(clipnorm=1.0)`",
        ]
        optimizers = [o for o, _ in self.model.optimizer_groups.values()]
        if isinstance(optimizers[0], keras.optimizers.LossScaleOptimizer):
            advice.insert(
                0,
                '"mixed_bfloat16" in place of "mixed_float16", which ends '
                "at 65504",
            )
        return "What helps, in this order: " + "; ".join(advice) + "."

    def _terms(self, bits) -> list:
        terms = enumerate(self.model.gate_terms)
        names = [name for i, name in terms if bits >> i & 1]
        if len([name for name in names if name.endswith("loss")]) > 1:
            # The sum adds nothing to what names its terms.
            names.remove("loss")
        return names

    def _names(self, bits) -> str:
        names = self._terms(bits)
        return ", ".join(names) + (" was" if len(names) == 1 else " were")

    def _read(self) -> dict:
        names = ("steps", "skipped_steps", "skipped_in_a_row")
        state = {n: int(_value(getattr(self.model, n))) for n in names}
        for name in ("skipped_by_term", "skipped_log"):
            state[name] = _value(getattr(self.model, name))
        return state

    def _warn(self, message):
        if is_chief(self.model):
            warnings.warn(message, stacklevel=2)


def _value(variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))


def _differences(model, now, before) -> dict:
    counts = now["skipped_by_term"] - before["skipped_by_term"]
    pairs = zip(model.gate_terms, counts[: len(model.gate_terms)], strict=True)
    return {name: int(count) for name, count in pairs if count}


def watched(callbacks):
    """The callbacks that `fit` is given, with a `NonFiniteSteps` among them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    if any(isinstance(c, NonFiniteSteps) for c in callbacks):
        return callbacks
    return [*callbacks, NonFiniteSteps()]
