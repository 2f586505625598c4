"""What a recipe says, so that the launcher can run it from start to card."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable

import numpy as np

from keras_vq.losses import AdversarialTraining
from keras_vq.training.optimization import AdamPlan

# Steps are counted in int32.
_NEVER = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Images that a preset is measured on.

    Args:
        images: uint8 array of shape `(count, height, width, channels)`.
        description: What they are and how they were prepared, in a sentence:
            it stands next to every figure.
        samples: uint8 array of images of the same size that may be shown to
            anybody, for pictures in the model card. None: the first images.
    """

    images: np.ndarray
    description: str
    samples: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that makes a preset out of data.

    Args:
        name: Name of the preset.
        summary: What the preset is, in a sentence.
        data: What it is trained on, in a sentence.
        licence: Licence of the weights, and the terms of the data.
        build_model: Function of this recipe and of the dtype policy (or None)
            that returns the model.
        train_data: Function of the data directory and the options
            `batch_size` and `seed` that returns an endless dataset of
            `keras_vq.data`.
        validation_data: Function of the data directory and the batch size
            that returns a finite dataset.
        evaluation_set: Function of the data directory that returns the
            `EvaluationSet` of the reported figures.
        steps: Number of training steps.
        batch_size: Images per step, over all replicas.
        optimizer: `AdamPlan` of the autoencoder.
        discriminator_optimizer: `AdamPlan` of the discriminator, from the step
            on at which it starts. None for models without.
        discriminator_start: Steps (an integer), or a fraction of `steps` (a
            float), before the discriminator takes part; None: it never does.
        lpips: Trunk of the LPIPS that is reported, `"vgg"` or `"squeeze"`,
            together with a Fréchet distance; None for neither.
        weight_ema: Momentum of the weight average, which is what is saved, or
            None for none.
        accumulation_steps: Parts that a step computes its batch in.
        clipnorm: Global norm that gradients are scaled down to, those of
            each network by themselves; None: whatever they are.
        steps_per_epoch: Steps between two validations.
    """

    name: str
    summary: str
    data: str
    licence: str
    build_model: Callable
    train_data: Callable
    validation_data: Callable
    evaluation_set: Callable
    steps: int
    batch_size: int
    optimizer: AdamPlan
    discriminator_optimizer: AdamPlan | None = None
    discriminator_start: int | float | None = None
    lpips: str | None = None
    weight_ema: float | None = 0.999
    accumulation_steps: int = 1
    clipnorm: float | None = None
    steps_per_epoch: int = 1000

    def adversarial_training(self, **options) -> AdversarialTraining:
        """When the discriminator takes part, for the model of this recipe.

        Args:
            **options: Further arguments of
                `keras_vq.losses.AdversarialTraining`.

        Raises:
            ValueError: If it would start after the last step.
        """
        if self.discriminator_start is None:
            # Never; the model and its checkpoints are the same as with it.
            return AdversarialTraining(discriminator_start=_NEVER, **options)
        return AdversarialTraining(
            discriminator_start=self.discriminator_start,
            total_steps=self.steps,
            **options,
        )

    @property
    def discriminator_steps(self) -> int:
        """Steps that the discriminator takes part in."""
        if self.discriminator_start is None:
            return 0
        return self.steps - self.adversarial_training().first_step

    def with_learning_rate(self, learning_rate: float) -> "Recipe":
        """The recipe with another peak of the learning rate.

        Args:
            learning_rate: That of the autoencoder. The discriminator's keeps
                its ratio to it.
        """
        factor = learning_rate / self.optimizer.peak(self.batch_size)
        plans = {
            name: dataclasses.replace(
                plan, learning_rate=plan.learning_rate * factor
            )
            for name in ("optimizer", "discriminator_optimizer")
            if (plan := getattr(self, name)) is not None
        }
        return dataclasses.replace(self, **plans)


def load_recipe(name: str, variant: str | None = None) -> Recipe:
    """A recipe, from its folder in `keras_vq.applications`.

    Args:
        name: Name of the folder.
        variant: One of those that the folder's recipe.py has under
            `VARIANTS`, or None for its main one.

    Raises:
        ValueError: If there is none of that name; the message lists those
            that there are.
    """
    known = recipe_names()
    if name not in known:
        raise ValueError(
            f"There is no recipe of this name. Known recipes: "
            f"{', '.join(known)}. Received: {name!r}"
        )
    module = importlib.import_module(f"keras_vq.applications.{name}.recipe")
    if variant is None:
        return module.RECIPE
    variants = getattr(module, "VARIANTS", {})
    if variant not in variants:
        raise ValueError(
            f"The recipe {name!r} has no such variant. Known variants: "
            f"{', '.join(variants) or 'none'}. Received: {variant!r}"
        )
    return variants[variant]


def recipe_names() -> list[str]:
    """Names of all recipes that are installed."""
    import keras_vq.applications

    folders = [pathlib.Path(p) for p in keras_vq.applications.__path__]
    return sorted(
        path.parent.name
        for folder in folders
        for path in folder.glob("*/recipe.py")
    )
