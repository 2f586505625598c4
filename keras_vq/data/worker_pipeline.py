"""The part of each batch that one of several workers reads and decodes."""

import dataclasses
import itertools
import zlib

import numpy as np

from keras_vq.data import tf_engine
from keras_vq.data.pipeline import Pipeline, pipeline_of


class WorkerPipeline(Pipeline):
    """A pipeline whose batches are divided over replicas.

    Every replica of every worker gets one consecutive part of each batch;
    together they are the batch that one device would get, image for image.
    A worker reads the parts of its own replicas alone. Where a batch has
    fewer images than there are replicas, some parts are empty.

    Args:
        pipeline: The `Pipeline` of whole batches.
        own: Range of the replicas of this worker.
        replicas: Integer, number of replicas of all workers.
        first_epoch: Integer, the epoch that the first iterator gives, the
            same on all workers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        own: range,
        replicas: int,
        first_epoch: int = 0,
    ):
        # Cache and source are shared with the whole pipeline.
        self.__dict__.update(pipeline.__dict__)
        self._own, self._replicas = own, replicas
        self._epochs = itertools.count(first_epoch)

    def positions(self, epoch: int, step: int) -> np.ndarray:
        # A step of a worker's dataset is one part of a step of the training.
        step, replica = divmod(step, self._replicas)
        whole = super().positions(epoch, step)
        return np.array_split(whole, self._replicas)[replica]

    def load(self, epoch: int, step: int):
        if len(self.positions(int(epoch), int(step))):
            return super().load(epoch, step)
        images = np.zeros((0, *self.shape), np.uint8)
        return images, np.zeros(0, np.int32), np.zeros(2, np.int64)

    def dataset(self):
        """Returns the `tf.data.Dataset` of this worker's parts, in order."""
        import tensorflow as tf

        own = np.array(self._own, np.int64)

        def parts_of(epoch, step):
            parts = tf.data.Dataset.from_tensor_slices(own)
            return parts.map(lambda p: (epoch, step * self._replicas + p))

        dataset = tf_engine.steps(self).flat_map(parts_of)
        dataset = self._finished(tf, tf_engine.load(self, dataset))
        if not self.options.repeat:
            count = self.steps_per_epoch * len(own)
            dataset = dataset.apply(
                tf.data.experimental.assert_cardinality(count)
            )
        return dataset.prefetch(tf.data.AUTOTUNE)

    @property
    def fixed_size(self):
        size, rest = divmod(self.options.batch_size, self._replicas)
        full = self.options.repeat or self.options.drop_remainder
        return None if rest or not full else size

    def _finished(self, tf, dataset):
        """Like that of whole batches, which are never empty."""
        if self.options.augment is None:
            return tf_engine.finish(self, dataset)
        options, wants_labels = self.options, self.options.labels

        def pad(images, labels, seeds):
            missing = tf.maximum(1 - tf.shape(images)[0], 0)
            rest = [[0, 0]] * (len(images.shape) - 1)
            return tf.pad(images, [[0, missing], *rest]), labels, seeds

        def cut(images, labels):
            images = images[: tf.shape(labels)[0]]
            return (images, labels) if wants_labels else images

        # The labels say how many images there are.
        self.options = dataclasses.replace(options, labels=True)
        try:
            dataset = tf_engine.finish(self, dataset.map(pad))
        finally:
            self.options = options
        return dataset.map(cut)


def part_of_worker(dataset, context, gather):
    """Returns this worker's part of a dataset that this package made.

    Args:
        dataset: The dataset of whole batches, or, made with `shard=`, of the
            batches of this worker.
        context: The `tf.distribute.InputContext` of this worker.
        gather: Function from a list of integers below 2**31 to the lists of
            all workers.

    Returns:
        Tuple of the `tf.data.Dataset`, with one element for each replica of
        this worker and step, and the number of steps (None for endless ones).

    Raises:
        ValueError: If the workers were given different data or options.
    """
    pipeline = pipeline_of(dataset)
    shard = pipeline.options.shard or (-1, 0)
    facts = gather([_fingerprint(pipeline), *shard, next(pipeline._epochs)])
    if len({fact[0] for fact in facts}) > 1:
        raise ValueError(
            "The workers train on different data: every one must be given the "
            "same source with the same options, of which it then reads its "
            f"own part. Received: {len(pipeline.source)} examples here, and "
            f"{_describe(pipeline)}. Where each worker has files of its own, "
            "use `dataset.with_options` with "
            "`tf.data.experimental.AutoShardPolicy.OFF`."
        )
    workers = context.num_input_pipelines
    local = context.num_replicas_in_sync // workers
    own = range(local)
    replicas = local
    if pipeline.options.shard is None:
        first = context.input_pipeline_id * local
        own = range(first, first + local)
        replicas = context.num_replicas_in_sync
    shards = [(index, count) for _, index, count, _ in facts]
    by_hand = [(index, workers) for index in range(workers)]
    if sorted(shards) not in ([(-1, 0)] * workers, by_hand):
        raise ValueError(
            "Either no worker is given a `shard`, and each reads its part of "
            f"every batch, or each its own, of {workers}. Received: shards "
            f"{shards}"
        )
    part = WorkerPipeline(pipeline, own, replicas, first_epoch=facts[0][-1])
    steps = None if pipeline.options.repeat else pipeline.steps_per_epoch
    return part.dataset(), steps


def _fingerprint(pipeline) -> int:
    facts = f"{len(pipeline.source)} {_describe(pipeline)}"
    return zlib.crc32(facts.encode()) >> 1


def _describe(pipeline) -> str:
    options = dataclasses.asdict(
        dataclasses.replace(pipeline.options, shard=None, augment=None)
    )
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
