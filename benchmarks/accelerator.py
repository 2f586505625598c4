"""Training step, encode and decode on a GPU, beside compiled PyTorch.

    python -m benchmarks.accelerator [--models vqvae_cifar vqvae2 vqgan_f16]
        [--dtypes bfloat16 float32 tf32] [--rounds 7] [--batch-size N]
        [--small] [--device gpu|cpu] [--compile-mode MODE] [--append]

keras_vq runs on JAX: the function that `fit` calls, `model.encode` and
`model.decode`. PyTorch runs the same networks, losses, optimizers and codebook
updates under `torch.compile`, with channels-last tensors; VQGAN's is the
`VQModel` of diffusers. Batches are on the device before they are measured.

- `bfloat16`: networks in bfloat16, weights, codebooks and LPIPS in float32
  (the policy `mixed_bfloat16`, and `torch.autocast`).
- `float32`: products in float32 throughout, TensorFloat-32 off in both.
- `tf32`: float32 with TensorFloat-32 on in both, which is JAX's default. What
  is float32 under `bfloat16` is computed so, too.

One process a framework for each model and dtype; one works while the other
waits. Every round measures each task once in both, in changing order; the
median over the rounds counts. Both start from the same weights, and the run
stops if the losses of their first steps, their codes or their images differ.

Memory is the most that was held on the device up to and with a task, of
encode, decode and step in this order; on a processor that of the process. The
share of the peak is that of a bare product of square matrices of the same
dtype in the same rounds, by whichever framework is faster at it. Operations are
those of convolutions and matrix products that the networks need.

--small runs tiny networks on a processor, to see that everything works; there
`torch.compile` follows the functions and generates no code.
"""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import timing
from benchmarks.accelerator_material import MODELS, SMALL_MODELS
from benchmarks.training_step import Worker

TARGET = 1.0
TASKS = ("encode", "decode", "step")
DTYPES = ("bfloat16", "float32", "tf32")
# The last one generates no code, which is most of what a tiny network takes.
MODES = ("default", "reduce-overhead", "max-autotune", "aot_eager")
PEER = "torch compiled, channels last"
FRAMEWORKS = {"keras_vq": "keras", PEER: "torch"}
TERMS = {"vqgan_f16": ("loss", "generator_loss", "discriminator_loss")}
_TERMS = ("loss", "reconstruction_loss", "commitment_loss")
# What the frameworks may differ by: the terms of a first step, relative to
# themselves or to 0.1; images, absolute; and the share of codes, where a latent
# between two codes may fall on either side.
TOLERANCES = {
    "float32": {"terms": 2e-3, "pixels": 1e-3, "codes": 0.02},
    "tf32": {"terms": 2e-2, "pixels": 2e-2, "codes": 0.3},
    "bfloat16": {"terms": 1e-1, "pixels": 2e-1, "codes": 0.9},
}
# Rows and columns of the bare product, seconds that one measurement takes.
_FULL = {"models": MODELS, "matmul": 8192, "seconds": 0.5, "pause": 0.1}
_SMALL = {"models": SMALL_MODELS, "matmul": 512, "seconds": 0.05, "pause": 0.1}
_PACKAGES = ("jax", "keras", "torch", "pytest")


def missing_packages(models) -> list:
    """Names of what is needed and not installed."""
    needed = [*_PACKAGES, *(["diffusers"] if "vqgan_f16" in models else [])]
    return [name for name in needed if importlib.util.find_spec(name) is None]


def check_packages(models):
    """Ends the program if a package is missing."""
    if missing := missing_packages(models):
        sys.exit(
            "This benchmark needs jax, keras, torch, diffusers and pytest (the "
            f"peers are shared with the tests). Missing: {', '.join(missing)}"
        )


def environment(device: str) -> dict:
    """Variables of the processes."""
    found = {**os.environ, "KERAS_BACKEND": "jax"}
    # Two frameworks share the device.
    found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if device == "cpu":
        found |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return found


def find_devices(device: str) -> dict:
    """Name of the device by framework; ends the program if there is none."""
    found = {}
    for framework in FRAMEWORKS.values():
        request = json.dumps({"framework": framework, "device": device})
        module = "benchmarks.accelerator_worker"
        ended = subprocess.run(
            [sys.executable, "-m", module, "probe", request],
            capture_output=True,
            text=True,
            env=environment(device),
        )
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or ["It said nothing."]
            sys.exit(
                f"{said[-1]} `--small`, or `--device cpu`, runs on a processor."
            )
        found[framework] = ended.stdout.splitlines()[-1]
    return found


