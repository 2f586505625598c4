"""A training that is interrupted goes on exactly, on every backend."""

import keras
import networks
import numpy as np
import pytest
from replicas import compile_model

from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder
from keras_vq.trainers.state import read_state


class _Interrupted(Exception):
    pass


class _At(keras.callbacks.Callback):
    """Ends the program, as it were, after some steps of its life."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps:
            raise _Interrupted


def _autoencoder():
    # With dropout, whose random state has to be there again, too.
    return VQAutoencoder(
        networks.DropoutEncoder(),
        EMAVectorQuantizer(16, 4, decay=0.9, revival_threshold=0.5),
        networks.decoder(),
    )


def _vqgan():
    # Through its phases: three steps, then the discriminator, then both.
    return networks.vqgan(
        {"discriminator_start": 3, "pretraining_steps": 3, "warmup_steps": 4}
    )


def _run(make, directory, steps=None):
    """A life of the program, up to its end or so many steps."""
    keras.utils.set_random_seed(0)
    model = compile_model(make(), keras.optimizers.Adam(1e-3), weight_ema=0.9)
    checkpoint = ResumableCheckpoint(directory, save_every=100)
    end = [_At(steps)] if steps else []
    model.fit(
        checkpoint.resume(networks.images(24, 8, 8, 3)),
        batch_size=8,
        epochs=4,
        shuffle=False,
        callbacks=[checkpoint, *end],
        verbose=0,
    )
    return read_state(model)


@pytest.mark.parametrize(
    "make", [_autoencoder, pytest.param(_vqgan, marks=pytest.mark.soak)]
)
@pytest.mark.filterwarnings("ignore:Only the endless data sets")
def test_goes_on_exactly(make, tmp_path):
    arrays, generators = _run(make, tmp_path / "whole")
    # Before anything was saved, and after the end of an epoch.
    for steps in (2, 5):
        with pytest.raises(_Interrupted):
            _run(make, tmp_path / "cut", steps)
    again, same_generators = _run(make, tmp_path / "cut")
    assert set(again) == set(arrays) and same_generators == generators
    for name, want in arrays.items():
        np.testing.assert_array_equal(again[name], want, err_msg=name)
