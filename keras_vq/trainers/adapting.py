"""Which latents a codebook starts from."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_vq.trainers import checks


def first_latents(model, data, wanted: int, level: int = 0) -> np.ndarray:
    """Latents of the first images of the data.

    Args:
        model: The model whose encoder makes them.
        data: Images as an array, or a data set as `fit` takes it.
        wanted: Integer, so many latents are enough.
        level: Integer, the level of the codes, 0 for the coarsest.

    Returns:
        float32 array of shape `(latents, channels)`.

    Raises:
        ValueError: If there are no images, or not such as the model takes.
    """
    collected, count, seen = [], 0, 0
    for images in _batches(data):
        model._check_images(images)
        checks.check_finite(images, first=seen)
        seen += len(images)
        latents = model._collect_latents(ops.convert_to_tensor(images), level)
        collected.append(ops.convert_to_numpy(latents).astype("float32"))
        count += collected[-1][..., 0].size
        if count >= wanted:
            break
    if not collected:
        raise ValueError(
            "The codebook can start from one or more images. Received: "
            "no images"
        )
    channels = collected[0].shape[-1]
    return np.concatenate([x.reshape(-1, channels) for x in collected])


def _batches(data):
    if hasattr(data, "shape"):
        batches = (data[i : i + 128] for i in range(0, len(data), 128))
    elif isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        numbers = itertools.count() if count is None else range(count)
        batches = (data[i] for i in numbers)
    else:
        batches = data
    for batch in batches:
        yield batch[0] if isinstance(batch, (tuple, list)) else batch
