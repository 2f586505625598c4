"""A training that can be killed at any moment and started again.

    python interrupted_run.py DIRECTORY [--replicas N] [--steps N] ...

Writes the loss of every step to DIRECTORY/steps.txt, and at the end a hash of
all variables to DIRECTORY/hash.txt. Everything that is random takes part:
dropout, noise without a seed of its own, mirrored and shuffled images, revived
codes. The backend is that of KERAS_BACKEND.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import random
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As in the tests, in whose process a run may go on.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import keras
import numpy as np
from networks import vqgan, vqvae2
from replicas import compile_model

import keras_vq
from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder
from keras_vq.trainers.state import read_state

STEPS_PER_EPOCH = 7


@keras.saving.register_keras_serializable(package="interrupted_run")
class Noise(keras.layers.Layer):
    """Noise from the global generator, which belongs to no layer."""

    def call(self, inputs, training=None):
        if not training:
            return inputs
        return inputs + 0.01 * keras.random.normal(keras.ops.shape(inputs))


def build_model(noise=True, kind="autoencoder", **arguments):
    """A small model with everything switched on, compiled.

    Args:
        noise: Whether there is noise of the global generator.
        kind: `"autoencoder"`, or `"vqvae2"` or `"vqgan"`, which have no random
            layers.
        **arguments: Of `compile`.
    """

    def quantizer():
        return EMAVectorQuantizer(16, 4, decay=0.9, revival_threshold=0.5)

    if kind == "vqvae2":
        model = vqvae2(quantizer)
    elif kind == "vqgan":
        model = vqgan(
            # Through all phases, the ramp of the weight within an epoch.
            {
                "discriminator_start": 2,
                "pretraining_steps": 2,
                "warmup_steps": 4,
                "r1_weight": 0.1,
                "lecam_weight": 0.1,
            },
            quantizer=quantizer(),
        )
    else:
        model = _autoencoder(quantizer(), noise)
    return compile_model(
        model,
        keras.optimizers.AdamW(3e-3),
        metrics=[keras_vq.metrics.PSNR((-1, 1))],
        weight_ema=0.9,
        clipnorm=1.0,
        **arguments,
    )


def _autoencoder(quantizer, noise):
    layers = keras.layers
    on_tensorflow = keras.backend.backend() == "tensorflow"
    synchronized = on_tensorflow and not noise
    noise = on_tensorflow and noise
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(8, 4, 2, "same", activation="relu"),
            layers.Dropout(0.2),
            # Else each replica has moving statistics of its own.
            layers.BatchNormalization(synchronized=synchronized),
            # Keras can use its global generator neither on replicas nor in a
            # function that JAX compiles.
            *([Noise()] if noise else []),
            layers.Conv2D(4, 3, padding="same"),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            layers.Conv2DTranspose(8, 4, 2, "same", activation="relu"),
            layers.Conv2D(3, 3, padding="same"),
        ]
    )
    return VQAutoencoder(encoder, quantizer, decoder)


def build_data():
    """Endless batches of 8 images, shuffled and mirrored."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 8, 8, 3), "uint8")
    return keras_vq.data.from_arrays(
        images, batch_size=8, shuffle=True, flip=True, repeat=True, seed=1
    )


class StepLog(keras.callbacks.Callback):
    """Appends one line a step, with what is shown while training."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_batch_end(self, batch, logs=None):
        line = [int(keras.ops.convert_to_numpy(self.model.steps)), batch]
        # Of several levels that of the finest.
        last = [name for name in sorted(logs) if name.startswith("perplexity")]
        line += [float(logs[k]).hex() for k in ("loss", "psnr", last[-1])]
        with open(self.path, "a") as file:
            file.write(" ".join(map(str, line)) + "\n")


class KillAt(keras.callbacks.Callback):
    """Kills its own process after a step, with the signal that none sees."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.steps)) == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class GlobalDraws(keras.callbacks.Callback):
    """Takes numbers from Python's and NumPy's global generators."""

    def on_train_batch_begin(self, batch, logs=None):
        self.last = random.random() + np.random.rand()


def state_hash(model, extra=()):
    """Hash of everything that the next step depends on."""
    arrays, _ = read_state(model)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode() + array.tobytes())
    digest.update(repr(extra).encode())
    return digest.hexdigest()


def run(
    directory, strategy=None, steps=28, callbacks=(), model=None, **checkpoint
):
    """Trains, or goes on, and returns the model.

    Args:
        directory: Path of the folder of the run.
        strategy: A `tf.distribute.Strategy`, a `keras.distribution.
            DataParallel` on JAX, or None.
        steps: Integer, steps of the whole training.
        callbacks: Further callbacks.
        model: Dict, arguments of `build_model`.
        **checkpoint: Arguments of `ResumableCheckpoint`.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(3)
    saver = ResumableCheckpoint(
        directory / "checkpoints", **{"save_every": 3, **checkpoint}
    )
    draws = GlobalDraws()
    with contextlib.ExitStack() as scopes:
        if strategy is not None:
            scopes.enter_context(strategy.scope())
        model = build_model(noise=strategy is None, **(model or {}))
        if keras.backend.backend() == "tensorflow":
            # There the model remembers it; on JAX it has to stay set.
            scopes.close()
        model.fit(
            saver.resume(build_data()),
            steps_per_epoch=STEPS_PER_EPOCH,
            epochs=steps // STEPS_PER_EPOCH,
            callbacks=[
                StepLog(directory / "steps.txt"),
                draws,
                *callbacks,
                saver,
            ],
            verbose=0,
        )
        last = getattr(draws, "last", None)
        (directory / "hash.txt").write_text(state_hash(model, last))
    return model


def make_strategy(devices):
    """What trains on so many logical devices of the CPU; None for one."""
    if devices == 1:
        return None
    if keras.backend.backend() == "jax":
        cpus = keras.distribution.list_devices("cpu")[:devices]
        return keras.distribution.DataParallel(devices=cpus)
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--model", default="autoencoder")
    arguments = parser.parse_args()
    run(
        arguments.directory,
        make_strategy(arguments.replicas),
        arguments.steps,
        [KillAt(arguments.kill_at)] if arguments.kill_at else [],
        model={"kind": arguments.model},
        save_every=arguments.save_every,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
