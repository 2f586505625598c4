"""A run that another one is compared with: its baseline."""

import json
import pathlib

import numpy as np

from keras_vq.models import VQAutoencoder
from keras_vq.presets import load_preset
from keras_vq.utils.images import image_grid, write_png

# What both runs must have in common to be compared.
_COMMON = ("steps", "batch_size", "seed", "optimizer", "weight_ema")


def add_baseline(results: dict, model, run, evaluation) -> None:
    """Puts the figures of the baseline into the results.

    Also writes `comparison.png`: samples, what the baseline made of them, and
    what this run made, row by row.

    Args:
        results: Results of this run, which are added to.
        model: Its model, as it was stored.
        run: The `Run`, with `baseline`.
        evaluation: The `Evaluation` of this run.

    Raises:
        FileNotFoundError: If the other run has not been finished.
        ValueError: If the two cannot be compared.
    """
    other = read_baseline(
        run.baseline, results["training"], results["evaluation"]["protocol"]
    )
    results["baseline"] = {
        name: other[name]
        for name in ("name", "parameters", "evaluation", "training")
    }
    images = evaluation.set.samples
    if images is None:
        images = evaluation.set.images
    baseline = load_preset(VQAutoencoder, run.baseline / "preset")
    sheet = compare(
        images[:8], baseline, model, batch_size=evaluation.batch_size
    )
    write_png(run.output_dir / "comparison.png", sheet)


def compare(images, *models, batch_size: int = 8) -> np.ndarray:
    """A row of images, and one of what each of some models makes of them."""
    rows = [images, *(_reconstructed(m, images, batch_size) for m in models)]
    return image_grid(np.concatenate(rows), columns=len(images), scale=2)


def read_baseline(
    directory: pathlib.Path, training: dict, protocol: str
) -> dict:
    """The results of the baseline.

    That of a run with a discriminator is the same run without; that of another
    is any that learned alike, such as a variant of the recipe.

    Args:
        directory: Its output directory.
        training: What is known of the training of this run, under the names of
            results.json.
        protocol: How this run is measured.

    Raises:
        FileNotFoundError: If the other run has not been finished.
        ValueError: If it is no such run, or this one could have had a
            discriminator and has none either.
    """
    adversarial = "discriminator_start" in training
    if adversarial and training["discriminator_start"] is None:
        raise ValueError(
            "--baseline is for a run with a discriminator, to be compared "
            "with the same run without. Received: a run without"
        )
    path = directory / "results.json"
    if not path.is_file() or not (directory / "preset").is_dir():
        raise FileNotFoundError(
            "--baseline names the output directory of a finished run, with "
            f"its results.json and its preset. Received: {directory}"
        )
    other = json.loads(path.read_text())
    theirs = other["training"]
    differ = [n for n in _COMMON if training[n] != theirs.get(n)]
    if adversarial and theirs.get("discriminator_start", 0) is not None:
        differ.append("discriminator_start")
    if protocol != other["evaluation"]["protocol"]:
        differ.append("protocol")
    if differ:
        raise ValueError(
            "--baseline names a run that learned and was measured alike; that "
            "of a run with a discriminator is the same run "
            f"--without-discriminator. Received: {directory}, which differs "
            f"in {', '.join(differ)}"
        )
    return other


def _reconstructed(model, images, batch_size):
    images = model.preprocess(images)
    return model.postprocess(
        model.predict(images, batch_size=batch_size, verbose=0)
    )
