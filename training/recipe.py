"""What a recipe says, so that the launcher can run it from start to card."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Images that a preset is measured on.

    Args:
        images: uint8 array of shape `(count, height, width, channels)`.
        description: What they are and how they were prepared, in a sentence:
            it stands next to every figure.
    """

    images: np.ndarray
    description: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that makes a preset out of data.

    Args:
        name: Name of the preset.
        summary: What the preset is, in a sentence.
        data: What it is trained on, in a sentence.
        licence: Licence of the weights, and the terms of the data.
        build_model: Function of the dtype policy (or None) that returns the
            model.
        train_data: Function of the data directory and the options
            `batch_size` and `seed` that returns an endless dataset of
            `keras_vq.data`.
        validation_data: Function of the data directory and the batch size
            that returns a finite dataset.
        evaluation_set: Function of the data directory that returns the
            `EvaluationSet` of the reported figures.
        steps: Number of training steps.
        batch_size: Images per step, over all replicas.
        learning_rate: Peak of the learning rate (Adam), reached after
            `warmup_steps` and followed by a cosine down to 0.
        warmup_steps: Steps of linear warm-up.
        weight_ema: Momentum of the weight average, which is what is saved.
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
    learning_rate: float
    warmup_steps: int = 500
    weight_ema: float = 0.999
    steps_per_epoch: int = 1000


def load_recipe(name: str) -> Recipe:
    """The recipe of a preset, from its folder in `keras_vq.applications`.

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
    return module.RECIPE


def recipe_names() -> list[str]:
    """Names of all recipes that are installed."""
    import keras_vq.applications

    folders = [pathlib.Path(p) for p in keras_vq.applications.__path__]
    return sorted(
        path.parent.name
        for folder in folders
        for path in folder.glob("*/recipe.py")
    )
