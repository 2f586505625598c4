"""Which part of the data each of several workers reads.

Left to itself, TensorFlow lets every worker read and decode whole batches, of
which it keeps its own part; and what each worker shuffles by itself overlaps
with what the others have, without a word.
"""

import contextlib
import functools
import itertools
import math
import warnings
import zlib

import keras
import numpy as np

from keras_vq.trainers import checks, workers


def fit(model, keras_fit, x=None, y=None, batch_size=None, **arguments):
    """Calls Keras' `fit` with this worker's part of the data.

    All workers start from the weights of the chief.

    Args:
        model: The model.
        keras_fit: `keras.Model.fit`, bound to the model.
        x: Data as the method takes it.
        y: Not used by the models of this package.
        batch_size: Integer, images a step over all replicas, for arrays.
        **arguments: Further arguments of the method.

    Returns:
        What the method returns.
    """
    strategy = workers.strategy_of(model)
    if not workers.is_multi_worker(strategy):
        with _built_from_one_part(model):
            return keras_fit(x, y, batch_size=batch_size, **arguments)
    size = batch_size or 32
    split = arguments.pop("validation_split", 0.0)
    validation = arguments.get("validation_data")
    if isinstance(validation, (tuple, list)):
        validation = validation[0]
    if split and validation is None and _is_array(x):
        count = math.floor(len(x) * (1 - split))
        x, validation = x[:count], x[count:]
    x = _part(x, size, arguments.get("shuffle", True), strategy)
    if validation is not None:
        size = arguments.get("validation_batch_size") or size
        arguments["validation_data"] = _part(validation, size, False, strategy)
    workers.share(_variables(model), strategy)
    with _built_from_one_part(model):
        result = keras_fit(x, **arguments)
    workers.leave_together(strategy)
    return result


def evaluate(
    model, keras_evaluate, x=None, y=None, batch_size=None, *rest, **arguments
):
    """Calls Keras' `evaluate` with this worker's part of the data.

    Args:
        model: The model.
        keras_evaluate: `keras.Model.evaluate`, bound to the model.
        x: Data as the method takes it.
        y: Not used by the models of this package.
        batch_size: Integer, images a step over all replicas, for arrays.
        *rest: Further arguments of the method.
        **arguments: Further arguments of the method.

    Returns:
        What the method returns.
    """
    strategy = workers.strategy_of(model)
    # The validation in `fit` has its part already.
    inside = arguments.get("_use_cached_eval_dataset")
    if inside or not workers.is_multi_worker(strategy):
        with _built_from_one_part(model):
            return keras_evaluate(x, y, batch_size, *rest, **arguments)
    x = _part(x, batch_size or 32, False, strategy)
    with _built_from_one_part(model):
        result = keras_evaluate(x, None, None, *rest, **arguments)
    workers.leave_together(strategy)
    return result


def _variables(model):
    """What a step changes, but for random states, each worker's own."""
    average = model.weight_average
    return [
        *model.weights,
        *model.optimizer.variables,
        *(average.variables if average is not None else []),
    ]


@contextlib.contextmanager
def _built_from_one_part(model):
    """Context in which Keras looks at one replica's part of the first batch.

    It would take the mean of the parts of all replicas, only to know the shape
    of an image, and fails where they differ in size.
    """
    strategy = workers.strategy_of(model)
    replicas = getattr(strategy, "num_replicas_in_sync", 1)
    if replicas == 1 or "_maybe_symbolic_build" in vars(model):
        yield
        return

    def build(iterator=None, data_batch=None):
        for _, _, batches in iterator or ():
            data_batch = keras.tree.map_structure(symbol, next(batches))
            break
        with strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    def symbol(value):
        value = strategy.experimental_local_results(value)[0]
        shape = (None, *value.shape[1:])
        return keras.KerasTensor(shape, value.dtype.name)

    model._maybe_symbolic_build = build
    try:
        yield
    finally:
        del model._maybe_symbolic_build


def _is_array(x):
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _part(x, batch_size, shuffle, strategy):
    """This worker's part of the data, for Keras to take as it is."""
    import tensorflow as tf

    from keras_vq.data.pipeline import pipeline_of

    gather = functools.partial(workers.gather, model=strategy)
    if _is_array(x):
        part = functools.partial(
            _part_of_array, np.asarray(x), batch_size, shuffle, gather
        )
    elif isinstance(x, tf.data.Dataset) and pipeline_of(x) is not None:
        from keras_vq.data.worker_pipeline import part_of_worker

        part = functools.partial(part_of_worker, x, gather=gather)
    else:
        _check(x, shuffle, gather)
        return x
    steps = []

    def make(context):
        dataset, count = part(context=context)
        steps.append(count)
        return dataset

    distributed = strategy.distribute_datasets_from_function(make)
    if steps[0] is not None:
        # Keras counts steps by it, and it counts parts.
        distributed._cardinality = np.int64(steps[0])
    return distributed


def _part_of_array(images, batch_size, shuffle, gather, context):
    """Part of an array that every worker holds as a whole."""
    import tensorflow as tf

    from keras_vq.data.randomness import permutation

    seed = np.random.default_rng().integers(2**31)
    checksum = zlib.crc32(np.ascontiguousarray(images[:1]).tobytes()) >> 1
    facts = gather([len(images), checksum, int(seed)])
    if len({tuple(fact[:2]) for fact in facts}) > 1:
        raise ValueError(
            "The workers train on different arrays: every one must be given "
            "the whole array, of which it takes its part. Received: "
            f"{len(images)} images here; on the workers "
            f"{[fact[0] for fact in facts]}."
        )
    seed, count = facts[0][2], len(images)
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local
    steps = -(-count // batch_size)
    epochs = itertools.count()

    def parts_of_epoch():
        order = np.arange(count)
        if shuffle:
            order = permutation(seed, next(epochs), count)
        for start in range(0, count, batch_size):
            batch = order[start : start + batch_size]
            parts = np.array_split(batch, replicas)
            yield from (images[p] for p in parts[first : first + local])

    spec = tf.TensorSpec((None, *images.shape[1:]), images.dtype)
    dataset = tf.data.Dataset.from_generator(
        parts_of_epoch, output_signature=spec
    )
    return dataset.prefetch(tf.data.AUTOTUNE), steps


def _check(x, shuffle, gather):
    """Looks at data that TensorFlow itself distributes."""
    if isinstance(x, keras.utils.PyDataset):
        if shuffle:
            raise ValueError(
                "Keras would shuffle a PyDataset in a different order on each "
                "worker. Shuffle in the PyDataset, from a fixed seed, and "
                "call `fit(..., shuffle=False)`. Received: shuffle=True"
            )
        return
    if not checks.is_dataset(x):
        return
    import tensorflow as tf

    policy = x.options().experimental_distribute.auto_shard_policy
    if policy == tf.data.experimental.AutoShardPolicy.OFF:
        return
    batch = checks.first_batch(x)
    batch = keras.ops.convert_to_numpy(batch)
    checksums = gather([zlib.crc32(batch.tobytes()) >> 1])
    if len({checksum for (checksum,) in checksums}) > 1:
        warnings.warn(
            "The first batch of the data set differs between the workers, "
            "each of which keeps its part of what should be the same batches: "
            "images would be missed and others taken twice. Give `shuffle` a "
            "seed, or shard the data set by hand and set "
            "`tf.data.experimental.AutoShardPolicy.OFF`.",
            stacklevel=5,
        )
