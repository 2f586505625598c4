"""A training that is killed again and again, and what becomes of it."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras

from keras_vq.utils import snapshots

PROGRAM = pathlib.Path(__file__).parents[1] / "interrupted_run.py"
KILLS = 20
STEPS = 420


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
            # On JAX the lives of a run compile once, and that which nobody
            # kills compiles for itself.
            env={
                **os.environ,
                "JAX_COMPILATION_CACHE_DIR": str(directory / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            },
        )

    def _size(self):
        return self.log.stat().st_size if self.log.exists() else 0

    def has_taken_a_step(self):
        while self.process.poll() is None and self._size() == self.before:
            time.sleep(0.002)
        return self.process.poll() is None

    def is_writing(self):
        """Waits until one checkpoint is written and the next one begun.

        So every such life takes the training on, however long it traces.
        """
        folder = self.directory / "checkpoints"
        known = set(snapshots.find_snapshots(folder))
        while self.process.poll() is None:
            if any(folder.glob(".*.tmp")):
                if set(snapshots.find_snapshots(folder)) - known:
                    return True
            time.sleep(0.0005)
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


def _name(kind):
    backend = keras.backend.backend()
    return kind if backend == "tensorflow" else f"{kind}, {backend}"


def check_kills(replicas, kind, tmp_path, figure):
    """Every other kill comes while a checkpoint is being written."""
    arguments = [f"--replicas={replicas}", f"--model={kind}"]
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
        assert found or killed < 2
    _Life(tmp_path / "killed", *arguments).finish()
    _is_as_if_nothing_had_happened(tmp_path / "killed", tmp_path / "whole")
    assert inside > KILLS // 4
    devices = "one device" if replicas == 1 else "two replicas"
    figure(
        f"kill -9, resumed bit for bit, {devices}, {_name(kind)}",
        f"{killed}/{KILLS} ({inside} of them inside a save)",
    )


def check_terminations(kind, tmp_path, figure):
    """Each saves the step that it is in, so that none is taken twice."""
    model = [f"--model={kind}"]
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
    assert _steps(tmp_path / "ended") == _steps(tmp_path / "whole")
    name = f"SIGTERM, saved and ended with 143, {_name(kind)}"
    figure(name, f"{KILLS}/{KILLS}")
