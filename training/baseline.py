"""The same run without its discriminator, beside it."""

import json
import pathlib

import numpy as np

from keras_vq.presets import load_preset
from keras_vq.utils.images import image_grid, write_png

# What both runs must have in common to be compared.
_COMMON = ("steps", "batch_size", "seed", "optimizer", "weight_ema")


def add_baseline(results: dict, model, run, evaluation) -> None:
    """Puts the figures of a run without the discriminator into the results.

    Also writes `comparison.png`: samples, what the run without made of them,
    and what this one made, row by row.

    Args:
        results: Results of this run, which are added to.
        model: Its model, as it was stored.
        run: The `Run`, with `baseline`.
        evaluation: The `Evaluation` of this run.

    Raises:
        FileNotFoundError: If the other run has not been finished.
        ValueError: If it is no such run.
    """
    other = read_baseline(
        run.baseline, results["training"], results["evaluation"]["protocol"]
    )
    results["without_discriminator"] = {
        "evaluation": other["evaluation"],
        "training": other["training"],
    }
    images = evaluation.set.samples
    if images is None:
        images = evaluation.set.images
    without = load_preset(type(model), run.baseline / "preset")
    sheet = compare(images[:8], without, model, evaluation.batch_size)
    write_png(run.output_dir / "comparison.png", sheet)


def compare(images, without, model, batch_size: int = 8) -> np.ndarray:
    """A row of images, and one of what each of two models makes of them."""
    models = (without, model)
    rows = [images, *(_reconstructed(m, images, batch_size) for m in models)]
    return image_grid(np.concatenate(rows), columns=len(images), scale=2)


def read_baseline(
    directory: pathlib.Path, training: dict, protocol: str
) -> dict:
    """The results of the other run.

    Args:
        directory: Its output directory.
        training: What is known of the training of this run, under the names of
            results.json.
        protocol: How this run is measured.

    Raises:
        FileNotFoundError: If the other run has not been finished.
        ValueError: If it is no such run, or this one has no discriminator
            either.
    """
    if training.get("discriminator_start") is None:
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
    if theirs.get("discriminator_start", 0) is not None:
        differ.append("discriminator_start")
    if protocol != other["evaluation"]["protocol"]:
        differ.append("protocol")
    if differ:
        raise ValueError(
            "--baseline names the same run --without-discriminator, measured "
            f"in the same way. Received: {directory}, which differs in "
            f"{', '.join(differ)}"
        )
    return other


def _reconstructed(model, images, batch_size):
    images = model.preprocess(images)
    return model.postprocess(
        model.predict(images, batch_size=batch_size, verbose=0)
    )
