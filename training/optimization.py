"""How a recipe's optimizers learn."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class AdamPlan:
    """Adam, and the course of its learning rate over a run.

    Args:
        learning_rate: Peak of the learning rate.
        warmup_steps: Steps of linear warm-up to it.
        decay: `"cosine"`, down to 0 at the last step, or None: it stays.
        beta_1: Decay of the mean of the gradients.
        beta_2: Decay of the mean of their squares.
        per_image: Whether `learning_rate` is that of one image: it is then
            multiplied by the images of a step.

    Raises:
        ValueError: If `decay` is neither.
    """

    learning_rate: float
    warmup_steps: int = 0
    decay: str | None = "cosine"
    beta_1: float = 0.9
    beta_2: float = 0.999
    per_image: bool = False

    def __post_init__(self):
        if self.decay not in ("cosine", None):
            raise ValueError(
                '`decay` must be "cosine", or None for a constant learning '
                f"rate. Received: decay={self.decay!r}"
            )

    def peak(self, batch_size: int) -> float:
        """Peak of the learning rate with so many images a step."""
        return self.learning_rate * (batch_size if self.per_image else 1)

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of `steps`, of which some must be left."""
        short = self.warmup_steps >= steps
        return steps // 10 if short else self.warmup_steps

    def optimizer(self, steps: int, batch_size: int) -> keras.optimizers.Adam:
        """A new optimizer.

        Args:
            steps: Steps that it will take.
            batch_size: Images a step.
        """
        rate = peak = self.peak(batch_size)
        warmup = self.warmup(steps)
        if self.decay == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if warmup else peak,
                decay_steps=steps - warmup,
                warmup_target=peak if warmup else None,
                warmup_steps=warmup,
            )
        elif warmup:
            rate = keras.optimizers.schedules.PolynomialDecay(
                peak / (warmup + 1), warmup, end_learning_rate=peak
            )
        return keras.optimizers.Adam(
            rate, beta_1=self.beta_1, beta_2=self.beta_2
        )

    def describe(self, steps: int, batch_size: int) -> str:
        """The plan in half a sentence, for a model card."""
        warmup = self.warmup(steps)
        text = (
            f"Adam({self.beta_1}, {self.beta_2}) with a learning rate of "
            f"{self.peak(batch_size):.4g}"
        )
        text += f", {warmup} steps of warm-up" if warmup else ""
        return text + (", a cosine to 0" if self.decay else ", constant")
