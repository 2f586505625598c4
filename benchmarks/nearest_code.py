"""Time and memory of `nearest_code` beside the bare matrix product.

    python -m benchmarks.nearest_code [--rounds 41] [--only time|memory]

Time: `nearest_code` in a `tf.function`, once with the number of vectors known
and once without (as in `fit`, whose last batch may be smaller), beside
`tf.matmul` of the same operands, the faster of plain and transposed codes, and
beside the full matrix of distances as one would write it down. Every round
calls each of them once, in one process.

Memory: by how much the peak of the resident memory of a fresh process exceeds
what it held before the call, inputs included. The full matrix is computed only
where the machine has the memory for it.
"""

import json
import pathlib
import subprocess
import sys

from benchmarks import timing

# Vectors, codes, dim; how many times the bare product it may take.
SHAPES = (
    ((4096, 1024, 256), 1.5),
    ((4096, 16384, 256), 1.5),
    ((16384, 512, 64), 2.0),
)
MEMORY_SHAPES = ((262_144, 16_384, 64), (262_144, 16_384, 256))
MEMORY_TARGET_MB = 256


def _operands(vectors, codes, dim):
    import tensorflow as tf

    random = tf.random.Generator.from_seed(0)
    return random.normal((vectors, dim)), random.normal((codes, dim))


def _full_matrix(vectors, codebook):
    """Squared distances to all codes at once, as in most implementations."""
    import tensorflow as tf

    distances = (
        tf.reduce_sum(vectors**2, axis=1, keepdims=True)
        - 2 * tf.matmul(vectors, codebook, transpose_b=True)
        + tf.reduce_sum(codebook**2, axis=1)
    )
    return tf.argmin(distances, axis=1, output_type=tf.int32)


def _implementations():
    import tensorflow as tf

    from keras_vq.layers import nearest_code

    unknown = tf.TensorSpec((None, None), tf.float32)
    return {
        "nearest_code": tf.function(nearest_code),
        "nearest_code, any batch": _any_batch(nearest_code),
        "full matrix": tf.function(_full_matrix),
        "matmul": tf.function(lambda v, c: tf.matmul(v, c, transpose_b=True)),
        "matmul, transposed": tf.function(
            tf.matmul, input_signature=[unknown, unknown]
        ),
    }


def _any_batch(function):
    import tensorflow as tf

    # Only the number of vectors is unknown.
    made = tf.function(function)
    concrete = {}

    def call(vectors, codebook):
        shape = tuple(codebook.shape)
        if shape not in concrete:
            concrete[shape] = made.get_concrete_function(
                tf.TensorSpec((None, shape[1]), tf.float32),
                tf.TensorSpec(shape, tf.float32),
            )
        return concrete[shape](vectors, codebook)

    return call


def _call(function, vectors, codes):
    # Reading one value waits for the result.
    return lambda: function(vectors, codes)[-1].numpy()


def measure_time(rounds: int) -> list:
    """Medians and ratios for every shape."""
    import tensorflow as tf

    results = []
    for shape, target in SHAPES:
        vectors, codebook = _operands(*shape)
        transposed = tf.transpose(codebook)
        tasks = {}
        for name, function in _implementations().items():
            codes = transposed if name == "matmul, transposed" else codebook
            tasks[name] = timing.timed(_call(function, vectors, codes))
        seconds = timing.interleave(tasks, rounds)
        middle = timing.medians(seconds)
        bare = min(middle["matmul"], middle["matmul, transposed"])
        results.append(
            {
                "shape": shape,
                "target_ratio": target,
                "median_ms": {n: s * 1e3 for n, s in middle.items()},
                "ratio": {
                    name: middle[name] / bare
                    for name in middle
                    if not name.startswith("matmul")
                },
                "rounds_ms": {
                    n: [round(s * 1e3, 3) for s in r]
                    for n, r in seconds.items()
                },
            }
        )
    return results


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_extra_memory(name: str, shape) -> int:
    """Bytes by which one call raises this process's resident memory."""
    vectors, codebook = _operands(*shape)
    function = _implementations()[name]
    # Thread pools and the library's own buffers are there afterwards.
    function(vectors[:64], codebook[:64])
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    function(vectors, codebook)[-1].numpy()
    return _status("VmHWM") - before


def _available_bytes() -> int:
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def measure_memory() -> list:
    """Peak extra memory of each implementation, in fresh processes."""
    if not pathlib.Path("/proc/self/clear_refs").exists():
        print("Memory is measured on Linux only.", file=sys.stderr)
        return []
    results = []
    for shape in MEMORY_SHAPES:
        peaks = {}
        for name in ("nearest_code", "nearest_code, any batch", "full matrix"):
            matrix = 4 * shape[0] * shape[1]
            if name == "full matrix" and _available_bytes() < 1.5 * matrix:
                peaks[name] = None
                continue
            output = subprocess.run(
                [sys.executable, "-m", "benchmarks.nearest_code"]
                + ["--peak", json.dumps([name, shape])],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            peaks[name] = int(output.split()[-1]) / 1e6
        results.append(
            {
                "shape": shape,
                "target_mb": MEMORY_TARGET_MB,
                "full_matrix_mb": 4 * shape[0] * shape[1] / 1e6,
                "peak_extra_mb": peaks,
            }
        )
    return results


def _print(results: dict):
    for entry in results.get("time", []):
        print("vectors x codes x dim:", *entry["shape"])
        for name, value in entry["median_ms"].items():
            ratio = entry["ratio"].get(name)
            note = "" if ratio is None else f"  {ratio:5.2f} x matmul"
            print(f"  {name:24} {value:9.2f} ms{note}")
        print(f"  target: {entry['target_ratio']} x matmul")
    for entry in results.get("memory", []):
        print("peak extra memory:", *entry["shape"])
        for name, value in entry["peak_extra_mb"].items():
            needed = f"not run, needs {entry['full_matrix_mb']:,.0f}"
            text = needed if value is None else f"{value:,.0f}"
            print(f"  {name:24} {text} MB")
        print(f"  target: {entry['target_mb']} MB")


def main():
    """Measures, prints a table and writes the JSON file."""
    parser = timing.parser(__doc__, rounds=41)
    parser.add_argument("--only", choices=["time", "memory"])
    parser.add_argument("--peak", help="for the processes it starts itself")
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_extra_memory(*json.loads(arguments.peak)))
        return
    timing.warn_if_busy()
    results = {}
    if arguments.only != "memory":
        results["time"] = measure_time(arguments.rounds)
    if arguments.only != "time":
        results["memory"] = measure_memory()
    _print(results)
    timing.save("nearest_code", results, arguments.output)


if __name__ == "__main__":
    main()
