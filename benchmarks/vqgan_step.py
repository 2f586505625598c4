"""VQGAN's training step and encode, beside diffusers' VQModel in PyTorch.

    python -m benchmarks.vqgan_step [--rounds 7] [--compiled] [--format FORMAT]
        [--data-dir DIR] [--size 256] [--batch-size 2]

The network of the original for ImageNet, 72 million parameters, one code for
16x16 pixels, with everything that its step takes: L1 and LPIPS (SqueezeNet),
the discriminator on, the adaptive weight, two Adams. One process a framework,
two threads each; one works while the other waits for its next command. Every
round takes one step and one encode of each, in changing order, after a pause in
which idle threads stop spinning; the median over the rounds counts.

keras_vq runs the function that `fit` calls, with all that `fit` logs, and
`model.encode`. PyTorch (`torch_vqgan.py`) runs the same networks, losses and
optimizers on the `VQModel` of diffusers, in the faster of its memory formats,
which is found beforehand; with --compiled a process with `torch.compile` takes
part, too. Both start from the same weights and see the same images, and the run
stops if their losses, their adaptive weights or their codes differ.

Beside the times: the most memory that each process has held, and which part of
the rate of a bare 3x3 convolution in the same rounds is reached. The operations
are those that the networks need as they are defined.

Photographs and weights of LPIPS are those below --data-dir (or KERAS_VQ_DATA),
otherwise noise on a gradient, and random weights.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import timing
from benchmarks.training_step import Worker
from benchmarks.vqgan_worker import CONVOLUTION

# Ours over theirs; memory: at most theirs.
TARGETS = {"step": 1.3, "encode": 1.1}
FORMATS = {
    "contiguous": {"memory_format": "contiguous_format"},
    "channels last": {"memory_format": "channels_last"},
}
TERMS = ("loss", "generator_loss", "discriminator_loss", "adaptive_weight")
# Differences of the first step, where a latent between two codes may fall on
# either side, and of those after it: rounding grows through Adam, whose first
# steps are about as large for every gradient.
TOLERANCES = (5e-3, 2e-2)


class _Process(Worker):
    """Worker of one framework; keeps the most memory that it has held."""

    def __init__(self, framework, request, **options):
        request = {**request, "options": options}
        super().__init__(framework, request, "benchmarks.vqgan_worker")
        self.peak_mb = None

    def run(self, name, steps=1):
        answer = super().run(name, steps)
        # A bare convolution is not part of what is compared.
        if name != "convolution":
            self.peak_mb = answer["peak_mb"]
        return answer


def _material(request: dict) -> dict:
    """Makes weights and images; returns what is known of them."""
    command = [sys.executable, "-m", "benchmarks.vqgan_material"]
    subprocess.run([*command, json.dumps(request)], check=True)
    folder = pathlib.Path(request["folder"])
    return json.loads((folder / "facts.json").read_text())


def _faster_format(request: dict, rounds: int) -> tuple:
    """Name of torch's faster memory format, and the seconds of each."""
    workers, seconds = {}, {}
    try:
        for name, options in FORMATS.items():
            workers[name] = _Process("torch", request, **options)
            workers[name].run("step")
        tasks = {
            name: lambda w=worker: w.run("step")["seconds"]
            for name, worker in workers.items()
        }
        seconds = timing.interleave(tasks, rounds, pause=0.5)
    finally:
        for worker in workers.values():
            worker.close()
    found = timing.medians(seconds)
    return min(found, key=found.get), seconds


def check_values(values: dict):
    """Raises if the frameworks do not compute the same.

    Args:
        values: By the name of the process, a list of what each step gave,
            dicts of numbers by `TERMS`, and last the codes.
    """
    *expected, codes = values["keras_vq"]
    for name, (*steps, their_codes) in values.items():
        for count, (step, want) in enumerate(zip(steps, expected, strict=True)):
            for term in TERMS:
                tolerance = TOLERANCES[min(count, 1)]
                if not abs(step[term] - want[term]) <= tolerance * max(
                    abs(want[term]), 0.1
                ):
                    raise RuntimeError(
                        f"{name} computes something else: {term} is "
                        f"{step[term]} in step {count + 1}, that of keras_vq "
                        f"{want[term]}."
                    )
        same = np.ravel(codes["codes"]) == np.ravel(their_codes["codes"])
        if same.mean() < 0.95:
            raise RuntimeError(
                f"{name} finds other codes than keras_vq in "
                f"{(~same).sum()} of {same.size} positions."
            )