def check_values(dtype: str, values: dict):
    """Raises if the frameworks do not compute the same.

    Args:
        dtype: One of `DTYPES`.
        values: By framework a dict of what each task gave at its first call.
    """
    tolerance = TOLERANCES[dtype]
    ours, theirs = (values[name] for name in FRAMEWORKS)
    # A discriminator's opinion is a sum of both signs: a few bits less move it
    # by a quarter.
    terms = list(ours["step"]) if dtype == "float32" else ["loss"]
    for term in terms:
        want, got = ours["step"][term], theirs["step"][term]
        if not abs(got - want) <= tolerance["terms"] * max(abs(want), 0.1):
            raise RuntimeError(
                f"The frameworks compute different things in {dtype}: {term} "
                f"is {want} for keras_vq, {got} for PyTorch."
            )
    pixels = [np.asarray(side["decode"]["pixels"]) for side in (ours, theirs)]
    difference = np.abs(pixels[0] - pixels[1]).max()
    # Images of random weights have any range.
    if not difference <= tolerance["pixels"] * max(np.abs(pixels[0]).max(), 1):
        raise RuntimeError(
            f"The frameworks make different images in {dtype}: pixels differ "
            f"by up to {difference}."
        )
    codes = [np.asarray(side["encode"]["codes"]) for side in (ours, theirs)]
    parted = (codes[0] != codes[1]).mean()
    if not parted <= tolerance["codes"]:
        raise RuntimeError(
            f"The frameworks find different codes in {dtype}, in {parted:.0%} "
            "of the positions."
        )


