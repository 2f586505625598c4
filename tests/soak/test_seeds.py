"""One seed in several processes."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "trainers"))

from test_determinism import hashes


def test_five_processes(figure):
    runs = [hashes(0) for _ in range(5)]
    equal = sum(run == runs[0] for run in runs)
    figure("processes with the same hash of all variables", f"{equal}/5")
    assert equal == 5
    other = hashes(1)
    assert all(other[name] != runs[0][name] for name in other)
