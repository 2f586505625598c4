"""Compares what one device and several workers made of the same training."""

import json

import numpy as np
import workers_harness

SCRIPTS = workers_harness.ROOT / "tests" / "workers"


def train_both(folder, steps, optimizer="sgd"):
    """Results of one device and of two workers: (dict, arrays) each."""
    import training

    one = training.main(steps, optimizer, folder / "one")
    command = [str(SCRIPTS / "training.py"), str(steps), optimizer]
    many = workers_harness.run(command, folder, timeout=240)
    many = json.loads(json.dumps(many))
    return [
        (result, dict(np.load(folder / name / "arrays.npz")))
        for result, name in zip(
            [one, *many], ["one", "worker-0", "worker-1"], strict=True
        )
    ]


def largest_difference(got, want, of_codebook: bool) -> float:
    """Largest difference of a variable, of the quantizer or of the rest."""
    result, arrays = want
    differences = [0.0]
    for index, path in enumerate(result["paths"]):
        name = f"variable_{index:03}"
        if ("quantizer" in path) == of_codebook:
            difference = np.abs(
                got[1][name].astype("float64") - arrays[name]
            ).max()
            differences.append(float(difference))
    return max(differences)
