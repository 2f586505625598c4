"""Trains the same on one device and on two workers, and compares."""

import importlib.util

import keras
import numpy as np
import workers_harness

SCRIPT = workers_harness.ROOT / "tests" / "workers" / "training.py"


def train_both(folder, steps, optimizer="sgd", kind="autoencoder", timeout=400):
    """What one device and two workers made: a result and arrays each."""
    spec = importlib.util.spec_from_file_location("training_worker", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # The names of layers count from the start, as in the workers.
    keras.backend.clear_session()
    one = script.main(steps, optimizer, kind, folder / "one")
    command = [str(SCRIPT), str(steps), optimizer, kind]
    many = workers_harness.run(command, folder, timeout=timeout)
    names = ["one", "worker-0", "worker-1"]
    return [
        (result, dict(np.load(folder / name / "arrays.npz")))
        for result, name in zip([one, *many], names, strict=True)
    ]


def largest_difference(got, want, of_codebook: bool) -> float:
    """Largest difference of a variable, of the quantizer or of the rest."""
    differences = []
    for index, path in enumerate(want[0]["paths"]):
        if ("quantizer" in path) == of_codebook:
            name = f"variable_{index:03}"
            difference = got[1][name].astype("float64") - want[1][name]
            differences.append(float(np.abs(difference).max()))
    return max(differences)


def assert_equal(got, want):
    """Weights to 1e-5, codebook to 1e-3, logs, predictions, and files."""
    result, arrays = want
    assert got[0]["paths"] == result["paths"]
    # Ten times what may differ.
    assert result["moved"] > 1e-4
    assert largest_difference(got, want, of_codebook=False) <= 1e-5
    assert largest_difference(got, want, of_codebook=True) <= 1e-3
    for kind in ("logs", "evaluate", "evaluate_array"):
        assert set(got[0][kind]) == set(result[kind])
        for name, value in result[kind].items():
            np.testing.assert_allclose(
                got[0][kind][name], value, rtol=1e-4, err_msg=name
            )
    np.testing.assert_allclose(got[1]["predict"], arrays["predict"], atol=1e-5)
    # The file that was read goes on like the model that was written.
    for name in got[1]:
        if name.startswith("after_0"):
            other = name.replace("after_0", "after_1")
            np.testing.assert_array_equal(got[1][name], got[1][other])
