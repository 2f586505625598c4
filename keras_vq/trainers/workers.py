"""Training by several processes, under `MultiWorkerMirroredStrategy`.

Everything that Keras or TensorFlow does not do right, or not at all, when
each host runs a process of its own is in this module. With one process every
function here does nothing.
"""

import contextlib
import functools

import keras
import numpy as np

from keras_vq.trainers.lost_workers import lost_worker_named


def is_multi_worker(strategy) -> bool:
    """Whether this process is one of several that train together.

    Args:
        strategy: A `tf.distribute.Strategy` or None.
    """
    extended = getattr(strategy, "extended", None)
    in_multi_worker_mode = getattr(extended, "_in_multi_worker_mode", None)
    return bool(in_multi_worker_mode and in_multi_worker_mode())


def is_chief(model=None) -> bool:
    """Whether this process is the one that writes files.

    Args:
        model: The model in training, or a `tf.distribute.Strategy`, or None
            for the strategy in scope.

    Returns:
        True in a training with one process, and in the first process of a
        training with several.
    """
    strategy = _strategy_of(model)
    if strategy is not None:
        return bool(strategy.extended.should_checkpoint)
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index() == 0
    return True


def broadcast(values: list, model=None) -> list[np.ndarray]:
    """The chief's values, on all workers.

    All workers must call it at the same point of the program, with arrays of
    the same shapes and dtypes; what the others hold in them is not looked at.
    The values arrive bit by bit, NaN and -0.0 too.

    Args:
        values: List of arrays of any fixed-size dtype.
        model: The model in training, or a `tf.distribute.Strategy`, or None
            for the strategy in scope.

    Returns:
        List of arrays like `values`; with one process these themselves.
    """
    strategy = _strategy_of(model)
    values = [np.asarray(value) for value in values]
    if not is_multi_worker(strategy):
        return values
    # As integers, because a sum of floats loses the sign of -0.0.
    sent = b"".join(value.tobytes() for value in values)
    size = len(sent)
    words = np.frombuffer(sent + bytes(-size % 4), "int32")
    if not is_chief(strategy):
        words = np.zeros_like(words)
    received = _sum_over_workers(words, strategy).tobytes()[:size]
    result, start = [], 0
    for value in values:
        end = start + value.nbytes
        array = np.frombuffer(received[start:end], value.dtype)
        result.append(array.reshape(value.shape).copy())
        start = end
    return result


def chief_says(answer: bool, model=None) -> bool:
    """The chief's answer, on all workers, so that they take the same way."""
    return bool(broadcast([np.bool_(answer)], model)[0])


def share(variables: list, model=None) -> None:
    """Gives variables the chief's values, on all workers.

    Args:
        variables: List of `keras.Variable`, the same on all workers.
        model: The model in training, or a `tf.distribute.Strategy`, or None
            for the strategy in scope.
    """
    if not is_multi_worker(_strategy_of(model)):
        return
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    received = broadcast(values, model)
    if not is_chief(model):
        for variable, value in zip(variables, received, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def alone(model):
    """Context in which one worker can read all variables without the others.

    The sums that metrics keep are added up over the workers when they are
    read, so that a worker that saves by itself would wait for ever. In here
    it reads its own part.

    Args:
        model: The model, or a `tf.distribute.Strategy`.
    """
    strategy = _strategy_of(model)
    if not is_multi_worker(strategy):
        yield
        return
    import tensorflow as tf

    own, tasks = tasks_of(strategy)
    first = list(tasks).index(own) * len(strategy.extended.worker_devices)
    with tf.distribute.ReplicaContext(strategy, first):
        yield


def leave_together(model=None) -> None:
    """Waits until all workers have come here.

    One that ends its process while another is still saving would look like
    one that died.

    Args:
        model: The model in training, or a `tf.distribute.Strategy`, or None
            for the strategy in scope.
    """
    broadcast([np.int32(0)], model)


def gather(numbers: list, model=None) -> list[list[int]]:
    """The numbers of all workers, the chief's first.

    All workers must call it at the same point of the program.

    Args:
        numbers: List of integers of 32 bits, equally many on all workers.
        model: The model in training, or a `tf.distribute.Strategy`, or None
            for the strategy in scope.

    Returns:
        List with the list of each worker.
    """
    strategy = _strategy_of(model)
    if not is_multi_worker(strategy):
        return [list(numbers)]
    own, tasks = tasks_of(strategy)
    table = np.zeros((len(tasks), len(numbers)), "int32")
    table[list(tasks).index(own)] = numbers
    return _sum_over_workers(table, strategy).tolist()


def tasks_of(strategy) -> tuple[str, dict]:
    """Which worker this is, and the addresses of all, the chief first.

    Args:
        strategy: A `tf.distribute.MultiWorkerMirroredStrategy`.

    Returns:
        Name of this worker, such as `"worker 1"`, and dict of addresses by
        name.
    """
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    tasks = {
        f"{job} {index}": address
        for job in ("chief", "worker")
        for index, address in enumerate(jobs.get(job, []))
    }
    return f"{resolver.task_type} {resolver.task_id}", tasks


def reducible(logs: dict) -> dict:
    """Logs of one step, in the form that Keras can reduce over workers.

    With several workers Keras takes the mean over the first axis of each log,
    which a scalar does not have, and `fit` and `evaluate` fail. This is the
    only place that knows. Called in the step, on each replica.

    Args:
        logs: Dict of scalar tensors.

    Returns:
        Dict of tensors of shape `(1,)`; with one process `logs` themselves.
    """
    if not is_multi_worker(_strategy_of(None)):
        return logs
    return {k: keras.ops.expand_dims(v, 0) for k, v in logs.items()}


def strategy_of(model):
    """The `tf.distribute.Strategy` of a model; None on other backends."""
    return getattr(model, "distribute_strategy", None)


def names_lost_workers(method):
    """Decorator of a model's method that runs on all workers together.

    See `keras_vq.trainers.lost_workers.lost_worker_named`.
    """

    @functools.wraps(method)
    def wrapper(model, *args, **kwargs):
        if keras.backend.backend() != "tensorflow":
            return method(model, *args, **kwargs)
        with lost_worker_named(model.distribute_strategy):
            return method(model, *args, **kwargs)

    return wrapper


def _strategy_of(model):
    if model is not None:
        return getattr(model, "distribute_strategy", None) or (
            model if hasattr(model, "extended") else None
        )
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy()


def _sum_over_workers(array: np.ndarray, strategy) -> np.ndarray:
    """Sum of the workers' int32 arrays."""
    result = _reduction(strategy)(array.reshape(-1))
    result = strategy.experimental_local_results(result)[0].numpy()
    return result.reshape(array.shape)


@functools.lru_cache(maxsize=1)
def _reduction(strategy):
    """Function that sums a list of numbers; made once, or TensorFlow warns."""
    import tensorflow as tf

    def in_replica(array):
        # Each worker counts once, whatever number of replicas it has.
        context = tf.distribute.get_replica_context()
        local = len(strategy.extended.worker_devices)
        first = context.replica_id_in_sync_group % local == 0
        array = tf.where(first, array, tf.zeros_like(array))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, array)

    # Of unknown length, so that one trace serves all.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def reduce(array):
        return strategy.run(in_replica, args=(array,))

    return reduce
