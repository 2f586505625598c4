"""Everything that the next training step depends on, in one place."""

import random

import keras
import numpy as np
from keras import ops


def training_variables(model) -> dict[str, list]:
    """All variables that training changes, by group, in a fixed order.

    Args:
        model: A compiled model.

    Returns:
        A dict of lists of `keras.Variable`: `"model"` (weights, batch
        statistics, codebook, counters, random states of layers),
        `"optimizer"`, `"average"` (empty without `weight_ema`) and
        `"metrics"`.
    """
    metrics = {id(v) for v in model.metrics_variables}
    average = model.weight_average
    return {
        "model": [v for v in model.variables if id(v) not in metrics],
        "optimizer": list(model.optimizer.variables),
        "average": list(average.variables) if average is not None else [],
        "metrics": list(model.metrics_variables),
    }


def start_generators() -> None:
    """Makes Keras' global random generator, which else its first use makes.

    It starts from a number that it takes from Python's generator. If that
    happened in `read_state`, the numbers that follow would depend on when the
    first checkpoint was written.
    """
    _global_generator()


def read_state(model) -> tuple[dict[str, np.ndarray], dict]:
    """Copies everything that the next step depends on.

    Nothing of this needs the other processes of a training with several.

    Args:
        model: A compiled model.

    Returns:
        Arrays by name, and what else there is as JSON can hold it: the state
        of Python's and NumPy's global generators.
    """
    arrays = {name: _value(v) for name, v in _named_variables(model).items()}
    for index, metric in enumerate(training_variables(model)["metrics"]):
        # Each replica sums by itself, so every copy counts.
        arrays[f"metrics/{index}"] = np.stack(
            [_value(c) for c in _copies(metric)]
        )
    kind, keys, *rest = np.random.get_state()
    arrays["random/numpy"] = keys
    version, numbers, gauss = random.getstate()
    arrays["random/python"] = np.array(numbers, np.uint64)
    return arrays, {"numpy": [kind, *rest], "python": [version, gauss]}


def write_state(model, arrays: dict[str, np.ndarray], generators: dict) -> None:
    """Puts a model into a state that `read_state` gave.

    Args:
        model: A compiled model like the one that was read; the number of
            replicas may differ.
        arrays: The arrays of `read_state`.
        generators: The generators of `read_state`.

    Raises:
        ValueError: If the model has other variables. Nothing is changed then.
    """
    targets = _named_variables(model)
    _check(targets, len(model.metrics_variables), arrays)
    for name, variable in targets.items():
        variable.assign(ops.convert_to_tensor(arrays[name]))
    write_metrics(model, arrays)
    kind, *rest = generators["numpy"]
    np.random.set_state((kind, arrays["random/numpy"], *rest))
    version, gauss = generators["python"]
    numbers = tuple(int(n) for n in arrays["random/python"])
    random.setstate((version, numbers, gauss))


def write_metrics(model, arrays: dict[str, np.ndarray]) -> None:
    """Puts the metrics of a model into a state that `read_state` gave.

    Args:
        model: As for `write_state`.
        arrays: The arrays of `read_state`.
    """
    for index, metric in enumerate(training_variables(model)["metrics"]):
        copies = _copies(metric)
        values = _for_replicas(arrays[f"metrics/{index}"], len(copies))
        for copy, value in zip(copies, values, strict=True):
            copy.assign(ops.convert_to_tensor(value))


def _named_variables(model):
    """Variables that are alike on all replicas, by their names in a file."""
    groups = training_variables(model)
    del groups["metrics"]
    found = {
        f"{group}/{index}": variable
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }
    return {**found, "random/keras": _global_generator().state}


def _global_generator():
    # That behind `keras.random` calls without a seed. Keras names it nowhere
    # in public.
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator()


def _value(variable):
    return ops.convert_to_numpy(variable)


def _copies(variable):
    """The copies of a variable on the replicas of this process."""
    copies = getattr(variable.value, "values", None)
    return [variable] if copies is None else list(copies)


def _for_replicas(stored, replicas):
    """The sums of some replicas as those of another number of replicas."""
    if len(stored) == replicas:
        return stored
    total = stored.sum(axis=0, dtype=stored.dtype)
    return [total] + [np.zeros_like(total)] * (replicas - 1)


def _check(targets, metrics, arrays):
    expected = {
        name: (tuple(v.shape), keras.backend.standardize_dtype(v.dtype))
        for name, v in targets.items()
    }
    found = {
        name: (array.shape, array.dtype.name)
        for name, array in arrays.items()
        if name.startswith(("model/", "optimizer/", "average/"))
        or name in targets
    }
    problems = [
        f"{name}: {expected.get(name, 'none')} in the model, "
        f"{found.get(name, 'none')} in the checkpoint"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    stored = sum(name.startswith("metrics/") for name in arrays)
    if stored != metrics:
        problems.append(f"{metrics} metric variables, {stored} stored")
    if problems:
        raise ValueError(
            "The checkpoint is of another model, or of one that was compiled "
            "with other arguments. Build and compile the model as in the run "
            "that wrote it, or start in an empty directory. Received: "
            f"{'; '.join(problems[:5])} ({len(problems)} differences)."
        )
