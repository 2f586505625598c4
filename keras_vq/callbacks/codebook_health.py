"""Watches that the codebook stays in use."""

import warnings
from typing import Any

import keras

from keras_vq.models.codes import level_names
from keras_vq.utils.images import first_images

ADVICE = (
    "What helps, in this order: start the codebook from data "
    "(`model.adapt(dataset)` before the first step); a quantizer that moves "
    "dead codes (`revival_threshold=0.01`, or `CodebookHealth(..., "
    "revive=images)`); a low code dimension with `l2_normalize=True` for "
    "large codebooks; a lower learning rate or a warm-up; fewer codes than "
    "the data has kinds of patches."
)


class CodebookHealth(keras.callbacks.Callback):
    """Warns when most codes are no longer used, and can bring them back.

    A codebook collapses when a few codes win nearly all latents: the others
    get no update and never win again. Reconstructions then stay blurred, while
    the loss still falls, so that it is easily missed. This callback looks at
    `perplexity` (how many codes an even usage would need) and `codes_used` of
    the whole epoch, warns once with advice, and, if images are given to
    `revive`, moves the dead codes onto latents of these images.

    Args:
        min_codes_used: share of the codebook in (0, 1] that an epoch is
            expected to use; fewer count as a collapse. 0 switches it off.
        min_perplexity: share of the codebook in (0, 1] that the perplexity
            is expected to reach. 0 switches it off.
        patience: warn (and revive) after that many epochs in a row.
        revive: None, or images to take new codes from: an array of shape
            (batch, height, width, channels), floating point in [-1, 1] or
            uint8, or a dataset whose first batch is taken. After a revival
            the codes get `patience` epochs before the next one. With several
            workers, every one must be given the same images.
        revival_threshold: codes used less than this share of the mean over
            all codes are moved.

    Attributes:
        collapsed_epochs: how many epochs in a row have been below.
        revived_codes: how many codes have been moved since the callback was
            made.

    Example:
    ```python
    health = keras_vq.callbacks.CodebookHealth(revive=images[:64])
    model.fit(dataset, epochs=100, callbacks=[health])
    ```

    Reference:
        [Dhariwal et al., 2020](https://arxiv.org/abs/2005.00341), section 3,
        on codebook collapse and random restarts.
    """

    def __init__(
        self,
        min_codes_used: float = 0.25,
        min_perplexity: float = 0.1,
        patience: int = 3,
        revive: Any = None,
        revival_threshold: float = 0.01,
    ):
        super().__init__()
        for name, share in (
            ("min_codes_used", min_codes_used),
            ("min_perplexity", min_perplexity),
        ):
            if not 0 <= share <= 1:
                raise ValueError(
                    f"`{name}` is a share of the codebook in [0, 1]. "
                    f"Received: {name}={share}"
                )
        if patience < 1:
            raise ValueError(
                "`patience` must be at least 1 epoch. "
                f"Received: patience={patience}"
            )
        self.min_codes_used = min_codes_used
        self.min_perplexity = min_perplexity
        self.patience = patience
        self.revival_threshold = revival_threshold
        self.images = None if revive is None else first_images(revive)
        self.collapsed_epochs = 0
        self.revived_codes = 0
        self._warned = set()

    def on_train_begin(self, logs: dict | None = None) -> None:
        quantizer = getattr(self.model, "quantizer", None)
        if not hasattr(quantizer, "levels"):
            raise ValueError(
                "CodebookHealth needs a model with a `quantizer` of "
                "keras_vq.layers, such as keras_vq.models.VQAutoencoder. "
                f"Received: {type(self.model).__name__}"
            )
        self.collapsed_epochs = 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        complaints = self._complaints(logs or {})
        if not complaints:
            self.collapsed_epochs = 0
            return
        self.collapsed_epochs += 1
        if self.collapsed_epochs < self.patience:
            return
        self._warn_once(
            "collapse",
            f"The codebook is collapsing: {' and '.join(complaints)}, for "
            f"{self.collapsed_epochs} epochs up to epoch {epoch + 1}. {ADVICE}",
        )
        if self.images is not None:
            self._revive(epoch)

    def _complaints(self, logs: dict) -> list[str]:
        levels = self.model.quantizer.levels()
        complaints = []
        for metric, share in (
            ("codes_used", self.min_codes_used),
            ("perplexity", self.min_perplexity),
        ):
            names = level_names(metric, len(levels))
            for name, level in zip(names, levels, strict=True):
                if share:
                    size = level.codebook_size
                    complaints += self._complaint(logs, name, share, size)
        return complaints

    def _complaint(self, logs, name, share, size) -> list[str]:
        if name not in logs:
            self._warn_once(
                name,
                f"CodebookHealth cannot watch `{name}`, which is not in "
                f"the logs of this model. Received: {sorted(logs)}",
            )
            return []
        value = float(logs[name])
        # Written so that NaN counts as a collapse.
        if value >= share * size:
            return []
        return [f"{name} is {value:.4g} of {size} codes (below {share:.0%})"]

    def _revive(self, epoch: int) -> None:
        model = self.model
        if not model.quantizer.trainable:
            return
        moved = 0
        for i, level in enumerate(model.quantizer.levels()):
            latents = model._collect_latents(self.images, i)
            moved += level.revive(latents, self.revival_threshold)
        self.revived_codes += moved
        self.collapsed_epochs = 0
        if self.params.get("verbose"):
            print(f"Epoch {epoch + 1}: CodebookHealth moved {moved} codes.")

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(message, stacklevel=2)
