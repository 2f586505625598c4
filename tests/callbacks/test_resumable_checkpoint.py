"""A training that is interrupted anywhere ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys

import interrupted_run
import keras
import numpy as np
import pytest
from feeding import batches
from networks import decoder, encoder, images
from replicas import number, values

import keras_vq
from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder
from keras_vq.utils import snapshots


class _Interrupted(Exception):
    pass


class _At(keras.callbacks.Callback):
    """Does something after a step, before the checkpoint has its turn."""

    def __init__(self, step, action):
        super().__init__()
        self.step = step
        self.action = action

    def on_train_batch_end(self, batch, logs=None):
        if number(self.model.steps) == self.step:
            self.action()


def _fail():
    raise _Interrupted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    interrupted_run.run(directory)
    return directory


def _assert_as_if_nothing_had_happened(directory, uninterrupted, steps=28):
    expected = (uninterrupted / "steps.txt").read_text().splitlines()
    assert len(expected) == steps
    # Steps since the last checkpoint were taken twice, both times alike.
    taken = (directory / "steps.txt").read_text().splitlines()
    assert sorted(set(taken), key=taken.index) == expected
    hashes = [(d / "hash.txt").read_text() for d in (directory, uninterrupted)]
    assert hashes[0] == hashes[1]


def test_goes_on_exactly(uninterrupted, tmp_path):
    # Before the first save, after one, at the last step of an epoch, and at
    # the first one of the next.
    for step in (2, 5, 14, 15):
        with pytest.raises(_Interrupted):
            interrupted_run.run(tmp_path, callbacks=[_At(step, _fail)])
    interrupted_run.run(tmp_path)
    _assert_as_if_nothing_had_happened(tmp_path, uninterrupted)


@pytest.mark.soak
def test_vqgan_goes_on_exactly(tmp_path):
    """In each of its phases, both networks with their optimizers."""
    # Step by step: graphs would take longer.
    arguments = {
        "steps": 14,
        "model": {"kind": "vqgan", "run_eagerly": True},
        "save_every": 1,
    }
    interrupted_run.run(tmp_path / "whole", **arguments)
    for step in (2, 4, 6):
        with pytest.raises(_Interrupted):
            callbacks = [_At(step, _fail)]
            interrupted_run.run(
                tmp_path / "cut", callbacks=callbacks, **arguments
            )
    interrupted_run.run(tmp_path / "cut", **arguments)
    _assert_as_if_nothing_had_happened(tmp_path / "cut", tmp_path / "whole", 14)


def test_kill_nine(uninterrupted, tmp_path):
    """As `make soak` does it twenty times, at random moments."""
    program = [sys.executable, interrupted_run.__file__, tmp_path]
    killed = subprocess.run([*program, "--kill-at=5"])
    assert killed.returncode == -signal.SIGKILL
    interrupted_run.run(tmp_path)
    _assert_as_if_nothing_had_happened(tmp_path, uninterrupted)


def test_goes_on_exactly_on_replicas(two_devices, tmp_path):
    interrupted_run.run(tmp_path / "whole", two_devices)
    with pytest.raises(_Interrupted):
        callbacks = [_At(18, _fail)]
        interrupted_run.run(tmp_path / "cut", two_devices, 28, callbacks)
    interrupted_run.run(tmp_path / "cut", two_devices)
    _assert_as_if_nothing_had_happened(tmp_path / "cut", tmp_path / "whole")


def test_from_one_device_to_replicas(two_devices, uninterrupted, tmp_path):
    """Another number of replicas gets the same state, sums of metrics too."""
    with pytest.raises(_Interrupted):
        interrupted_run.run(tmp_path, callbacks=[_At(5, _fail)])
    interrupted_run.run(tmp_path, two_devices, steps=7)
    lines = {}
    for directory in (tmp_path, uninterrupted):
        text = (directory / "steps.txt").read_text().splitlines()
        lines[directory] = [float.fromhex(line.split()[2]) for line in text]
    # Dropout draws other numbers, but most of the mean is from before.
    np.testing.assert_allclose(
        lines[tmp_path][-1], lines[uninterrupted][6], rtol=0.05
    )


def test_signals_save_first(uninterrupted, tmp_path):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]

    def newest_after(step, number, error):
        send = _At(step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(error) as raised:
            interrupted_run.run(tmp_path, callbacks=[send], save_every=1000)
        if error is SystemExit:
            assert raised.value.code == 143
        return snapshots.find_snapshots(tmp_path / "checkpoints")[-1].name

    assert newest_after(4, signal.SIGTERM, SystemExit) == "0000-000004"
    assert newest_after(11, signal.SIGINT, KeyboardInterrupt) == "0001-000004"
    # After the last step of an epoch, its end comes first.
    assert newest_after(14, signal.SIGTERM, SystemExit) == "0002-000000"
    assert handlers == [
        signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)
    ]
    interrupted_run.run(tmp_path)
    _assert_as_if_nothing_had_happened(tmp_path, uninterrupted)
    # No step was taken twice.
    assert (tmp_path / "steps.txt").read_text() == (
        uninterrupted / "steps.txt"
    ).read_text()


def test_damaged_newest(uninterrupted, tmp_path):
    with pytest.raises(_Interrupted):
        interrupted_run.run(tmp_path, callbacks=[_At(20, _fail)])
    newest = snapshots.find_snapshots(tmp_path / "checkpoints")[-1]
    assert newest.name == "0002-000004"
    content = bytearray((newest / "state.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.npz").write_bytes(content)
    with pytest.warns(UserWarning, match="0002-000004.*was changed.*before it"):
        interrupted_run.run(tmp_path)
    _assert_as_if_nothing_had_happened(tmp_path, uninterrupted)


def test_callbacks_see_one_run(tmp_path):
    class Calls(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.calls = []

        def __getattribute__(self, name):
            if name.startswith("on_") and "batch" not in name:
                self.calls.append(name)
            return super().__getattribute__(name)

        def on_train_batch_begin(self, batch, logs=None):
            self.calls.append(batch)

    with pytest.raises(_Interrupted):
        interrupted_run.run(tmp_path, callbacks=[_At(5, _fail)])
    calls = Calls()
    calls.calls.clear()
    model = interrupted_run.run(tmp_path, steps=14, callbacks=[calls])
    assert calls.calls == [
        "on_train_begin",
        "on_epoch_begin",
        *range(3, 7),
        "on_epoch_end",
        "on_epoch_begin",
        *range(7),
        "on_epoch_end",
        "on_train_end",
    ]
    assert model.history.epoch == [0, 1]
    assert len(model.history.history["loss"]) == 2


def test_finished_run_stays_as_it_is(tmp_path):
    interrupted_run.run(tmp_path, steps=14)
    model = interrupted_run.run(tmp_path, steps=14)
    assert number(model.steps) == 14
    assert (tmp_path / "steps.txt").read_text().count("\n") == 14


# Data sets that cannot be moved on


def _model():
    model = VQAutoencoder(encoder(), EMAVectorQuantizer(8, 4), decoder())
    model.compile("sgd")
    return model


def test_other_data_begins_the_epoch_anew(tmp_path):
    dataset = batches(images(24, 8, 8, 3), size=8)
    first = ResumableCheckpoint(tmp_path, save_every=2)
    with pytest.raises(_Interrupted):
        _model().fit(
            first.resume(dataset),
            epochs=3,
            callbacks=[_At(6, _fail), first],
            verbose=0,
        )
    second = ResumableCheckpoint(tmp_path)
    model = _model()
    with pytest.warns(UserWarning, match="1 of its steps"):
        history = model.fit(
            second.resume(dataset), epochs=3, callbacks=[second], verbose=0
        )
    assert history.epoch == [1, 2]
    assert number(model.steps) == 4 + 6


@pytest.mark.filterwarnings("error:Only the")
def test_finite_data_is_shuffled_as_in_the_same_epoch(tmp_path):
    """Only the first life looks at the data to start the codebook."""

    def run(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model, checkpoint = _model(), ResumableCheckpoint(folder)
        pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3))
        dataset = keras_vq.data.from_arrays(
            pixels.astype("uint8"), batch_size=8, shuffle=True, flip=True
        )
        model.fit(
            checkpoint.resume(dataset),
            epochs=3,
            callbacks=[checkpoint, *callbacks],
            verbose=0,
        )
        return model

    whole = run(tmp_path / "whole")
    for step in (4, 7):
        with pytest.raises(_Interrupted):
            run(tmp_path / "cut", _At(step, _fail))
    resumed = run(tmp_path / "cut")
    for got, want in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(got, want)


# What is refused


def test_used_directory_without_resume(tmp_path):
    checkpoint = ResumableCheckpoint(tmp_path)
    data = images(8, 8, 8, 3)
    _model().fit(data, callbacks=[checkpoint], verbose=0)
    with pytest.raises(ValueError, match="earlier run.*resume"):
        _model().fit(data, callbacks=[checkpoint], verbose=0)


def test_checkpoint_of_another_model(tmp_path):
    checkpoint = ResumableCheckpoint(tmp_path)
    data = images(8, 8, 8, 3)
    _model().fit(data, callbacks=[checkpoint], verbose=0)
    other = VQAutoencoder(encoder(), EMAVectorQuantizer(16, 4), decoder())
    other.compile("adam")
    before = other.get_weights()
    with pytest.raises(ValueError, match="another model.*differences"):
        other.fit(checkpoint.resume(data), callbacks=[checkpoint], verbose=0)
    for got, want in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_other_models(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="models of keras_vq"):
        model.fit(
            np.ones((4, 2)),
            np.ones(4),
            callbacks=[ResumableCheckpoint(tmp_path)],
            verbose=0,
        )


def test_optimizer_average(tmp_path):
    model = _model()
    model.compile(keras.optimizers.SGD(use_ema=True))
    with pytest.raises(ValueError, match="weight_ema"):
        model.fit(
            images(8, 8, 8, 3),
            callbacks=[ResumableCheckpoint(tmp_path)],
            verbose=0,
        )


@pytest.mark.parametrize("arguments", [{"save_every": 0}, {"keep": 0.5}])
def test_arguments(arguments, tmp_path):
    with pytest.raises(ValueError, match="positive integer"):
        ResumableCheckpoint(tmp_path, **arguments)


def test_files_are_readable_and_few(tmp_path):
    model = interrupted_run.run(tmp_path, steps=14, save_every=1, keep=3)
    written = snapshots.find_snapshots(tmp_path / "checkpoints")
    assert [path.name for path in written] == [
        "0001-000005",
        "0001-000006",
        "0002-000000",
    ]
    manifest = json.loads((written[-1] / "manifest.json").read_text())
    assert manifest["epoch"] == 2 and manifest["batches"] == 14
    arrays, _ = snapshots.read_snapshot(written[-1])
    np.testing.assert_array_equal(
        arrays["model/0"], keras.ops.convert_to_numpy(model.variables[0])
    )
    assert keras_vq.callbacks.ResumableCheckpoint is ResumableCheckpoint
