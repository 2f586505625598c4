"""From a source of images to batches.

Position p counts examples in an endless stream: epoch p // n, place p % n.
Which example stands there, where it is cropped and whether it is flipped
follow from (seed, p) alone. So any batch can be made at any time, by any
thread, and a run that starts at step n sees what a run from 0 sees there.

All of that is decided here. An engine (`tf_engine`, `grain_engine`) only
calls `load` for one step after the other, in threads of its own. Until its
batch is complete an image stays uint8; the engine then converts the batch in
one piece.
"""

import dataclasses
import itertools
import threading

import numpy as np

from keras_vq.data import engine, randomness
from keras_vq.data.bad_examples import BadExamples, Skipped, remembered_errors
from keras_vq.data.ending import comes_to_rest
from keras_vq.data.options import Options
from keras_vq.data.resize import crop_image, fit_image
from keras_vq.data.sources import (
    ArraySource,
    ImageSource,
    PartOfSource,
    Rule,
)

_ATTRIBUTE = "_keras_vq_pipeline"


class Pipeline:
    """A source and options; makes datasets, and remembers how.

    Args:
        source: An `ImageSource`.
        options: An `Options`.
    """

    def __init__(self, source: ImageSource, options: Options):
        if options.labels and not source.has_labels:
            raise ValueError(
                "`labels=True` needs a source with labels. Received: a "
                f"{type(source).__name__} without."
            )
        self.source = source
        self.options = options
        self._rule = Rule(options.channels, options.max_pixels)
        self._index, self._shards = options.shard or (0, 1)
        self._cached = [None] * len(source) if options.cache else None
        self._end = len(source)  # Of each epoch, over all shards.
        self._bad = None
        # Arrays were checked as a whole.
        if options.on_error == "skip" and not isinstance(source, ArraySource):
            self._bad = BadExamples(
                len(source), options.max_bad_fraction, source.name_of
            )
        self._orders = {}
        self._lock = threading.Lock()
        self._epochs = itertools.count()
        if self.num_examples == 0:
            raise ValueError(
                f"No example is left for shard {options.shard}. Received: "
                f"{len(source)} examples in all."
            )
        self.shape = self._find_shape()

    @property
    def num_examples(self) -> int:
        """Examples in one epoch (of this shard)."""
        return len(range(self._index, self._end, self._shards))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch, a last one that is not full included.

        With `repeat` or `drop_remainder` only full batches count, and the
        number is the same for all shards, which must step together.
        """
        size = self.options.batch_size
        if self.options.repeat or self.options.drop_remainder:
            steps = self._end // self._shards // size
            return max(steps, 1) if self.options.repeat else steps
        return -(-self.num_examples // size)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the labels 0, 1, ..., where the source knows them."""
        return self.source.class_names

    @property
    def skipped(self) -> list[Skipped]:
        """Pairs (name, reason) of the bad examples that were skipped so far.

        Each is there once, in the order of the source. Empty unless
        `on_error="skip"`.
        """
        return [] if self._bad is None else self._bad.skipped

    def start_at(self, step: int):
        """Returns the dataset that continues an endless one at `step`.

        Args:
            step: The step of the first batch, at least 0.

        Returns:
            A dataset of the same kind. It shares this pipeline's cache.
        """
        options = dataclasses.replace(self.options, start_step=step)
        return self._with(options=options).dataset()

    def with_batch_size(self, size: int) -> "Pipeline":
        """Returns a pipeline of the same examples in other batches.

        Args:
            size: Images in a batch.
        """
        options = dataclasses.replace(self.options, batch_size=size)
        return self._with(options=options)

    def first(self, count: int) -> "Pipeline":
        """Returns a pipeline whose epochs end after some examples.

        Args:
            count: How many (of this shard), at most.
        """
        end = min(self._end, self._index + count * self._shards)
        return self._with(_end=end)

    def _with(self, **changes):
        """A copy that shares source, cache and bad examples."""
        pipeline = Pipeline.__new__(type(self))
        pipeline.__dict__.update(self.__dict__, **changes)
        return pipeline

    def dataset(self):
        """Returns the dataset, of the kind that the backend takes."""
        options = self.options
        if not options.repeat and self.steps_per_epoch == 0:
            raise ValueError(
                "With `drop_remainder=True` no batch is left. Received: "
                f"batch_size={options.batch_size}, {self.num_examples} "
                "examples."
            )
        dataset = engine.make_dataset(self)
        setattr(dataset, _ATTRIBUTE, self)
        return dataset

    def begin_at_epoch(self, epoch: int) -> None:
        """Numbers the epochs of a finite dataset from here on.

        Args:
            epoch: Number of the epoch that the next new iterator gives.
        """
        self._epochs = itertools.count(epoch)

    def next_epoch(self) -> int:
        """Returns the number of the epoch that a new iterator is to give."""
        return next(self._epochs) if self.options.is_random else 0

    @property
    def fixed_size(self) -> int | None:
        """The size of every batch, or None if it differs."""
        size = self.options.batch_size
        full = self._all_full or self.num_examples % size == 0
        return size if full and not self.leaves_out else None

    def _find_shape(self):
        """Returns the shape of one image in the batch."""
        options = self.options
        channels, size = options.channels, options.image_size
        if self.source.stored_shape is not None:
            stored = self.source.stored_shape
        elif size is None:
            stored = self._or_another(self._read, self._index, True)[0].shape
        else:
            stored = (*size, 3)
        if size is None:
            size = stored[:2]
        elif options.augment == "random_resized_crop" and options.resize:
            size = (options.resize, options.resize)
        return (*size, channels or stored[2])

    def positions(self, epoch: int, step: int) -> np.ndarray:
        """Returns the places of a batch's examples in the endless stream."""
        size = self.options.batch_size
        count = len(self.source)
        local = np.arange(step * size, (step + 1) * size, dtype=np.int64)
        positions = local * self._shards + self._index
        if not self.options.repeat:
            positions = positions[positions < self._end] + epoch * count
        return positions

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Returns which examples stand at these positions."""
        count = len(self.source)
        epochs, places = np.divmod(positions, count)
        if not self.options.shuffle:
            return places
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            indices[inside] = self._order(int(epoch))[places[inside]]
        return indices

    def _order(self, epoch):
        with self._lock:
            if epoch not in self._orders:
                # The batches in flight touch two epochs at most.
                while len(self._orders) > 2:
                    del self._orders[next(iter(self._orders))]
                self._orders[epoch] = randomness.permutation(
                    self.options.seed, epoch, len(self.source)
                )
            return self._orders[epoch]

    @property
    def _all_full(self):
        return self.options.repeat or self.options.drop_remainder

    @property
    def leaves_out(self) -> bool:
        """Whether bad examples are left out, and not replaced by others."""
        return self._bad is not None and not self._all_full

    @comes_to_rest
    @remembered_errors()
    def load(self, epoch: int, step: int):
        """Makes one batch.

        Args:
            epoch: Which epoch, for a finite dataset; 0 for an endless one.
            step: Which batch, of the epoch or of the endless stream.

        Returns:
            uint8 images, int32 labels (-1 where there are none), and two
            int64 numbers that seed the augmentation of this batch.
        """
        seed = self.options.seed
        positions = self.positions(int(epoch), int(step))
        numbers = randomness.hashes(seed, randomness.AUGMENT, positions[:1])
        images, labels, positions = self._images(positions)
        if self.options.flip:
            mirrored = (
                randomness.uniform(seed, randomness.FLIP, positions) < 0.5
            )
            images[mirrored] = images[mirrored][:, :, ::-1]
        high, low = divmod(int(numbers[0]), 1 << 32)
        return images, labels, np.array([high, low], np.int64)

    def _images(self, positions):
        """Returns images, labels, and the positions where there are some."""
        source, indices = self.source, self.indices(positions)
        if isinstance(source, ArraySource) and self._fits(source.images):
            # The usual case of data in memory: one gather, no loop.
            labels = np.full(len(indices), -1, np.int32)
            if source.labels is not None:
                labels = source.labels[indices]
            return source.images[indices], labels, positions
        fill = not self.leaves_out
        examples = [
            self._or_another(self._prepared, int(index), fill)
            for index in indices
        ]
        if not fill:
            good = [example is not None for example in examples]
            examples = list(itertools.compress(examples, good))
            positions = positions[good]
        images = [image for image, _ in examples]
        size = self.shape[:2]
        if self._crops_randomly:
            where = np.stack(
                [
                    randomness.uniform(self.options.seed, stream, positions)
                    for stream in (randomness.CROP_Y, randomness.CROP_X)
                ],
                axis=1,
            )
            images = [
                crop_image(image, size, w)
                for image, w in zip(images, where, strict=True)
            ]
        labels = np.array([label for _, label in examples], np.int32)
        if not images:
            return np.empty((0, *self.shape), np.uint8), labels, positions
        return np.stack(images), labels, positions

    @property
    def _crops_randomly(self):
        return self.options.crop == "random"

    def _fits(self, images):
        return images.shape[1:] == self.shape

    def _or_another(self, read, index, fill):
        if self._bad is None:
            return read(index)
        return self._bad.read(read, index, fill)

    def _read(self, index):
        return self.source.read(index, self._rule)

    def _prepared(self, index):
        """Returns an image up to the point where chance begins."""
        if self._cached is not None and self._cached[index] is not None:
            return self._cached[index]
        image, label = self._read(index)
        name = self.source.name_of(index)
        example = fit_image(image, self.shape[:2], self.options, name), label
        if self._cached is not None:
            # Two threads may decode the same image; both get the same pixels.
            self._cached[index] = example
        return example


def pipeline_of(dataset) -> Pipeline | None:
    """Returns the pipeline behind a dataset that this package made.

    Args:
        dataset: What a `keras_vq.data.from_...` function has returned.

    Returns:
        The `Pipeline` (it has `num_examples`, `steps_per_epoch`, `skipped`,
        `class_names` and `start_at(step)`), or None for any other dataset,
        also for one that was changed after it was made (`map`, `take`, ...).

    Example:
    ```python
    dataset = keras_vq.data.from_folder("photos", image_size=64, repeat=True)
    pipeline = keras_vq.data.pipeline_of(dataset)
    model.fit(dataset, steps_per_epoch=pipeline.steps_per_epoch, epochs=10)
    resumed = pipeline.start_at(1234)
    ```
    """
    return getattr(dataset, _ATTRIBUTE, None)


def make_dataset(source: ImageSource, options: dict):
    """Returns the dataset of a source, given options by name."""
    options = Options.from_kwargs(options)
    if options.subset is not None:
        source = PartOfSource(source, *options.subset)
    return Pipeline(source, options).dataset()
