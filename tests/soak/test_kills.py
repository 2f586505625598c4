"""Trainings that are killed again and again, and what becomes of them."""

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from killed_runs import check_kills, check_terminations

import keras_vq
from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.utils import snapshots


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("kind", ["autoencoder", "vqvae2"])
def test_kill(kind, replicas, tmp_path, figure):
    check_kills(replicas, kind, tmp_path, figure)


def test_terminate(tmp_path, figure):
    check_terminations("autoencoder", tmp_path, figure)


_WRITER = """
import importlib.util, pathlib, sys
import numpy as np
spec = importlib.util.spec_from_file_location("snapshots", sys.argv[1])
snapshots = importlib.util.module_from_spec(spec)
spec.loader.exec_module(snapshots)
directory, step = pathlib.Path(sys.argv[2]), int(sys.argv[3])
while True:
    step += 1
    arrays = {str(i): np.full(500_000, step + i, "float32") for i in range(10)}
    path = directory / snapshots.snapshot_name(0, step)
    snapshots.write_snapshot(path, arrays, {"step": step}, {})
    snapshots.remove_old_snapshots(directory, 2)
"""


def test_kill_during_writes(tmp_path, figure):
    """20 MB are written without a pause, and the writer is killed."""
    rng = random.Random(0)
    loadable, step, kills = 0, 0, 200
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, snapshots.__file__, tmp_path]
            + [str(step)]
        )
        while not list(tmp_path.glob(".*.tmp")) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        found = snapshots.newest_snapshot(tmp_path)
        if found is None:
            # Killed in the very first write of all: there was none before.
            assert step == 0
            loadable += 1
            continue
        _, arrays, info = found
        assert info["step"] >= step
        step = info["step"]
        for index in range(10):
            np.testing.assert_array_equal(arrays[str(index)], step + index)
        loadable += 1
    assert step > 0
    figure("kills during writes, checkpoint loadable", f"{loadable}/{kills}")


def test_time_of_a_checkpoint(tmp_path, figure):
    model = keras_vq.models.VQVAE.from_preset("vqvae_cifar")
    model.compile("adam", weight_ema=0.999)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    checkpoint = ResumableCheckpoint(tmp_path, save_every=10**9)
    seconds = []
    for _ in range(9):
        model.fit(
            checkpoint.resume(images),
            epochs=checkpoint.epoch + 1,
            callbacks=[checkpoint],
            verbose=0,
        )
        start = time.perf_counter()
        checkpoint._save()
        seconds.append(time.perf_counter() - start)
    newest = snapshots.find_snapshots(tmp_path)[-1]
    size = sum(os.path.getsize(file) for file in newest.iterdir()) / 1e6
    median = float(np.median(seconds))
    figure("checkpoint of vqvae_cifar", f"{median:.2f} s, {size:.0f} MB")
    assert median < 1
