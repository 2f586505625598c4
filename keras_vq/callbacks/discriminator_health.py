"""Watches that generator and discriminator keep each other going."""

import math
import warnings

import keras

from keras_vq.losses.adversarial import get_adversarial_loss
from keras_vq.trainers.workers import is_chief

_ADVICE = {
    "won": (
        "It tells every reconstruction, and the generator learns nothing from "
        "it. What helps, in this order: a lower learning rate of "
        "`discriminator_optimizer`; a later `discriminator_start`; "
        "`r1_weight` or `lecam_weight` of AdversarialTraining; a smaller "
        "`PatchGAN(filters=..., num_layers=...)`."
    ),
    "lost": (
        "It tells nothing, and its gradient is noise. What helps, in this "
        "order: a higher learning rate of `discriminator_optimizer`; "
        "`pretraining_steps` of AdversarialTraining; "
        "`PatchGAN(use_spectral_normalization=False)` and smaller "
        "`r1_weight`; images and reconstructions in the same range."
    ),
    "clamped": (
        "The discriminator's gradient at the last layer has vanished, and the "
        "weight amplifies its noise. What helps, in this order: a lower "
        "`max_adaptive_weight`, such as 10; `warmup_steps` or "
        "`pretraining_steps`; `adaptive_weight=False` with a small `weight`."
    ),
    "rising": (
        "Reconstructions drift away from their images. What helps, in this "
        "order: a lower `weight` of AdversarialTraining; `warmup_steps`; "
        "lower learning rates of both optimizers; `compile(clipnorm=1.0)`; "
        "going back to the last checkpoint before the rise."
    ),
}


