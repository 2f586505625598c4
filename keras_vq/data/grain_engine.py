"""Runs a pipeline in grain's threads, for Keras on other backends.

This module is imported where grain is used, and nowhere else.
"""

import os
import threading

import grain
import keras
import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

# Each reads, decodes and resizes one batch at a time.
_THREADS = min(os.cpu_count() or 1, 16)


def make_dataset(pipeline):
    """Returns the batches of a `Pipeline`."""
    return Batches(pipeline)


class Batches(grain.IterDataset, DataAdapter):
    """Batches as NumPy arrays, for `fit` and for loops.

    A `grain.IterDataset`, so that grain's own transformations follow on it
    (`map`, `filter`, ...; `len` and what `pipeline_of` knows is lost then).
    To Keras it is its own adapter: Keras' adapter for grain does not know the
    number of batches, and would make two of them to look at their shape.

    Args:
        pipeline: The `Pipeline`.
        most: Batches after which an iterator over an endless pipeline ends.
    """

    def __init__(self, pipeline, most: int | None = None):
        super().__init__()
        self._pipeline = pipeline
        self._most = most
        self._augment, self._threads = None, _THREADS
        self._shape = pipeline.shape
        if pipeline.options.augment is not None:
            self._prepare_augmentation()

    def _prepare_augmentation(self):
        from keras_vq.data.augment_eagerly import make_augmentation

        pipeline = self._pipeline
        self._augment, stateless, self._shape = make_augmentation(
            pipeline.options, pipeline.shape
        )
        # What hides a state is at least not left to the threads' timing.
        self._threads = _THREADS if stateless else 1

    def __iter__(self):
        pipeline, options = self._pipeline, self._pipeline.options
        first, epoch, lock = options.start_step, [], threading.Lock()
        count = self._most if options.repeat else pipeline.steps_per_epoch

        def batch(number):
            # Not before: Keras makes iterators that it never uses, and the
            # shuffling of what follows would depend on them.
            with lock:
                if not epoch:
                    epoch.append(pipeline.next_epoch())
            return self._finished(*pipeline.load(epoch[0], first + number))

        endless = np.iinfo(np.int64).max - first
        batches = grain.MapDataset.range(endless if count is None else count)
        # Batches without an image are None, which are left out here.
        batches = batches.map(batch).to_iter_dataset(
            grain.ReadOptions(self._threads, self._threads)
        )
        return iter(batches)

    def _finished(self, images, labels, seeds):
        """Augments a whole batch, and converts it to [-1, 1]."""
        if not len(images):
            return None
        images = images.astype(np.float32)
        if self._augment is not None:
            images = self._augment(images, seeds)
        images = images / np.float32(127.5) - np.float32(1)
        return (images, labels) if self._pipeline.options.labels else images

    def take(self, count: int) -> "Batches":
        """Returns the first batches alone.

        Args:
            count: How many; there may be fewer.
        """
        pipeline = self._pipeline
        if not pipeline.options.repeat:
            return Batches(pipeline.first(count * self.batch_size))
        most = count if self._most is None else min(count, self._most)
        return Batches(pipeline, most)

    def rebatch(self, size: int) -> "Batches":
        """Returns the same images in other batches.

        Args:
            size: Images in a batch.
        """
        if self._pipeline.options.repeat:
            raise ValueError(
                "Only finite data sets can be given another batch size."
            )
        return Batches(self._pipeline.with_batch_size(size))

    def __len__(self):
        if self.num_batches is None:
            raise TypeError("The number of batches is infinite or not known.")
        return self.num_batches

    def __bool__(self):
        return True

    @property
    def element_spec(self):
        """Shape and dtype of a batch; None is a size that differs."""
        size = self._pipeline.fixed_size
        images = keras.KerasTensor((size, *self._shape), "float32")
        if not self._pipeline.options.labels:
            return images
        return images, keras.KerasTensor((size,), "int32")

    # What Keras asks an adapter.

    @property
    def num_batches(self):
        """Number of batches, or None."""
        if self._pipeline.leaves_out:
            return None
        if self._pipeline.options.repeat:
            return self._most
        return self._pipeline.steps_per_epoch

    @property
    def batch_size(self):
        """Images in a batch that is full."""
        return self._pipeline.options.batch_size

    @property
    def has_partial_batch(self):
        """Whether the last batch is not full, or None."""
        if self._pipeline.leaves_out:
            return None
        return bool(self.partial_batch_size)

    @property
    def partial_batch_size(self):
        """Images in a last batch that is not full, or None."""
        pipeline = self._pipeline
        if pipeline.fixed_size or pipeline.leaves_out:
            return None
        return pipeline.num_examples % self.batch_size or None

    def get_numpy_iterator(self):
        """What a backend without tensors of its own iterates over."""
        return self

    def get_jax_iterator(self):
        """What JAX iterates over."""
        return self

    def get_torch_dataloader(self):
        """What PyTorch iterates over."""
        import torch.utils.data

        class Iterable(torch.utils.data.IterableDataset):
            def __iter__(iterable):  # noqa: N805
                return iter(self)

        return torch.utils.data.DataLoader(Iterable(), batch_size=None)