def measure(request: dict, rounds: int, compiled: bool, form=None) -> dict:
    """Medians, ratios, memory and the share of a convolution's rate.

    Args:
        request: Dict of `config`, arguments of `VQGAN`; `size`; `batch_size`;
            and `data_dir`.
        rounds: Integer.
        compiled: Whether `torch.compile` takes part.
        form: One of `FORMATS`; None: the faster one.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {**request, "folder": folder, "terms": TERMS}
        facts = _material(request)
        request["lpips_files"] = facts["lpips_files"]
        formats = {}
        if form is None:
            form, formats = _faster_format(request, max(rounds // 3, 1))
        workers = {}
        try:
            workers["keras_vq"] = _Process("keras", request)
            peer = f"torch eager, {form}"
            options = FORMATS[form]
            workers[peer] = _Process("torch", request, **options)
            if compiled:
                workers[f"torch compiled, {form}"] = _Process(
                    "torch", request, **options, compiled=True
                )
            values = {
                name: [
                    *[worker.run("step")["values"] for _ in range(2)],
                    worker.run("encode")["values"],
                ]
                for name, worker in workers.items()
            }
            check_values(values)
            seconds = _rounds(workers, rounds)
        finally:
            for worker in workers.values():
                worker.close()
    return {
        "parameters": facts["parameters"],
        "size": request["size"],
        "batch_size": request["batch_size"],
        "first_values": {
            name: entries[:-1] for name, entries in values.items()
        },
        "formats_seconds": formats,
        "peak_mb": {n: round(w.peak_mb) for n, w in workers.items()},
        **summary(seconds, facts["flops"]),
    }


def _rounds(workers: dict, rounds: int) -> dict:
    """Seconds by task, then by worker."""
    # Traced, and warm.
    workers["keras_vq"].run("convolution", 3)
    workers["keras_vq"].run("encode", 2)
    tasks = {
        (task, name): lambda t=task, w=worker: w.run(t)["seconds"]
        for task in TARGETS
        for name, worker in workers.items()
    }
    tasks["convolution", "keras_vq"] = lambda: (
        workers["keras_vq"].run("convolution", 3)["seconds"] / 3
    )
    found = {}
    for (task, name), values in timing.interleave(
        tasks, rounds, pause=0.5
    ).items():
        found.setdefault(task, {})[name] = values
    return found


def summary(seconds: dict, flops: dict) -> dict:
    """What the seconds of all rounds say."""
    medians = {task: timing.medians(s) for task, s in seconds.items()}
    batch, side, channels = CONVOLUTION
    operations = 2 * 9 * batch * side**2 * channels**2
    peak = operations / medians["convolution"].pop("keras_vq")
    del medians["convolution"]
    ratios, shares = {}, {}
    for task, values in medians.items():
        ours = values["keras_vq"]
        ratios[task] = {
            "target_ratio": TARGETS[task],
            **{n: v / ours for n, v in values.items() if n != "keras_vq"},
        }
        shares[task] = {n: flops[task] / v / peak for n, v in values.items()}
    return {
        "median_seconds": medians,
        "ratio": ratios,
        "convolution_gflops_per_second": peak / 1e9,
        "gflops": {task: flops[task] / 1e9 for task in medians},
        "share_of_convolution": shares,
        "rounds_seconds": {
            task: {n: [round(s, 3) for s in v] for n, v in values.items()}
            for task, values in seconds.items()
        },
    }


def _print(result: dict):
    print(
        f"{result['parameters']:,} parameters, {result['batch_size']} images "
        f"of {result['size']} pixels; a bare convolution reaches "
        f"{result['convolution_gflops_per_second']:.0f} GFLOP/s"
    )
    for task, values in result["median_seconds"].items():
        for name, value in values.items():
            share = result["share_of_convolution"][task][name]
            print(f"  {task:18} {name:30} {value:7.2f} s {share:5.0%} of that")
        for name, ratio in result["ratio"][task].items():
            if name != "target_ratio":
                target = result["ratio"][task]["target_ratio"]
                print(f"  {ratio:.2f} x {name} (target {target})")
    for name, peak in result["peak_mb"].items():
        print(f"  peak memory {name:26} {peak:,} MB")


def main():
    """Measures, prints a table and writes the JSON file."""
    parser = timing.parser(__doc__, rounds=7)
    parser.add_argument("--data-dir", default=os.environ.get("KERAS_VQ_DATA"))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument(
        "--compiled", action="store_true", help="torch.compile, too"
    )
    parser.add_argument(
        "--format", choices=list(FORMATS), help="torch's, if it is known"
    )
    arguments = parser.parse_args()
    timing.warn_if_busy()
    request = {
        "config": {},
        "size": arguments.size,
        "batch_size": arguments.batch_size,
        "data_dir": arguments.data_dir,
    }
    result = measure(
        request, arguments.rounds, arguments.compiled, arguments.format
    )
    _print(result)
    timing.save("vqgan_step", result, arguments.output)


if __name__ == "__main__":
    main()