class DiscriminatorHealth(keras.callbacks.Callback):
    """Warns when adversarial training collapses, with what to change.

    It looks at the epoch's means, in the epochs in which the discriminator
    counted from the first step on, and warns once of each of these:

    - the discriminator has won: its accuracy is above `max_accuracy`;
    - it has lost: its loss without regularizers is stuck within 3 % of that of
      logits of 0, or its accuracy is that of guessing and its mean logits of
      images and of reconstructions are the same;
    - the adaptive weight is, in the mean, above half of its upper limit,
      `max_adaptive_weight`;
    - the perceptual loss (that of the validation data if there is any, or the
      reconstruction loss without a perceptual one) has risen above its best
      value by more than `max_rise`. With `validation_freq`, epochs without
      validation are passed over.

    Its memory, the best value among it, is that of one `fit`. A run that is
    resumed by `keras_vq.callbacks.ResumableCheckpoint` in a new process
    therefore measures a rise from the best value since then, counts epochs
    anew, and may repeat a warning.

    Args:
        max_accuracy: Float in (0.5, 1], what counts as winning.
        max_rise: Float, the rise that counts, as a fraction of the best value.
        patience: Integer, so many epochs in a row.

    Attributes:
        complaints: Dict of the number of epochs in a row, by what was found:
            `"won"`, `"lost"`, `"clamped"`, `"rising"`.

    Raises:
        ValueError: If an argument is out of its range, or in `fit`, if the
            model has no discriminator.

    Example:
    ```python
    health = keras_vq.callbacks.DiscriminatorHealth()
    model.fit(dataset, epochs=100, callbacks=[health])
    ```
    """

    def __init__(
        self,
        max_accuracy: float = 0.98,
        max_rise: float = 0.1,
        patience: int = 3,
    ):
        super().__init__()
        if not 0.5 < max_accuracy <= 1:
            raise ValueError(
                "`max_accuracy` must lie in (0.5, 1]. "
                f"Received: max_accuracy={max_accuracy}"
            )
        if not max_rise > 0:
            raise ValueError(
                f"`max_rise` must be positive. Received: max_rise={max_rise}"
            )
        if patience < 1:
            raise ValueError(
                "`patience` must be at least 1 epoch. "
                f"Received: patience={patience}"
            )
        self.max_accuracy = max_accuracy
        self.max_rise = max_rise
        self.patience = patience
        self.complaints = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        if getattr(self.model, "discriminator", None) is None:
            raise ValueError(
                "DiscriminatorHealth needs a model with a discriminator, such "
                "as keras_vq.models.VQGAN. Received: a "
                f"{type(self.model).__name__} without one"
            )
        self.complaints, self._warned = {}, set()
        # By the loss's name: those of training and validation data differ.
        self._best = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        steps = int(keras.ops.convert_to_numpy(self.model.steps))
        start = self.model.adversarial.adversarial_start
        self._counts = steps >= start

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        watched = self._watched(logs)
        found = self._found(logs, watched)
        complaints = {key: self.complaints.get(key, 0) + 1 for key in found}
        if not watched and "rising" in self.complaints:
            # An epoch without validation neither counts nor starts over.
            complaints["rising"] = self.complaints["rising"]
        self.complaints = complaints
        for key, sentence in found.items():
            if self.complaints[key] < self.patience or key in self._warned:
                continue
            self._warned.add(key)
            if is_chief(self.model):
                warnings.warn(
                    f"Adversarial training: {sentence}, for {self.patience} "
                    f"epochs up to epoch {epoch + 1}. {_ADVICE[key]}",
                    stacklevel=2,
                )

    def _found(self, logs: dict, watched: str) -> dict:
        """What is wrong in this epoch: keys and sentences."""
        found = {}
        if watched and (rise := self._rise(watched, float(logs[watched]))):
            found["rising"] = rise
        if not self._counts:
            return found
        options = self.model.adversarial
        weight = float(logs.get("adaptive_weight", 0.0))
        limit = options.max_adaptive_weight
        if options.adaptive_weight and weight > 0.5 * limit:
            found["clamped"] = (
                f"adaptive_weight is {weight:.4g} in the mean, at its limit of "
                f"{limit:.4g} in many steps"
            )
        accuracy = float(logs.get("discriminator_accuracy", math.nan))
        real, fake = (
            float(logs.get(name, math.nan))
            for name in ("real_logits", "fake_logits")
        )
        if accuracy > self.max_accuracy:
            found["won"] = f"discriminator_accuracy is {accuracy:.3f}"
        # Whatever it says of all images alike, it tells nothing.
        elif abs(accuracy - 0.5) < 0.01 and abs(real - fake) < 0.02:
            found["lost"] = (
                f"discriminator_accuracy is {accuracy:.3f}, and the mean "
                f"logits of images and reconstructions are {real:.3f} and "
                f"{fake:.3f}, as without looking"
            )
        elif (stuck := self._stuck_loss(logs)) is not None:
            found["lost"] = (
                f"discriminator_loss without regularizers is {stuck:.3f}, as "
                "without looking"
            )
        return found

    def _stuck_loss(self, logs: dict) -> float | None:
        """The discriminator's loss, if it is about that of logits of 0."""
        options = self.model.adversarial
        loss = float(logs.get("discriminator_loss", math.nan))
        for name, weight in (
            ("r1_penalty", options.r1_weight),
            ("lecam_penalty", options.lecam_weight),
        ):
            loss -= weight * float(logs.get(name, 0.0))
        nothing = keras.ops.zeros((1, 1))
        function = get_adversarial_loss(options.loss).discriminator
        guessing = float(function(nothing, nothing)[0])
        return loss if abs(loss - guessing) < 0.03 * guessing else None

    def _watched(self, logs: dict) -> str:
        """Name of the loss that must not rise; empty if the epoch has none."""
        known = "perceptual_loss" in logs
        name = "perceptual_loss" if known else "reconstruction_loss"
        if f"val_{name}" in logs:
            return f"val_{name}"
        # Where there is validation, that of another epoch decides.
        return name if name in logs and f"val_{name}" not in self._best else ""

    def _rise(self, name: str, value: float) -> str:
        """Says how a loss has risen above its best value, or nothing."""
        best = self._best.get(name, math.inf)
        self._best[name] = min(best, value)
        # A negative log-likelihood may lie below 0. NaN counts as a rise.
        if not self._counts or value <= best + self.max_rise * abs(best):
            return ""
        return f"{name} is {value:.4g}, and was {best:.4g} at best"
