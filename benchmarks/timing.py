"""What all benchmarks share: interleaved rounds, medians, the machine, JSON.

Nothing here imports a framework: workers that measure one keep the other out
of their process.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time

RESULTS = pathlib.Path(__file__).parent / "results"

# Share of the processor that was in use before the measurement.
_busy_before = None

_PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "torch",
    "diffusers",
    "numpy",
)


def interleave(tasks: dict, rounds: int, pause: float = 0.0) -> dict:
    """Measures every task once a round, in a different order each round.

    A slow moment of the machine then hits all tasks alike, and none always
    comes after the same other one.

    Args:
        tasks: Dict of name to a function that measures once and returns the
            seconds of one call.
        rounds: Integer, number of rounds.
        pause: Float, seconds to wait before each measurement, in which the
            threads of the task before stop spinning.

    Returns:
        Dict of name to the list of seconds, one per round.
    """
    names = list(tasks)
    seconds = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause)
            seconds[name].append(tasks[name]())
    return seconds


def timed(function, calls: int = 1, warm_up: int = 3):
    """Function that measures `function`, which must wait for its result.

    Args:
        function: Callable without arguments.
        calls: Integer, calls that are timed together.
        warm_up: Integer, calls before the first measurement, now.

    Returns:
        Function that returns the seconds of one call.
    """
    for _ in range(warm_up):
        function()

    def measure():
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls

    return measure


def medians(seconds: dict) -> dict:
    """Median of each list of seconds."""
    return {name: statistics.median(s) for name, s in seconds.items()}


def use_cores(count: int):
    """Keeps this process and its children to `count` cores, where it can.

    Thread pools then have the size that they choose by themselves on a machine
    with so many cores.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:count]
        os.sched_setaffinity(0, cores)


def machine() -> dict:
    """Processor, cores, memory, other work, date, versions of packages."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(terse=True),
        "busy_before": _busy_before,
        "versions": versions,
    }


def _busy_share(seconds: float = 1.0) -> float | None:
    """Share of all processor time that somebody uses, while this waits."""
    before = _processor_ticks()
    time.sleep(seconds)
    after = _processor_ticks()
    if not before or not after:
        return None
    spent = [b - a for a, b in zip(before, after, strict=True)]
    idle = spent[3] + spent[4]  # idle, and waiting for disks
    return round(1 - idle / max(sum(spent), 1), 3)


def _processor_ticks() -> list:
    path = pathlib.Path("/proc/stat")
    if not path.exists():
        return []
    return [int(n) for n in path.read_text().split("\n")[0].split()[1:9]]


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = {}
    for line in info.read_text().split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    # Virtual machines often hide the name; family and model tell it.
    return "{} (family {}, model {})".format(
        fields.get("model name", platform.machine()),
        fields.get("cpu family", "?"),
        fields.get("model", "?"),
    )


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(size / 2**30, 1)


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument(
        "--rounds", type=int, default=rounds, help=f"default: {rounds}"
    )
    made.add_argument(
        "--output",
        type=pathlib.Path,
        help="JSON file (default: benchmarks/results/NAME.json)",
    )
    return made


def warn_if_busy():
    """Says on stderr that figures taken now would mean little.

    Call it before anything else: what it finds is saved with the results.
    """
    global _busy_before
    _busy_before = _busy_share()
    if _busy_before is not None and _busy_before > 0.05:
        print(
            f"Warning: other work takes {_busy_before:.0%} of the processor "
            "and disturbs the figures.",
            file=sys.stderr,
        )


def command(name: str) -> str:
    """What was called, as the docs give it."""
    words = ["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]
    # It changes the kernels that TensorFlow computes with.
    variable = "TF_ENABLE_ONEDNN_OPTS"
    if variable in os.environ:
        words.insert(0, f"{variable}={os.environ[variable]}")
    return shlex.join(words)


def save(name: str, results: dict, output: pathlib.Path | None) -> None:
    """Writes results, the machine and the command as JSON."""
    path = output or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command(name), "machine": machine(), **results}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Written: {path}")
