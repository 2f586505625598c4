"""Two workers with bad files, whose process ends, or stays, at the error."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "trainers"))

from test_replica_bad_images import (
    check_two_workers,
    folder,
    one_device,
    script,
)

__all__ = ["folder", "one_device", "script"]


@pytest.mark.parametrize("stays", ["", "stays"])
def test_bad_files(stays, folder, one_device, tmp_path, figure):
    seconds = [
        check_two_workers(stays, folder, one_device, path)
        for path in (tmp_path / "first", tmp_path / "second")
        if path.mkdir() is None
    ]
    process = "stays" if stays else "ends"
    figure(
        f"Too many bad files on worker 1, whose process {process}: "
        "worker 0 names them, and ends",
        f"2/2, after {max(seconds):.1f} s at most",
    )
