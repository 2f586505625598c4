"""Bad images that are left out on replicas, and on one of several workers."""

import importlib.util
import time

import numpy as np
import pytest
import tensorflow as tf
import workers_harness
from networks import images

from keras_vq.models import VQAutoencoder

SCRIPT = workers_harness.ROOT / "tests" / "workers" / "bad_images.py"
# Of 24: alone in its part, neighbours, a whole batch of five, the last one.
BAD = [2, 10, 11, 12, 13, 14, 23]
# Of 80, in the second half of batches of four: those of the second worker.
BAD_OF_ONE = [62, 63, 66, 67]


def write(folder, count, bad):
    """PNG files, of which some are cut off."""
    folder.mkdir()
    pictures = VQAutoencoder.postprocess(images(count, 16, 16, 3))
    for index, picture in enumerate(pictures):
        png = tf.io.encode_png(picture).numpy()
        if index in bad:
            png = png[:40]
        (folder / f"{index:02}.png").write_bytes(png)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bad") / "images", 24, BAD)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bad_images_worker", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one_device(script, folder):
    return script.train(folder)[1]


NAMES = [f"{index:02}.png" for index in BAD]


def assert_same(got, want):
    assert got["steps"] == want["steps"] == 8
    assert want["moved"] > 1e-4
    np.testing.assert_allclose(got["sums"], want["sums"], rtol=1e-4)
    for kind in ("logs", "evaluate"):
        assert set(got[kind]) == set(want[kind])
        for name, value in want[kind].items():
            np.testing.assert_allclose(
                got[kind][name], value, rtol=1e-3, err_msg=f"{kind} {name}"
            )


def test_one_device_counts_each_once(one_device):
    assert one_device["endless"] == NAMES
    assert one_device["once"] == NAMES


def test_two_replicas(script, folder, one_device, two_replicas):
    _, got = script.train(folder, two_replicas)
    assert got["endless"] == got["once"] == NAMES
    assert_same(got, one_device)


def check_two_workers(stays, folder, one_device, tmp_path):
    """Trains on both, ends both, and returns the seconds of the latter."""
    too_bad = write(tmp_path / "too_bad", 80, BAD_OF_ONE)
    command = [str(SCRIPT), str(folder), str(too_bad)]
    with workers_harness.cluster(
        command, tmp_path, environment={"STAYS": stays}
    ) as pair:
        chief, other = pair
        other.wait_for("stopped: ", timeout=120)
        start = time.monotonic()
        assert chief.wait(10) == 1
        lost = f"WorkerLostError: Lost worker 1 at {other.address}: it ended "
        reason = "its training with TooManyBadImagesError: Expected at most 3 "
        assert lost + reason in chief.output
        # The one whose files they are names them all.
        for index in BAD_OF_ONE:
            assert f"{index}.png" in other.output
            assert f"{index}.png cannot be decoded" in chief.output
        if not stays:
            assert other.wait(10) == 1
        seconds = time.monotonic() - start
        for worker in pair:
            assert_same(worker.result, one_device)
        # Of one pass each bad file is met by the worker that it belongs to.
        # Both look at the first batch, and the endless data are shuffled.
        once = [worker.result["once"] for worker in pair]
        assert sorted({*once[0], *once[1]}) == NAMES
        assert not {*once[0]} & {*once[1]} - {"02.png"}
        both = {*chief.result["endless"], *other.result["endless"]}
        assert sorted(both) == NAMES
    return seconds


def test_two_workers(folder, one_device, tmp_path):
    """They stay in step; too many on one of them end both, soon.

    The process with the bad files stays, as a notebook would; `make soak` has
    the other case.
    """
    check_two_workers("stays", folder, one_device, tmp_path)
