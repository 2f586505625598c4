"""Draws what each level of the preset carries.

    python -m keras_vq.applications.vqvae2_tiny_imagenet.levels \
        --output levels.png

A column for each photograph, from above: itself, what `decode` makes of the
codes of one level after the other alone, the coarsest first, and of all.
"""

import argparse

import numpy as np

from keras_vq import utils
from keras_vq.applications.samples import load_samples
from keras_vq.models import VQVAE2

NAME = "vqvae2_tiny_imagenet"
# Of the samples: those whose squares differ most.
CHOSEN = (0, 3, 6, 9, 12, 15, 18, 21)


def draw(model: VQVAE2, images: np.ndarray) -> np.ndarray:
    """The sheet of some images.

    Args:
        model: Any `VQVAE2`.
        images: uint8 array of shape `(count, height, width, channels)`.

    Returns:
        uint8 array: the rows one below the other.
    """
    codes = model.encode(model.preprocess(images))
    chosen = [_alone(model, codes, level) for level in range(len(codes))]
    decoded = [model.decode(maps) for maps in (*chosen, codes)]
    rows = [images, *(model.postprocess(row) for row in decoded)]
    return utils.image_grid(
        np.concatenate(rows), columns=len(images), scale=2, padding=2
    )


def _alone(model, codes, level):
    """The codes of one level, with the most frequent ones of the others."""
    usual = [q.most_frequent_code() for q in model.quantizer.levels()]
    return [
        maps if i == level else np.full(maps.shape, usual[i], "int32")
        for i, maps in enumerate(codes)
    ]


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", default="levels.png", help="PNG to write")
    parser.add_argument("--preset", default=NAME, help="name or folder")
    arguments = parser.parse_args(argv)
    model = VQVAE2.from_preset(arguments.preset)
    images = load_samples("vqgan_tiny_imagenet", 64)[list(CHOSEN)]
    utils.write_png(arguments.output, draw(model, images))


if __name__ == "__main__":
    main()
