"""Makes `samples.png` from images that come with scikit-image.

Each sample is a square of one photograph, scaled down by averaging areas. Only
images that are in the public domain or under CC0 are used; README.md in
this folder names them. Needs scikit-image and Pillow (the extra `test`):

    cd applications
    python vqvae_cifar/samples/make_samples.py 32 vqvae_cifar
    python vqvae_cifar/samples/make_samples.py 64 vqgan_tiny_imagenet
"""

import pathlib
import sys

import numpy as np
from PIL import Image
from skimage import data

COLUMNS = 8

# (image, left, top, side) in pixels of the photograph.
SQUARES = [
    ("astronaut", 0, 0, 512),
    ("astronaut", 130, 0, 190),
    ("chelsea", 80, 0, 300),
    ("coffee", 80, 0, 400),
    ("rocket", 140, 67, 360),
    ("retina", 0, 0, 1411),
    ("camera", 60, 0, 440),
    ("hubble_deep_field", 690, 430, 80),
    ("astronaut", 290, 40, 222),
    ("chelsea", 120, 60, 130),
    ("coffee", 160, 0, 250),
    ("rocket", 260, 100, 120),
    ("astronaut", 120, 330, 110),
    ("hubble_deep_field", 380, 670, 80),
    ("camera", 150, 50, 200),
    ("chelsea", 200, 160, 130),
    ("astronaut", 262, 312, 200),
    ("coffee", 290, 170, 150),
    ("chelsea", 250, 70, 130),
    ("rocket", 60, 290, 130),
    ("astronaut", 0, 40, 100),
    ("retina", 60, 420, 500),
    ("coffee", 170, 200, 120),
    ("hubble_deep_field", 70, 350, 100),
]


def make_sheet(size) -> np.ndarray:
    """Puts the samples on one sheet, `COLUMNS` in a row, without gaps."""
    samples = np.stack([_sample(*square, size) for square in SQUARES])
    rows = samples.reshape(-1, COLUMNS, size, size, 3)
    return np.concatenate(np.concatenate(rows, axis=1), axis=1)


def _sample(name, left, top, side, size):
    image = Image.fromarray(getattr(data, name)()).convert("RGB")
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX))


if __name__ == "__main__":
    size, application = sys.argv[1:]
    applications = pathlib.Path(__file__).parents[2]
    target = applications / application / "samples" / "samples.png"
    Image.fromarray(make_sheet(int(size))).save(target, optimize=True)
