"""Trains the same model on one device and on replicas, and compares."""

import contextlib

import keras
import numpy as np
from feeding import batches


def train(make, images, strategy=None, epochs=1, optimizer=None, **compile):
    """A model trained on `images` in batches of 8; `.logs` has its history."""
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    keras.utils.set_random_seed(0)
    with scope:
        model = make()
        compile_model(model, optimizer or sgd(), **compile)
    model.start = model.get_weights()
    dataset = batches(images, size=8)
    model.logs = model.fit(
        dataset, epochs=epochs, shuffle=False, verbose=0
    ).history
    return model


def compile_model(model, optimizer="adam", **arguments):
    """Compiles any model: a discriminator gets an optimizer like its own."""
    if getattr(model, "discriminator", None) is not None:
        optimizer = keras.optimizers.get(optimizer)
        again = type(optimizer).from_config(optimizer.get_config())
        arguments["discriminator_optimizer"] = again
    model.compile(optimizer, **arguments)
    return model


def sgd():
    return keras.optimizers.SGD(0.01, momentum=0.9)


def variables(model):
    """All variables that training changes, optimizer and averages too."""
    found = [*model.variables, *model.optimizer.variables]
    if model.weight_average is not None:
        found += model.weight_average.variables
    return found


def values(model):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables(model)]


def number(variable):
    """Value of a scalar variable, which under a strategy has no `int`."""
    return keras.ops.convert_to_numpy(variable).item()


def assert_equal_training(model, expected):
    """Weights to 1e-5, codebook to 1e-3, and the same logs."""
    pairs = zip(
        variables(expected), values(expected), values(model), strict=True
    )
    for variable, want, got in pairs:
        of_codebook = "quantizer" in variable.path
        np.testing.assert_allclose(
            got,
            want,
            atol=1e-3 if of_codebook else 1e-5,
            rtol=1e-5,
            err_msg=variable.path,
        )
    assert set(model.logs) == set(expected.logs)
    for key, want in expected.logs.items():
        np.testing.assert_allclose(
            model.logs[key], want, rtol=1e-4, err_msg=key
        )


def largest_differences(model, expected) -> tuple[float, float]:
    """Largest difference of a weight, and of a variable of the codebook."""
    largest = {False: 0.0, True: 0.0}
    for variable, want, got in zip(
        variables(expected), values(expected), values(model), strict=True
    ):
        of_codebook = "quantizer" in variable.path
        difference = np.abs(got.astype("float64") - want).max()
        largest[of_codebook] = max(largest[of_codebook], float(difference))
    return largest[False], largest[True]


def assert_moved(model, distance):
    """Training was no standstill, in which all would be equal."""
    pairs = zip(model.weights, model.start, strict=True)
    for weight, start in pairs:
        if weight.name == "kernel":
            moved = np.abs(keras.ops.convert_to_numpy(weight) - start).max()
            assert moved > distance, weight.path


def assert_same_copies(model):
    """The replicas' copies of each variable are equal bit for bit."""
    compared = 0
    for variable in variables(model):
        copies = getattr(variable.value, "values", None)
        if copies is None or _is_per_replica(variable):
            continue
        for copy in copies[1:]:
            np.testing.assert_array_equal(
                copy.numpy(), copies[0].numpy(), err_msg=variable.path
            )
            compared += 1
    assert compared >= len(model.trainable_variables)


def _is_per_replica(variable):
    # Random states: each replica draws its own numbers.
    return "seed_generator" in variable.path
