"""One worker of several, which may be killed and go on from a checkpoint.

Arguments: the folder of the run; `--steps`; `--model`, a kind of
`interrupted_run.build_model`; `--pause-at STEP --pauses WORKER` to stop there
until it is killed; `--whole FOLDER` to train without any interruption first,
in this folder.
"""

import argparse
import hashlib
import json
import pathlib
import time

import keras
import tensorflow as tf
from interrupted_run import (
    STEPS_PER_EPOCH,
    GlobalDraws,
    build_data,
    build_model,
)

from keras_vq.callbacks import ResumableCheckpoint
from keras_vq.trainers.state import read_state


class EachStep(keras.callbacks.Callback):
    """Appends one line a step, with what this step alone came to.

    Keras shows means over the epoch so far. They begin anew here, because
    a resumed epoch knows those of the first worker only.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        line = [int(keras.ops.convert_to_numpy(self.model.steps)), batch]
        line += [float(logs[k]).hex() for k in ("loss", "psnr", "perplexity")]
        with open(self.path, "a") as file:
            file.write(" ".join(map(str, line)) + "\n")


class PauseAt(keras.callbacks.Callback):
    """Waits for the end after a step; the others wait for this worker."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(keras.ops.convert_to_numpy(self.model.steps)) == self.step:
            print("pausing", flush=True)
            time.sleep(120)


def train(folder, strategy, arguments, callbacks=()):
    """Trains, or goes on, and writes hashes of what the next step needs."""
    number = strategy.cluster_resolver.task_id
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Nothing may depend on the workers having the same seed.
    keras.utils.set_random_seed(3 + number)
    with strategy.scope():
        model = build_model(noise=False, kind=arguments.model)
    checkpoint = ResumableCheckpoint(folder / "checkpoints", save_every=3)
    each = EachStep(folder / f"steps-{number}.txt")
    model.fit(
        checkpoint.resume(build_data()),
        steps_per_epoch=STEPS_PER_EPOCH,
        epochs=arguments.steps // STEPS_PER_EPOCH,
        callbacks=[each, GlobalDraws(), *callbacks, checkpoint],
        verbose=0,
    )
    arrays, _ = read_state(model)
    found = {k: hashlib.sha256(v).hexdigest() for k, v in arrays.items()}
    (folder / f"state-{number}.json").write_text(json.dumps(found))


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=21)
    parser.add_argument("--model", default="autoencoder")
    parser.add_argument("--pause-at", type=int)
    parser.add_argument("--pauses", type=int, default=0)
    parser.add_argument("--whole")
    arguments = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if arguments.whole:
        train(arguments.whole, strategy, arguments)
    callbacks = []
    if strategy.cluster_resolver.task_id == arguments.pauses:
        callbacks = [PauseAt(arguments.pause_at)]
    train(arguments.folder, strategy, arguments, callbacks)


if __name__ == "__main__":
    main()
