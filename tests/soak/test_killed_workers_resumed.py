"""Workers that are killed at random moments, one of them or both."""

import pathlib
import random
import signal
import sys
import time

import pytest
import workers_harness

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "callbacks"))

from test_resumed_workers import (
    SCRIPT,
    assert_as_if_nothing_had_happened,
    steps_of,
)

from keras_vq.utils import snapshots

STEPS = 210


def _has_gone_on(folder, pair):
    """Waits until this life has taken four steps, of which three are saved."""
    before = len(steps_of(folder, 0)) if folder.exists() else 0
    end = time.monotonic() + 600
    log = folder / "steps-0.txt"
    while not log.exists() or len(steps_of(folder, 0)) < before + 4:
        for worker in pair:
            assert worker.process.poll() is None, worker.output[-6000:]
        assert time.monotonic() < end
        time.sleep(0.005)


def _is_writing(folder, seconds=10):
    """Waits until a checkpoint is being written."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any((folder / "checkpoints").glob(".*.tmp")):
            return True
    return False


# Each life of a VQGAN begins with the graphs of its phases.
@pytest.mark.parametrize(
    "kind, victims, kills",
    [
        ("autoencoder", (0, 1), 6),
        ("autoencoder", (0,), 3),
        ("autoencoder", (1,), 3),
        ("vqgan", (0, 1), 2),
        ("vqgan", (0,), 2),
    ],
)
def test_killed_workers_go_on(kind, victims, kills, tmp_path, figure):
    resumed, whole = tmp_path / "resumed", tmp_path / "whole"
    words = [f"--steps={STEPS}", f"--model={kind}"]
    command = [SCRIPT, str(whole), *words]
    with workers_harness.cluster(command, tmp_path) as pair:
        for worker in pair:
            assert worker.wait(900) == 0, worker.output[-6000:]
    rng = random.Random(len(victims) + victims[0])
    command = [SCRIPT, str(resumed), *words]
    inside = 0
    for number in range(kills):
        with workers_harness.cluster(command, tmp_path) as pair:
            _has_gone_on(resumed, pair)
            if number % 2:
                inside += _is_writing(resumed)
            else:
                time.sleep(rng.uniform(0, 0.4))
            for victim in victims:
                pair[victim].kill()
            codes = [worker.wait(30) for worker in pair]
            for index, code in enumerate(codes):
                if index in victims:
                    assert code == -signal.SIGKILL, "took all its steps"
                    continue
                assert code == 1
                lost = f"WorkerLostError: Lost worker {victims[0]} at "
                assert lost in pair[index].output
        assert snapshots.newest_snapshot(resumed / "checkpoints")
    with workers_harness.cluster(command, tmp_path) as pair:
        for worker in pair:
            assert worker.wait(900) == 0, worker.output[-6000:]
    assert_as_if_nothing_had_happened(resumed, whole, STEPS)
    who = "both" if len(victims) == 2 else f"worker {victims[0]} alone"
    figure(
        f"kill -9 of 2 workers, {kind}, {who}, resumed bit for bit",
        f"{kills}/{kills} ({inside} of them inside a save)",
    )