def measure(name: str, model: dict, options: dict):
    """Measures one model, and yields the figures of each dtype, a dict.

    Args:
        name: One of `MODELS`.
        model: Its dict of `config`, `size` and `batch_size`.
        options: Dict of `dtypes`, `rounds`, `device`, `compile_mode`,
            `matmul` (rows of the bare product), `seconds` (of a measurement)
            and `pause`.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"model": name, **model, "folder": folder}
        command = [sys.executable, "-m", "benchmarks.accelerator_material"]
        # The device is for those who are measured.
        subprocess.run(
            [*command, json.dumps(request)], check=True, env=environment("cpu")
        )
        facts = json.loads(pathlib.Path(folder, "facts.json").read_text())
        request |= {"lpips_files": facts.get("lpips_files")}
        request |= {"terms": TERMS.get(name, _TERMS)}
        for option in ("device", "compile_mode", "matmul"):
            request[option] = options[option]
        for dtype in options["dtypes"]:
            figures = _of_dtype({**request, "dtype": dtype}, facts, options)
            yield {
                "model": name,
                "size": model["size"],
                "batch_size": model["batch_size"],
                "parameters": facts["parameters"],
                "dtype": dtype,
                **figures,
            }


def _of_dtype(request: dict, facts: dict, options: dict) -> dict:
    workers, values, peaks = {}, {}, {}
    variables = environment(request["device"])
    # `encode` is compiled again after `compile`.
    cache = os.path.join(request["folder"], "cache")
    variables |= {"JAX_COMPILATION_CACHE_DIR": cache}
    try:
        for name, framework in FRAMEWORKS.items():
            module = "benchmarks.accelerator_worker"
            worker = Worker(framework, request, module, variables)
            workers[name] = worker
            values[name] = {}
            for task in TASKS:
                answer = worker.run(task, 1)
                values[name][task] = answer["values"]
                peaks.setdefault(task, {})[name] = round(answer["peak_mb"])
        check_values(request["dtype"], values)
        seconds = _rounds(workers, options)
    finally:
        for worker in workers.values():
            worker.close()
    first = {name: found["step"] for name, found in values.items()}
    return {
        "first_step": first,
        "peak_mb": peaks,
        **summary(
            seconds, facts["flops"], request["batch_size"], request["matmul"]
        ),
    }


def _rounds(workers: dict, options: dict) -> dict:
    """Seconds of a call by task, then by framework."""
    tasks = {}
    for task in (*TASKS, "matmul"):
        for name, worker in workers.items():
            worker.run(task, 2)
            once = worker.run(task, 1)["seconds"]
            count = min(max(math.ceil(options["seconds"] / once), 1), 500)
            tasks[task, name] = lambda w=worker, t=task, n=count: (
                w.run(t, n)["seconds"] / n
            )
    found = {}
    for (task, name), values in timing.interleave(
        tasks, options["rounds"], pause=options["pause"]
    ).items():
        found.setdefault(task, {})[name] = values
    return found


def summary(seconds: dict, flops: dict, batch_size: int, size: int) -> dict:
    """What the seconds of all rounds say.

    Args:
        seconds: By task, among them `"matmul"`, and framework, a list.
        flops: Operations of a call by task.
        batch_size: Integer.
        size: Integer, rows and columns of the bare product.
    """
    middle = {task: timing.medians(found) for task, found in seconds.items()}
    products = {n: 2 * size**3 / s for n, s in middle.pop("matmul").items()}
    peak = max(products.values())
    return {
        "images_per_second": {
            task: {n: batch_size / s for n, s in found.items()}
            for task, found in middle.items()
        },
        "ratio": {
            task: found[PEER] / found["keras_vq"]
            for task, found in middle.items()
        },
        "target_ratio": TARGET,
        "matmul_tflops_per_second": {n: p / 1e12 for n, p in products.items()},
        "gflops": {task: flops[task] / 1e9 for task in middle},
        "share_of_matmul": {
            task: {n: flops[task] / s / peak for n, s in found.items()}
            for task, found in middle.items()
        },
        "rounds_seconds": {
            task: {n: [float(f"{s:.4g}") for s in v] for n, v in found.items()}
            for task, found in seconds.items()
        },
    }


def joined(entries: list, before: list) -> list:
    """Entries of this run, and those of earlier ones that it has not redone."""

    def key(entry):
        return entry["model"], entry["dtype"]

    new = {key(entry) for entry in entries}
    return [*[e for e in before if key(e) not in new], *entries]


def _print(entry: dict):
    products = entry["matmul_tflops_per_second"].values()
    print(
        f"{entry['model']}, {entry['batch_size']} images of {entry['size']} "
        f"pixels, {entry['dtype']}; a bare product reaches "
        f"{max(products):.3g} TFLOP/s"
    )
    for task, rates in entry["images_per_second"].items():
        for name, rate in rates.items():
            share = entry["share_of_matmul"][task][name]
            memory = entry["peak_mb"][task][name]
            print(
                f"  {task:8}{name:30}{rate:10.1f} images/s {share:6.1%} of "
                f"that {memory:8,} MB"
            )
        print(f"  {entry['ratio'][task]:.2f} x (target {TARGET})", flush=True)


def parse(arguments=None):
    """The options; see the beginning of this file."""
    parser = timing.parser(__doc__, rounds=7)
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=list(MODELS)
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=DTYPES,
        help="default: bfloat16 float32, and with --small float32",
    )
    parser.add_argument("--batch-size", type=int, help="of all models")
    parser.add_argument(
        "--small", action="store_true", help="tiny networks, two rounds"
    )
    parser.add_argument(
        "--device",
        choices=("gpu", "cpu"),
        help="default: gpu, and with --small cpu",
    )
    parser.add_argument(
        "--compile-mode",
        choices=MODES,
        help="of torch.compile (default: default, and with --small aot_eager)",
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="keep what the JSON file has of other models and dtypes",
    )
    options = parser.parse_args(arguments)
    if options.small:
        options.rounds = min(options.rounds, 2)
    options.device = options.device or ("cpu" if options.small else "gpu")
    dtypes = ["float32"] if options.small else list(DTYPES[:2])
    options.dtypes = options.dtypes or dtypes
    mode = "aot_eager" if options.small else "default"
    options.compile_mode = options.compile_mode or mode
    # What is small is no result for the docs.
    name = "accelerator_small" if options.small else "accelerator"
    options.output = options.output or timing.RESULTS / f"{name}.json"
    return options


def _entries_of_same_device(results, devices, arguments) -> list:
    """What was measured before, if new figures may stand beside it."""
    expected = {
        "device": devices["torch"],
        "compile_mode": arguments.compile_mode,
    }
    found = {name: results[name] for name in expected}
    if found != expected:
        raise SystemExit(
            f"{arguments.output} holds figures of {found}. Received: --append "
            f"with {expected}. Name another file with --output."
        )
    return results["entries"]


def main():
    """Measures, prints and writes the JSON file, after each model and dtype."""
    arguments = parse()
    check_packages(arguments.models)
    devices = find_devices(arguments.device)
    timing.warn_if_busy()
    sizes = _SMALL if arguments.small else _FULL
    options = {**sizes, **vars(arguments)}
    date = timing.machine()["date"]
    before, entries = [], []
    if arguments.append and arguments.output.exists():
        before = _entries_of_same_device(
            json.loads(arguments.output.read_text()), devices, arguments
        )
    for name in arguments.models:
        model = dict(sizes["models"][name])
        model["batch_size"] = arguments.batch_size or model["batch_size"]
        for entry in measure(name, model, options):
            _print(entry)
            run = {"command": timing.command("accelerator"), "date": date}
            entries.append({**entry, **run})
            results = {
                "device": devices["torch"],
                "devices": devices,
                "compile_mode": arguments.compile_mode,
                "matmul_size": sizes["matmul"],
                "entries": joined(entries, before),
            }
            # A run that is cut off leaves what it has.
            timing.save("accelerator", results, arguments.output)


if __name__ == "__main__":
    main()
