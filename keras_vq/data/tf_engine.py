"""Runs a pipeline in tf.data's threads."""

import numpy as np


def make_dataset(pipeline):
    """Returns the `tf.data.Dataset` of a `Pipeline`'s batches."""
    import tensorflow as tf

    dataset = load(pipeline, steps(pipeline))
    if pipeline.leaves_out:
        # No batch without a single image; so the count is not known.
        dataset = dataset.filter(lambda images, *_: tf.shape(images)[0] > 0)
    dataset = finish(pipeline, dataset)
    if not pipeline.options.repeat and not pipeline.leaves_out:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(pipeline.steps_per_epoch)
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def steps(pipeline):
    """Returns a dataset of the pairs (epoch, step)."""
    import tensorflow as tf

    options, zero = pipeline.options, np.int64(0)
    if options.repeat:
        endless = tf.data.Dataset.range(
            options.start_step, np.iinfo(np.int64).max
        )
        return endless.map(lambda step: (zero, step))
    count = pipeline.steps_per_epoch
    if not options.is_random:
        return tf.data.Dataset.range(count).map(lambda step: (zero, step))

    # Every new iterator asks once, and gets the next epoch's number.
    def next_epoch(_):
        epoch = tf.numpy_function(
            lambda: np.int64(pipeline.next_epoch()), [], tf.int64
        )
        return tf.ensure_shape(epoch, ())

    def steps_of(epoch):
        return tf.data.Dataset.range(count).map(lambda step: (epoch, step))

    return tf.data.Dataset.range(1).map(next_epoch).flat_map(steps_of)


def load(pipeline, dataset):
    """Returns uint8 images, labels and seeds for pairs (epoch, step)."""
    import tensorflow as tf

    size = pipeline.fixed_size

    def load_one(epoch, step):
        # Stateless for TensorFlow: the result follows from the arguments,
        # so that determinism settings need not make this map serial.
        images, labels, seeds = tf.numpy_function(
            pipeline.load,
            [epoch, step],
            [tf.uint8, tf.int32, tf.int64],
            stateful=False,
        )
        images = tf.ensure_shape(images, (size, *pipeline.shape))
        labels = tf.ensure_shape(labels, (size,))
        return images, labels, tf.ensure_shape(seeds, (2,))

    return dataset.map(load_one, num_parallel_calls=tf.data.AUTOTUNE)


def finish(pipeline, dataset):
    """Augments whole batches, and converts them to [-1, 1]."""
    import tensorflow as tf

    options = pipeline.options
    augment, parallel = None, tf.data.AUTOTUNE
    if options.augment is not None:
        from keras_vq.data.augment import make_augmentation

        augment, stateless = make_augmentation(options, pipeline.shape)
        # What hides a state is at least not left to the threads' timing.
        parallel = parallel if stateless else None

    def finish_one(images, labels, seeds):
        images = tf.cast(images, tf.float32)
        if augment is not None:
            images = augment(images, seeds)
        images = images / 127.5 - 1.0
        return (images, labels) if options.labels else images

    return dataset.map(finish_one, num_parallel_calls=parallel)
