"""Data sets of the tests, of the kind that each backend has."""

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches of arrays in their order.

    Args:
        arrays: List of arrays of the same length: images, and maybe labels.
        size: Integer, images of a batch.
    """

    def __init__(self, arrays, size):
        super().__init__()
        self.arrays = arrays
        self.size = size

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        batch = tuple(array[rows] for array in self.arrays)
        return batch if len(batch) > 1 else batch[0]


def batches(*arrays, size):
    """A `tf.data.Dataset` on TensorFlow, elsewhere a `PyDataset`."""
    arrays = [np.asarray(array) for array in arrays]
    if keras.backend.backend() != "tensorflow":
        return Batches(arrays, size)
    import tensorflow as tf

    data = arrays[0] if len(arrays) == 1 else tuple(arrays)
    return tf.data.Dataset.from_tensor_slices(data).batch(size)
