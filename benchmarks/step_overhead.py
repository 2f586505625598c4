"""What the package's exact step costs over a bare Keras step; replicas.

    python -m benchmarks.step_overhead [--rounds 15] [--data-dir DIR]

The network of 128 channels of `benchmarks.training_step`. First, in one
process, the function that `fit` calls beside that of a custom `train_step` as
a Keras user would write it (`bare_step.py`): same networks, quantizer, losses,
codebook update and logged values, without the gate and the shares. Both start
from the same weights, and the run stops if their losses part. Then images a
second of 2 and 4 replicas on logical processors (`MirroredStrategy`, a process
each) beside one device; all share the same two cores.
"""

import os
import tempfile

import numpy as np

from benchmarks import timing
from benchmarks.training_step import BATCH_SIZE, NETWORKS, Worker, load_batches

TARGET_RATIO = 1.05
STEPS = 5
PROCESSES = (
    {"keras_vq": {}, "bare Keras": {"bare": True}},
    {"2 replicas": {"replicas": 2}},
    {"4 replicas": {"replicas": 4}},
)


def measure(config: dict, batches, processes, rounds: int) -> dict:
    """Seconds of a step in every round, by the name of the variant.

    Args:
        config: Dict, arguments of `keras_vq.models.VQVAE`.
        batches: Array of batches of images.
        processes: Dicts of the variants that share a process; see
            `step_worker`.
        rounds: Integer, number of rounds.
    """
    workers, owner = [], {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, variants in enumerate(processes):
                path = os.path.join(folder, f"state_{number}.npz")
                np.savez(path, images=batches)
                request = {"config": config, "path": path}
                worker = Worker("keras", {**request, "variants": variants})
                workers.append(worker)
                owner |= {name: worker for name in variants}
            check_losses(
                {name: w.run(name, 3)["losses"] for name, w in owner.items()}
            )
            tasks = {
                name: lambda n=name, w=worker: (
                    w.run(n, STEPS)["seconds"] / STEPS
                )
                for name, worker in owner.items()
            }
            return timing.interleave(tasks, rounds, pause=0.5)
        finally:
            for worker in workers:
                worker.close()


def check_losses(losses: dict):
    """Raises if a variant does not train the same model."""
    expected = losses["keras_vq"]
    for name, values in losses.items():
        if not np.allclose(values, expected, rtol=1e-2):
            raise RuntimeError(
                f"{name} computes something else: mean losses {values}, "
                f"keras_vq {expected}."
            )


def main():
    """Measures, prints and writes the JSON file."""
    parser = timing.parser(__doc__, rounds=15)
    parser.add_argument("--data-dir", default=os.environ.get("KERAS_VQ_DATA"))
    arguments = parser.parse_args()
    timing.warn_if_busy()
    seconds = measure(
        NETWORKS["128"]["config"],
        load_batches(arguments.data_dir),
        PROCESSES,
        arguments.rounds,
    )
    middle = timing.medians(seconds)
    ratio = middle["keras_vq"] / middle["bare Keras"]
    rates = {name: BATCH_SIZE / value for name, value in middle.items()}
    rates = {"1 device": rates["keras_vq"]} | {
        name: rate for name, rate in rates.items() if "replicas" in name
    }
    print(f"{ratio:.3f} x the bare step (target: at most {TARGET_RATIO})")
    for name, rate in rates.items():
        print(f"  {name:12} {rate:8.0f} images/s")
    results = {
        "median_ms": {
            name: middle[name] * 1e3 for name in ("keras_vq", "bare Keras")
        },
        "ratio": ratio,
        "target_ratio": TARGET_RATIO,
        "images_per_second": rates,
        "rounds_seconds": seconds,
    }
    timing.save("step_overhead", results, arguments.output)


if __name__ == "__main__":
    main()
