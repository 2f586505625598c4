"""Memory and time of VQ-VAE-2's step at 1024 pixels, three levels.

With and without gradient checkpointing, at batches of 1 and 2, each in a
process of its own: float32, the network of `vqvae2_ffhq`'s variant `1024`,
random images, the function that `fit` calls.
"""

import json
import resource
import subprocess
import sys
import time

from benchmarks import timing

SIZE = 1024


def _measure(batch_size: int, checkpointing: bool, steps: int) -> dict:
    """Runs in a process of its own; see `main`."""
    timing.use_cores(2)
    import numpy as np

    from keras_vq.applications.vqvae2_ffhq.recipe import VARIANTS

    recipe = VARIANTS["1024"]
    model = recipe.build_model(recipe)
    config = {**model.get_config(), "gradient_checkpointing": checkpointing}
    model = type(model).from_config(config)
    model.compile("adam")
    rng = np.random.default_rng(0)
    shape = (batch_size, SIZE, SIZE, 3)
    images = rng.uniform(-1, 1, shape).astype("float32")
    model.adapt(images[:1])
    before = _peak_mb()
    model.train_on_batch(images)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        model.train_on_batch(images)
        seconds.append(time.perf_counter() - start)
    return {
        "batch_size": batch_size,
        "gradient_checkpointing": checkpointing,
        "seconds": seconds,
        "median_seconds": sorted(seconds)[len(seconds) // 2],
        "peak_mb": _peak_mb(),
        "peak_mb_before_the_first_step": before,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    """Measures all four, one after the other."""
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument("--one", nargs=2, type=int, help="used by itself")
    arguments = parser.parse_args()
    if arguments.one:
        batch_size, checkpointing = arguments.one
        result = _measure(batch_size, bool(checkpointing), arguments.rounds)
        print(json.dumps(result))
        return
    timing.warn_if_busy()
    results = []
    for batch_size in (1, 2):
        for checkpointing in (0, 1):
            command = [sys.executable, "-m", "benchmarks.vqvae2_step"]
            command += ["--rounds", str(arguments.rounds)]
            command += ["--one", str(batch_size), str(checkpointing)]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            result = json.loads(output.splitlines()[-1])
            results.append(result)
            print(
                f"batch {batch_size}, gradient checkpointing "
                f"{'on ' if checkpointing else 'off'}: "
                f"{result['median_seconds']:.2f} s a step, "
                f"{result['peak_mb']:,.0f} MB at most"
            )
    timing.save("vqvae2_step", {"results": results}, arguments.output)


if __name__ == "__main__":
    main()
