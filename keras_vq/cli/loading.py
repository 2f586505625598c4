"""The model behind `--preset`, and what the commands compute with it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError


def weights_sha256(preset: str) -> str:
    """SHA-256 of a preset's weight file, as it is checked at loading."""
    from keras_vq.presets.source import open_source

    source = open_source(preset, load_parts=False)
    return source.files["model.weights.h5"]["sha256"]


@dataclasses.dataclass
class Tokenizer:
    """A model that turns uint8 images into codes and codes into images.

    Attributes:
        preset: name or folder of the preset.
        weights_sha256: SHA-256 of its weights.
        model: the `keras_vq.models.VQAutoencoder`.
        tiling: how images are cut into tiles, or None.
    """

    preset: str
    weights_sha256: str
    model: Any
    tiling: Any = None

    @classmethod
    def load(cls, preset: str, tile_size: int | None = None) -> "Tokenizer":
        """Loads a preset; its weights are compared with their hash."""
        load_package()
        from keras_vq.models import Tiling, VQAutoencoder

        sha256 = weights_sha256(preset)
        model = VQAutoencoder.from_preset(preset, load_parts=False)
        if model.channels not in (1, 3):
            raise CommandError(
                f"image files have 1 or 3 channels, and {preset} is a model "
                f"of {model.channels}. Use it from Python"
            )
        factor = model.downsample_factor
        if tile_size is not None and tile_size % factor:
            raise CommandError(
                f"the tiles of {preset} need sides that are multiples of "
                f"{factor} pixels. Received: --tile-size {tile_size}"
            )
        tiling = None if tile_size is None else Tiling(tile_size)
        return cls(preset, sha256, model, tiling)

    @property
    def codebook_sizes(self) -> list[int]:
        """Number of codes of each level, coarse to fine."""
        return [x.codebook_size for x in self.model.quantizer.levels()]

    def encode(self, images: np.ndarray) -> list[list[np.ndarray]]:
        """Codes of uint8 images (batch, height, width, channels).

        Returns:
            For each image its grids of codes, coarse to fine.
        """
        images = self.model.preprocess(images)
        codes = self.model.encode(images, tiling=self.tiling)
        levels = codes if isinstance(codes, list) else [codes]
        levels = [np.asarray(level) for level in levels]
        return [list(grids) for grids in zip(*levels, strict=True)]

    def decode(
        self, codes: Sequence[list[np.ndarray]], size: tuple[int, int]
    ) -> np.ndarray:
        """uint8 images of codes as of `encode`, cut to (height, width)."""
        levels = [
            np.stack(level).astype("int32")
            for level in zip(*codes, strict=True)
        ]
        codes = levels if len(levels) > 1 else levels[0]
        images = self.model.decode(codes, tiling=self.tiling)
        images = np.asarray(self.model.postprocess(images))
        return images[:, : size[0], : size[1]]


def psnr(images: np.ndarray, others: np.ndarray) -> list[float]:
    """Peak signal-to-noise ratio of each uint8 image, in decibel."""
    difference = images.astype("float64") - others.astype("float64")
    error = np.mean(np.square(difference), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return (10 * np.log10(255.0**2 / error)).tolist()


def beside(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Puts each image to the left of the other one of its number."""
    return np.concatenate([images, others], axis=2)
