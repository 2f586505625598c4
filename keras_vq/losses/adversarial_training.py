"""When and how strongly a discriminator takes part in training."""

import dataclasses
import numbers

import keras

from keras_vq.losses.adversarial import get_adversarial_loss


@keras.saving.register_keras_serializable(package="keras_vq")
@dataclasses.dataclass(frozen=True)
class AdversarialTraining:
    """When and how strongly a discriminator takes part in training.

    Training passes through up to three phases:

    1. until `discriminator_start`, the autoencoder alone: the discriminator
       is not even computed;
    2. for `pretraining_steps`, the discriminator alone: the autoencoder keeps
       all its weights;
    3. from then on both, each with its own optimizer.

    Args:
        loss: `"hinge"`, `"vanilla"` or `"non_saturating"`; see
            `keras_vq.losses.get_adversarial_loss`.
        weight: Float, weight of the generator's adversarial loss.
        adaptive_weight: Whether that loss is weighted, in addition, so that
            its gradient at the last kernel of the decoder has the norm of
            the reconstruction's, as VQGAN does it.
        max_adaptive_weight: Float, upper limit of the adaptive weight.
        discriminator_start: Integer, steps of the first phase, or a float in
            [0, 1), that fraction of `total_steps`.
        total_steps: Integer, steps of the whole training. Needed only for a
            fraction, and to refuse a start after the end.
        warmup_steps: Integer, steps of the third phase over which `weight`
            grows linearly from 0.
        pretraining_steps: Integer, steps of the second phase: for a model
            that is trained further with a discriminator that starts anew.
        r1_weight: Float, the gamma of the R1 penalty on the discriminator's
            gradient at real images; 0 for none.
        lecam_weight: Float, weight of the LeCam penalty; 0 for none. Its
            moving averages are those before the step.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), section 3.1.

    Example:
    ```python
    model = keras_vq.models.VQGAN(
        adversarial=keras_vq.losses.AdversarialTraining(
            discriminator_start=0.25, total_steps=100_000
        )
    )
    ```
    """

    loss: str = "hinge"
    weight: float = 0.8
    adaptive_weight: bool = True
    max_adaptive_weight: float = 1e4
    discriminator_start: int | float = 0
    total_steps: int | None = None
    warmup_steps: int = 0
    pretraining_steps: int = 0
    r1_weight: float = 0.0
    lecam_weight: float = 0.0

    def __post_init__(self):
        get_adversarial_loss(self.loss)
        for name in (
            "weight",
            "max_adaptive_weight",
            "r1_weight",
            "lecam_weight",
        ):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or not 0 <= value < 1e38:
                raise ValueError(
                    f"`{name}` must be a finite number that is not negative. "
                    f"Received: {name}={value!r}"
                )
        for name in ("warmup_steps", "pretraining_steps"):
            _check_steps(name, getattr(self, name))
        if self.total_steps is not None:
            _check_steps("total_steps", self.total_steps)
        self._check_start()

    def _check_start(self):
        start, total = self.discriminator_start, self.total_steps
        fraction = not isinstance(start, numbers.Integral)
        if not fraction:
            _check_steps("discriminator_start", start)
        elif not isinstance(start, numbers.Real) or not 0 <= start < 1:
            raise ValueError(
                "`discriminator_start` must be a number of steps, an integer, "
                "or a float in [0, 1), a fraction of `total_steps`. "
                f"Received: discriminator_start={start!r}"
            )
        elif total is None:
            raise ValueError(
                "A `discriminator_start` that is a fraction needs "
                "`total_steps`, the steps of the whole training. Received: "
                f"discriminator_start={start!r}, total_steps=None"
            )
        if total is not None and self.adversarial_start >= total:
            raise ValueError(
                "The discriminator would start to count after the end of "
                "training: `discriminator_start` and `pretraining_steps` must "
                "together be less than `total_steps`. Received: "
                f"discriminator_start={start!r}, "
                f"pretraining_steps={self.pretraining_steps}, "
                f"total_steps={total}"
            )

    @property
    def first_step(self) -> int:
        """Steps that are taken without the discriminator."""
        start = self.discriminator_start
        if isinstance(start, numbers.Integral):
            return int(start)
        return round(start * self.total_steps)

    @property
    def adversarial_start(self) -> int:
        """Steps that are taken before the generator meets its adversary."""
        return self.first_step + self.pretraining_steps

    def without_phases(self):
        """The same for two networks that both have learned: from step 1."""
        return dataclasses.replace(
            self,
            discriminator_start=0,
            total_steps=None,
            warmup_steps=0,
            pretraining_steps=0,
        )

    def get_config(self) -> dict:
        """All arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict):
        """The object of `get_config`."""
        return cls(**config)


def _check_steps(name, value):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 0:
        raise ValueError(
            f"`{name}` must be a number of steps, an integer that is not "
            f"negative. Received: {name}={value!r}"
        )
