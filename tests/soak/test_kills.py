"""Trainings that are killed again and again, and what becomes of them."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_vq
from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.utils import snapshots

PROGRAM = pathlib.Path(__file__).parents[1] / "interrupted_run.py"
KILLS = 20
STEPS = 420
# Each life of a VQGAN begins with the graphs of its phases.
VQGAN = ["--model=vqgan"]
VQVAE2 = ["--model=vqvae2"]


class _Life:
    """One process of the training, from start to its end."""

    def __init__(self, directory, *arguments):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "steps.txt"
        self.before = self._size()
        self.process = subprocess.Popen(
            [
                sys.executable,
                PROGRAM,
                directory,
                f"--steps={STEPS}",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _size(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def has_taken_a_step(self):
        while self.process.poll() is None and self._size() == self.before:
            time.sleep(0.002)
        return self.process.poll() is None

    def is_writing(self, seconds=5.0):
        """Waits until a checkpoint is being written."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if any((self.directory / "checkpoints").glob(".*.tmp")):
                return True
        return False

    def end(self, number):
        self.process.send_signal(number)
        self.output = self.process.communicate()[0]
        return self.process.returncode

    def finish(self):
        self.output = self.process.communicate()[0]
        assert self.process.returncode == 0, self.output


def _steps(directory):
    """Lines of the log; one that a kill cut off does not count."""
    lines = (directory / "steps.txt").read_text().split("\n")
    return [line for line in lines if line.count(" ") == 4]


def _is_as_if_nothing_had_happened(directory, uninterrupted):
    expected = _steps(uninterrupted)
    assert len(expected) == STEPS
    assert set(_steps(directory)) == set(expected)
    hashes = [(d / "hash.txt").read_text() for d in (directory, uninterrupted)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "replicas, model",
    [(1, []), (2, []), (1, VQVAE2), (2, VQVAE2), (1, VQGAN), (2, VQGAN)],
)
def test_kill(replicas, model, tmp_path, figure):
    arguments = [f"--replicas={replicas}", *model]
    whole = _Life(tmp_path / "whole", *arguments)
    whole.finish()
    rng = random.Random(replicas)
    killed = inside = 0
    while killed < KILLS:
        life = _Life(tmp_path / "killed", *arguments)
        assert life.has_taken_a_step(), life.process.communicate()[0]
        if killed % 2:
            inside += life.is_writing()
        else:
            time.sleep(rng.uniform(0, 0.4))
        assert life.end(signal.SIGKILL) == -signal.SIGKILL, "took all its steps"
        killed += 1
        found = snapshots.newest_snapshot(tmp_path / "killed" / "checkpoints")
        assert found or killed < 3
    _Life(tmp_path / "killed", *arguments).finish()
    _is_as_if_nothing_had_happened(tmp_path / "killed", tmp_path / "whole")
    assert inside > KILLS // 4
    devices = "one device" if replicas == 1 else "two replicas"
    figure(
        f"kill -9, resumed bit for bit, {devices}{_named(model)}",
        f"{killed}/{KILLS} ({inside} of them inside a save)",
    )


def _named(model):
    return "".join(f", {word.removeprefix('--model=')}" for word in model)


@pytest.mark.parametrize("model", [[], VQGAN])
def test_terminate(model, tmp_path, figure):
    _Life(tmp_path / "whole", *model).finish()
    rng = random.Random(0)
    taken = 0
    for _ in range(KILLS):
        life = _Life(tmp_path / "ended", "--save-every=100000", *model)
        assert life.has_taken_a_step(), life.process.communicate()[0]
        time.sleep(rng.uniform(0, 0.3))
        assert life.end(signal.SIGTERM) == 143, life.output
        assert "after SIGTERM" in life.output
        steps = len(_steps(tmp_path / "ended"))
        assert steps > taken
        taken = steps
    _Life(tmp_path / "ended", *model).finish()
    _is_as_if_nothing_had_happened(tmp_path / "ended", tmp_path / "whole")
    # Each saved the step that it was in, so that none was taken twice.
    assert _steps(tmp_path / "ended") == _steps(tmp_path / "whole")
    name = f"SIGTERM, saved and ended with 143{_named(model)}"
    figure(name, f"{KILLS}/{KILLS}")


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
