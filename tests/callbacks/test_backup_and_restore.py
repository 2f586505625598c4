"""Keras' own `BackupAndRestore` restarts a VQGAN where an epoch began."""

import keras
import numpy as np
import pytest
from feeding import batches
from networks import images, vqgan
from replicas import compile_model, number, values, variables

from keras_vq.layers import EMAVectorQuantizer

# Backed up after 2 steps: both optimizers have moments, the weight grows on.
PHASES = {"discriminator_start": 1, "warmup_steps": 4, "lecam_weight": 0.1}


def _train(folder, seed, *callbacks):
    """Two epochs of two steps; the seed makes the start values."""
    keras.utils.set_random_seed(seed)
    codes = EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.5)
    model = compile_model(
        vqgan(PHASES, quantizer=codes),
        keras.optimizers.Adam(1e-2),
        weight_ema=0.9,
        clipnorm=1.0,
        # Step by step: a graph of each phase would take longer.
        run_eagerly=True,
    )
    backup = keras.callbacks.BackupAndRestore(folder)
    data = batches(images(8, 8, 8, 3), size=4)
    history = model.fit(
        data,
        epochs=2,
        shuffle=False,
        callbacks=[backup, *callbacks],
        verbose=0,
    )
    return model, history.epoch


class _Fail(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if number(self.model.steps) == 3:
            raise RuntimeError("the power is gone")


@pytest.mark.soak
def test_vqgan_goes_on_from_the_last_epoch(tmp_path):
    whole, _ = _train(tmp_path / "whole", 0)
    with pytest.raises(RuntimeError, match="power"):
        _train(tmp_path / "backup", 0, _Fail())
    # Another seed: nothing but the file makes the two alike.
    resumed, epochs = _train(tmp_path / "backup", 1)
    assert epochs == [1]
    pair = resumed.optimizer
    iterations = [
        number(optimizer.iterations)
        for optimizer in (pair.generator, pair.discriminator)
    ]
    assert (number(resumed.steps), iterations) == (4, [4, 3])
    for variable, got, want in zip(
        variables(whole), values(resumed), values(whole), strict=True
    ):
        np.testing.assert_array_equal(got, want, variable.path)
