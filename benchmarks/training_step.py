"""Images a second in training, beside the same network in PyTorch.

    python -m benchmarks.training_step [--network 128|256] [--rounds 15]
        [--data-dir DIR]

One process a framework, two threads each; one works while the other waits for
its next command. Every round takes some steps of each variant, in changing
order, after a pause in which idle threads stop spinning; the median over the
rounds counts. keras_vq runs the function that `fit` calls, with the defaults
of `compile` and everything that `fit` logs. PyTorch (`torch_vqvae.py`) runs
the same network and loss, EMA codebook, Adam and logged values, but neither
keras_vq's guard against non-finite steps nor its revival of dead codes; eager
and compiled, each with contiguous and with channels-last tensors, of which the
faster counts. Both start from the same weights and codebook and see the same
batches, and the run stops if their losses part.

The batches are CIFAR-10 images where --data-dir (or KERAS_VQ_DATA) has
`cifar10/train.tfrecord`, otherwise uniform noise.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import timing

BATCH_SIZE = 128
BATCHES = 8

# The arguments of `keras_vq.models.VQVAE`, steps in each measurement.
NETWORKS = {
    "128": {
        "steps": 5,
        "config": {
            "hidden_units": 128,
            "residual_units": 32,
            "residual_blocks": 2,
            "codebook_size": 512,
            "codebook_dim": 64,
            "channels": 3,
            "bottleneck_convolutions": True,
            "use_batch_normalization": False,
            "output_activation": None,
            "inplace_relu_residual": False,
        },
    },
    "256": {
        "steps": 2,
        "config": {
            "hidden_units": 256,
            "residual_units": 256,
            "residual_blocks": 2,
            "codebook_size": 512,
            "codebook_dim": 256,
            "channels": 3,
            "bottleneck_convolutions": False,
            "use_batch_normalization": True,
            "output_activation": "tanh",
            "inplace_relu_residual": True,
        },
    },
}
# Images a second of keras_vq over those of the faster torch variant.
TARGETS = {"eager": 1.2, "compiled": 1.0}

KERAS = {"keras_vq": {}}
TORCH = {
    f"torch {mode}, {name}": {
        "memory_format": memory_format,
        "compiled": mode == "compiled",
    }
    for mode in ("eager", "compiled")
    for name, memory_format in (
        ("contiguous", "contiguous_format"),
        ("channels last", "channels_last"),
    )
}


class Worker:
    """Process of one framework; see `step_worker`."""

    def __init__(
        self,
        framework,
        request,
        module="benchmarks.step_worker",
        environment=None,
    ):
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, framework] + [json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def run(self, name, steps):
        """Takes steps; returns the dict of seconds and losses."""
        command = json.dumps({"name": name, "steps": steps})
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                "A worker ended early, with status "
                f"{self.process.wait()}. What it said is above."
            )
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def load_batches(data_dir) -> np.ndarray:
    """Float32 images in [-1, 1] of shape `(BATCHES, BATCH_SIZE, 32, 32, 3)`."""
    path = pathlib.Path(data_dir or "") / "cifar10" / "train.tfrecord"
    if data_dir and path.exists():
        from keras_vq.data import from_tfrecord

        dataset = from_tfrecord(path, image_size=32, batch_size=BATCH_SIZE)
        return np.stack([b.numpy() for b in dataset.take(BATCHES)])
    shape = (BATCHES, BATCH_SIZE, 32, 32, 3)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def _check_losses(losses: dict):
    """Raises if the frameworks do not train the same network."""
    expected = losses["keras_vq"]
    for name, values in losses.items():
        for step, (value, want) in enumerate(
            zip(values, expected, strict=True)
        ):
            # Rounding grows through Adam and through latents between codes.
            tolerance = 1e-4 if step == 0 else 1e-2
            if not abs(value / want - 1) < tolerance:
                raise RuntimeError(
                    f"{name} computes something else: mean loss {value} "
                    f"after {step + 1} steps, keras_vq {want}."
                )


def measure(network: str, batches, rounds: int) -> dict:
    """Medians, images a second and ratios of one network."""
    config, steps = NETWORKS[network]["config"], NETWORKS[network]["steps"]
    workers = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.npz")
        np.savez(path, images=batches)
        owner = {}
        try:
            # In this order: the first writes the weights the second reads.
            for framework, variants in (("keras", KERAS), ("torch", TORCH)):
                request = {"config": config, "path": path}
                worker = Worker(framework, {**request, "variants": variants})
                workers[framework] = worker
                owner |= {name: worker for name in variants}
            losses = {n: w.run(n, 3)["losses"] for n, w in owner.items()}
            _check_losses(losses)
            tasks = {
                name: lambda n=name, w=worker: (
                    w.run(n, steps)["seconds"] / steps
                )
                for name, worker in owner.items()
            }
            seconds = timing.interleave(tasks, rounds, pause=0.5)
        finally:
            for worker in workers.values():
                worker.close()
    return {
        "network": network,
        "batch_size": BATCH_SIZE,
        "steps_per_round": steps,
        "first_losses": losses,
        **_summary(seconds),
    }


def _summary(seconds: dict) -> dict:
    rates = {n: BATCH_SIZE / s for n, s in timing.medians(seconds).items()}
    ratios = {}
    for mode, target in TARGETS.items():
        peers = [n for n in rates if n.startswith(f"torch {mode}")]
        faster = max(peers, key=rates.get)
        ratios[mode] = {
            "peer": faster,
            "ratio": rates["keras_vq"] / rates[faster],
            "target_ratio": target,
        }
    return {
        "images_per_second": rates,
        "ratio": ratios,
        "rounds_seconds": {
            name: [round(s, 4) for s in values]
            for name, values in seconds.items()
        },
    }


def _print(result: dict):
    print(f"{result['network']} channels, batches of {result['batch_size']}")
    for name, rate in result["images_per_second"].items():
        print(f"  {name:30} {rate:8.0f} images/s")
    for mode, entry in result["ratio"].items():
        print(
            f"  {entry['ratio']:.2f} x {mode} torch (target "
            f"{entry['target_ratio']})"
        )


def main():
    """Measures, prints a table and writes the JSON file."""
    parser = timing.parser(__doc__, rounds=15)
    parser.add_argument("--network", choices=list(NETWORKS))
    parser.add_argument("--data-dir", default=os.environ.get("KERAS_VQ_DATA"))
    arguments = parser.parse_args()
    timing.warn_if_busy()
    networks = [arguments.network] if arguments.network else list(NETWORKS)
    batches = load_batches(arguments.data_dir)
    results = []
    for network in networks:
        results.append(measure(network, batches, arguments.rounds))
        _print(results[-1])
    timing.save("training_step", {"networks": results}, arguments.output)


if __name__ == "__main__":
    main()
