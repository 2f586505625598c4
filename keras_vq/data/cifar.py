"""The original files of CIFAR-10, without running what a pickle asks for.

Reference:
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
    the layouts are described on the data set's page, www.cs.toronto.edu/~kriz.
"""

import os

import numpy as np

from keras_vq.data.safe_pickle import ArrayData, read_pickle
from keras_vq.data.sources import ArraySource

CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
_PIXELS = 3 * 32 * 32
_FILES = {
    "train": [f"data_batch_{i}" for i in range(1, 6)],
    "test": ["test_batch"],
}
_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")


class CIFAR10Source(ArraySource):
    """CIFAR-10 from its binary batches, or from its Python batches.

    Args:
        directory: The folder with the batches, or its parent.
        split: `"train"` or `"test"`.
    """

    def __init__(self, directory, split="train"):
        if split not in _FILES:
            raise ValueError(
                f"`split` must be 'train' or 'test'. Received: split={split!r}"
            )
        images, labels = [], []
        for path in _find(os.fspath(directory), _FILES[split]):
            read = read_binary if path.endswith(".bin") else read_python
            pixels, numbers = read(path)
            images.append(pixels)
            labels.append(numbers)
        super().__init__(
            np.concatenate(images), np.concatenate(labels), name="CIFAR-10"
        )
        self.class_names = list(CLASSES)


def _find(directory, names):
    if not os.path.isdir(directory):
        raise FileNotFoundError(
            "Expected the folder of CIFAR-10's batches. Received: "
            f"{directory!r}, which does not exist."
        )
    # The binary version comes first: it needs no pickle at all.
    missing = None
    for ending in (".bin", ""):
        for folder in _FOLDERS:
            paths = [os.path.join(directory, folder, n + ending) for n in names]
            there = [os.path.isfile(p) for p in paths]
            if all(there):
                return paths
            if any(there):
                missing = paths[there.index(False)]
    if missing:
        raise FileNotFoundError(
            f"CIFAR-10 is not complete: {missing} is missing. Extract the "
            "archive anew."
        )
    raise FileNotFoundError(
        f"No CIFAR-10 batches in {directory!r}; expected {names[0]}.bin or "
        f"{names[0]} there, in cifar-10-batches-bin or in "
        "cifar-10-batches-py. Extract cifar-10-binary.tar.gz or "
        "cifar-10-python.tar.gz there."
    )


def read_binary(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one binary batch: rows of a label and 3072 bytes, by channel.

    Returns:
        uint8 images `(n, 32, 32, 3)` and uint8 labels `(n,)`.
    """
    size = os.path.getsize(path)
    if size == 0 or size % (1 + _PIXELS):
        raise ValueError(
            f"{path} must be a multiple of {1 + _PIXELS} bytes long (one "
            f"label and {_PIXELS} pixels). Received: {size} bytes; the file "
            "is truncated or is not CIFAR-10's."
        )
    rows = np.fromfile(path, np.uint8).reshape(-1, 1 + _PIXELS)
    return _images(rows[:, 1:]), _labels(rows[:, 0], len(rows), path)


def read_python(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one Python batch: a pickled dict with `data` and `labels`.

    The pickle's instructions are followed only as far as they build dicts,
    lists, numbers, bytes and byte arrays; nothing that it names is imported.

    Returns:
        uint8 images `(n, 32, 32, 3)` and uint8 labels `(n,)`.
    """
    batch = read_pickle(path)
    if not isinstance(batch, dict):
        raise ValueError(
            f"{path} must hold a dict. Received: {type(batch).__name__}"
        )
    batch = {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in batch.items()
    }
    if not {"data", "labels"} <= batch.keys():
        raise ValueError(
            f"{path} must hold 'data' and 'labels'. Received: "
            f"{sorted(map(str, batch))}"
        )
    data = batch["data"]
    if not isinstance(data, ArrayData):
        raise ValueError(f"'data' in {path} is not an array of bytes.")
    data = data.to_numpy(path)
    if data.ndim != 2 or data.shape[1] != _PIXELS or not len(data):
        raise ValueError(
            f"'data' in {path} must have the shape (n, {_PIXELS}). Received: "
            f"shape={data.shape}"
        )
    return _images(data), _labels(batch["labels"], len(data), path)


def _images(rows):
    # Channel, then row, then column.
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)


def _labels(labels, count, path):
    if isinstance(labels, ArrayData):
        labels = labels.to_numpy(path)
    good = len(labels) == count and all(
        isinstance(x, (int, np.integer)) and 0 <= x < 10 for x in labels
    )
    if not good:
        raise ValueError(
            f"{path} must hold {count} labels from 0 to 9. Received: "
            f"{len(labels)} labels, some of them others or of another number; "
            "the file is damaged or is not CIFAR-10's."
        )
    return np.asarray(labels, np.uint8)
