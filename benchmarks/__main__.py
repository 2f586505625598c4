"""Runs the benchmarks one after the other: `python -m benchmarks`."""

import os
import subprocess
import sys

# Each in a process of its own, so that none finds the memory or the thread
# pools of another.
NAMES = (
    "nearest_code",
    "training_step",
    "vqgan_step",
    "vqvae2_step",
    "tiling",
    "step_overhead",
    "import_time",
    "data_throughput",
)


def _command(name: str) -> list | None:
    data_dir = os.environ.get("KERAS_VQ_DATA")
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if name not in ("data_throughput", "tiling"):
        return command
    return [*command, "--data-dir", data_dir] if data_dir else None


def main() -> int:
    """Runs all; returns 1 if one of them failed."""
    failed = []
    for name in NAMES:
        command = _command(name)
        print(f"== {name}", flush=True)
        if command is None:
            print("skipped: needs KERAS_VQ_DATA, the folder with the data")
        elif subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
