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
    other = read_baseline(run.baseline, results)
    results["without_discriminator"] = {
        "evaluation": other["evaluation"],
        "training": other["training"],
    }
    images = evaluation.set.samples
    if images is None:
        images = evaluation.set.images
    without = load_preset(type(model), run.baseline / "preset")
    sheet = compare(images[:8], without, model)
    write_png(run.output_dir / "comparison.png", sheet)


def compare(images, without, model) -> np.ndarray:
    """A row of images, and one of what each of two models makes of them."""
    rows = [images, *(_reconstructed(m, images) for m in (without, model))]
    return image_grid(np.concatenate(rows), columns=len(images), scale=2)


def read_baseline(directory: pathlib.Path, results: dict) -> dict:
    """The results of the other run.

    Args:
        directory: Its output directory.
        results: Results of this run.

    Raises:
        FileNotFoundError: If the other run has not been finished.
        ValueError: If it is no such run.
    """
    path = directory / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            "--baseline names the output directory of a finished run, with "
            f"its results.json. Received: {directory}"
        )
    other = json.loads(path.read_text())
    ours, theirs = results["training"], other["training"]
    differ = [n for n in _COMMON if ours[n] != theirs.get(n)]
    if theirs.get("discriminator_start", 0) is not None:
        differ.append("discriminator_start")
    if results["evaluation"]["protocol"] != other["evaluation"]["protocol"]:
        differ.append("protocol")
    if differ:
        raise ValueError(
            "--baseline names the same run --without-discriminator, measured "
            f"in the same way. Received: {directory}, which differs in "
            f"{', '.join(differ)}"
        )
    return other


def _reconstructed(model, images):
    return model.postprocess(model.predict(model.preprocess(images), verbose=0))
