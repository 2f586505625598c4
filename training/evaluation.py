"""Measures a model on a set of images, and says how."""

import contextlib
import os
import pathlib

import keras
import numpy as np
from keras import ops

from keras_vq import losses
from keras_vq.losses.lpips_files import FOLDERS_VARIABLE
from keras_vq.metrics import (
    LPIPS,
    PSNR,
    SSIM,
    CodebookPerplexity,
    CodesUsed,
    FrechetDistance,
    SqueezeNetFeatures,
)
from keras_vq.models.codes import as_levels

_PROTOCOL = (
    "All of the reconstruction clipped and rounded to uint8, against the "
    "uint8 image. PSNR, SSIM and LPIPS are means over the images of the "
    "values per image; MSE is on [0, 1]; perplexity is that of all codes of "
    "all images together."
)
_NETWORKS = (
    "LPIPS is version 0.1 with the trunk {trunk} ({files}). The Fréchet "
    "distance is that of images and reconstructions in the mean of SqueezeNet "
    "1.1's last activations ({features}), at the images' own size: it is no "
    "FID, which has other features, and it compares only with figures of the "
    "same features and the same number of images."
)


# As many pixels as 100 images of 64x64 have: their activations are what takes
# memory, and grow with them.
_PIXELS = 100 * 64 * 64


def images_at_a_time(height: int, width: int) -> int:
    """How many images of a size a model is to look at at once: 1 to 100."""
    return max(1, min(100, _PIXELS // (height * width)))


@contextlib.contextmanager
def published_files(data_dir: pathlib.Path | None):
    """Context in which published weights are found in the data directory too.

    Args:
        data_dir: Directory that may have a folder `weights`, in which, or in
            whose subfolders, the files of LPIPS are.
    """
    before = os.environ.get(FOLDERS_VARIABLE)
    weights = pathlib.Path(data_dir or "") / "weights"
    folders = [before] if before else []
    if data_dir is not None and weights.is_dir():
        inner = sorted(path for path in weights.iterdir() if path.is_dir())
        folders += [str(path.resolve()) for path in (weights, *inner)]
    os.environ[FOLDERS_VARIABLE] = os.pathsep.join(folders)
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDERS_VARIABLE]
        else:
            os.environ[FOLDERS_VARIABLE] = before


class Evaluation:
    """Fidelity and code usage of models on a set of images.

    Args:
        evaluation_set: An `EvaluationSet`.
        lpips: Trunk of LPIPS, or None to leave it and the Fréchet distance
            out. Their files are opened here.
        batch_size: Integer, images at a time, or None: as many as have room.
            No figure depends on it.
    """

    def __init__(
        self, evaluation_set, lpips=None, batch_size: int | None = None
    ):
        self.set = evaluation_set
        height, width = evaluation_set.images.shape[1:3]
        self.batch_size = batch_size or images_at_a_time(height, width)
        self._distance = self._features = None
        if lpips is not None:
            self._distance = losses.LPIPS(lpips)
            self._features = SqueezeNetFeatures()

    @property
    def protocol(self) -> str:
        """How all of it is measured."""
        if self._distance is None:
            return _PROTOCOL
        files = self._distance.files.values()
        return f"{_PROTOCOL} " + _NETWORKS.format(
            trunk=self._distance.trunk,
            files=", ".join(os.path.basename(path) for path in files),
            features=os.path.basename(self._features.file),
        )

    def measure(self, model) -> dict:
        """Measures a model.

        Args:
            model: A `keras_vq.models.VQAutoencoder`.

        Returns:
            Dict of the figures and of the protocol they were measured by.
        """
        images = self.set.images
        usage = _CodeUsage(model)
        of_images = {"psnr_db": PSNR((0, 255)), "ssim": SSIM((0, 255))}
        of_images |= self._perceptual_metrics()
        squared_error = 0.0
        progress = keras.utils.Progbar(len(images), unit_name="image")
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            codes = model.encode(model.preprocess(batch))
            decoded = ops.convert_to_numpy(model.decode(codes))
            decoded = model.postprocess(decoded)
            decoded = decoded[:, : batch.shape[1], : batch.shape[2]]
            for metric in of_images.values():
                metric.update_state(
                    batch.astype("float32"), decoded.astype("float32")
                )
            usage.update(codes)
            error = (batch.astype("float64") - decoded) / 255
            squared_error += np.square(error).mean(axis=(1, 2, 3)).sum()
            progress.update(start + len(batch))
        height, width = images.shape[1:3]
        figures = {
            name: round(float(metric.result()), 5)
            for name, metric in of_images.items()
        }
        return {
            **figures,
            "mse": round(float(squared_error) / len(images), 7),
            **usage.figures(height, width),
            "image_size": [height, width],
            "images": len(images),
            "data": self.set.description,
            "protocol": self.protocol,
        }

    def _perceptual_metrics(self):
        if self._distance is None:
            return {}
        return {
            "lpips": LPIPS(self._distance, (0, 255)),
            "frechet_distance": FrechetDistance(self._features, (0, 255)),
        }


class _CodeUsage:
    """How each level of a model uses its codes."""

    def __init__(self, model):
        self.model = model
        sizes = [level.codebook_size for level in model.quantizer.levels()]
        self.sizes = sizes
        self.perplexity = [CodebookPerplexity(size) for size in sizes]
        self.used = [CodesUsed(size) for size in sizes]

    def update(self, codes):
        for metrics in (self.perplexity, self.used):
            for metric, level in zip(metrics, as_levels(codes), strict=True):
                metric.update_state(level)

    def figures(self, height: int, width: int) -> dict:
        """Figures; of several levels lists, coarse to fine."""
        figures = {
            "codes_used": [int(metric.result()) for metric in self.used],
            "codebook_size": self.sizes,
            "perplexity": [
                round(float(metric.result()), 2) for metric in self.perplexity
            ],
        }
        total = self.model.bits_per_image(height, width)
        if len(self.sizes) > 1:
            bits = self.model.bits_per_level(height, width)
            return {**figures, "bits_per_level": bits, "bits_per_image": total}
        figures = {name: values[0] for name, values in figures.items()}
        return {**figures, "bits_per_image": total}
