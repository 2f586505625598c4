"""Time of `import keras_vq` beside that of `import keras`.

    python -m benchmarks.import_time [--rounds 7]

Each import is timed in a fresh process, inside of it, so that starting Python
does not count. Both are measured once a round.
"""

import os
import subprocess
import sys

from benchmarks import timing

TARGET_SECONDS = 0.3
_PROGRAM = """
import time
start = time.perf_counter()
import {name}
print(time.perf_counter() - start)
"""


def seconds_to_import(name: str) -> float:
    """Seconds that one import takes in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout
    return float(output)


def main():
    """Measures, prints and writes the JSON file."""
    arguments = timing.parser(__doc__, rounds=7).parse_args()
    timing.warn_if_busy()
    tasks = {
        name: lambda name=name: seconds_to_import(name)
        for name in ("keras", "keras_vq")
    }
    for task in tasks.values():
        task()  # The files are in the page cache afterwards.
    rounds = timing.interleave(tasks, arguments.rounds)
    middle = timing.medians(rounds)
    extra = middle["keras_vq"] - middle["keras"]
    for name, seconds in middle.items():
        print(f"import {name:10} {seconds:6.2f} s")
    print(f"difference        {extra:6.2f} s (target: {TARGET_SECONDS} s)")
    results = {
        "seconds": middle,
        "extra_seconds": extra,
        "target_seconds": TARGET_SECONDS,
        "rounds_seconds": rounds,
    }
    timing.save("import_time", results, arguments.output)


if __name__ == "__main__":
    main()
