"""Measures a model on a set of images, and says how."""

import keras
import numpy as np
from keras import ops

from keras_vq.metrics import PSNR, SSIM, CodebookPerplexity, CodesUsed

PROTOCOL = (
    "PSNR and SSIM are means over the images of the values per image, of the "
    "reconstruction clipped and rounded to uint8 against the uint8 image; MSE "
    "is that of the same on [0, 1]; perplexity is that of all codes of all "
    "images together."
)


def evaluate(model, evaluation_set, batch_size: int = 100) -> dict:
    """Fidelity and code usage of a model.

    Args:
        model: A `keras_vq.models.VQAutoencoder`.
        evaluation_set: An `EvaluationSet`.
        batch_size: Integer, images at a time; no figure depends on it.

    Returns:
        Dict of the figures and of the protocol they were measured by.
    """
    images = evaluation_set.images
    size = model.quantizer.codebook_size
    psnr, ssim = PSNR((0, 255)), SSIM((0, 255))
    perplexity, used = CodebookPerplexity(size), CodesUsed(size)
    squared_error = 0.0
    progress = keras.utils.Progbar(len(images), unit_name="image")
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        codes = model.encode(model.preprocess(batch))
        decoded = ops.convert_to_numpy(model.decode(codes))
        decoded = model.postprocess(decoded)
        decoded = decoded[:, : batch.shape[1], : batch.shape[2]]
        for metric in (psnr, ssim):
            metric.update_state(
                batch.astype("float32"), decoded.astype("float32")
            )
        perplexity.update_state(codes)
        used.update_state(codes)
        error = (batch.astype("float64") - decoded) / 255
        squared_error += np.square(error).mean(axis=(1, 2, 3)).sum()
        progress.update(start + len(batch))
    height, width = images.shape[1:3]
    return {
        "psnr_db": round(float(psnr.result()), 4),
        "ssim": round(float(ssim.result()), 5),
        "mse": round(float(squared_error) / len(images), 7),
        "codes_used": int(used.result()),
        "codebook_size": size,
        "perplexity": round(float(perplexity.result()), 2),
        "bits_per_image": model.bits_per_image(height, width),
        "image_size": [height, width],
        "images": len(images),
        "data": evaluation_set.description,
        "protocol": PROTOCOL,
    }
