"""Four times the pixels, in tiles, take little more memory."""

import pathlib

import pytest

from benchmarks import tiling


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/clear_refs").exists(),
    reason="needs Linux, which says what a process has held",
)
def test_memory_of_tiles(figure):
    found = tiling.memory("vqgan_tiny_imagenet", [1024, 2048])
    whole, small, large = found.values()
    figure("tiles, MB beyond the model", found)
    assert large < whole
    # The image and its reconstruction, and each once more on the way.
    assert large < small + 4 * (2048**2 - 1024**2) * 3 * 4 / 2**20
