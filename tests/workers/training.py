"""One worker of several, or one device: trains, evaluates, saves, loads.

Arguments: number of steps, optimizer ("sgd" or "adam"), model ("autoencoder",
"vqvae2", or "vqgan", with its discriminator switched on).
"""

import contextlib
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from networks import decoder, encoder, images, lively_vqvae2, smooth_vqgan
from replicas import compile_model, values, variables
from workers_harness import report

from keras_vq import data
from keras_vq.callbacks import CodebookHealth, ReconstructionGrid
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.metrics import PSNR
from keras_vq.models import VQAutoencoder
from keras_vq.trainers import workers


def build(optimizer, kind):
    def codes():
        return EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.8)

    if kind == "vqgan":
        model = smooth_vqgan({"lecam_weight": 0.1}, quantizer=codes())
    elif kind == "vqvae2":
        model = lively_vqvae2(codes)
    else:
        model = VQAutoencoder(encoder(), codes(), decoder())
    if optimizer == "sgd":
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    return compile_model(
        model,
        optimizer,
        metrics=[PSNR()],
        weight_ema=0.9,
        # Batch normalization depends on how a batch is split.
        accumulation_steps=1 if kind == "vqgan" else 2,
        clipnorm=0.5,
    )


def pictures(count, seed=0):
    return VQAutoencoder.postprocess(images(count, 8, 8, 3, seed=seed))


def main(steps, optimizer, kind, folder, strategy=None):
    chief = workers.is_chief(strategy)
    result, arrays = {"chief": chief}, {}
    # A short test has time for one validation.
    epochs = 5 if steps >= 50 else 1
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    with scope:
        # Nothing may depend on the workers having the same seed.
        keras.utils.set_random_seed(0 if chief else 1)
        model = build(optimizer, kind)
        start = model.get_weights()
    folder.mkdir(exist_ok=True)
    endless = data.from_arrays(
        pictures(32), batch_size=8, shuffle=True, flip=True, repeat=True
    )
    # The last batch of 1 leaves one of two workers without images.
    finite = data.from_arrays(pictures(17, seed=1), batch_size=8)
    grid = ReconstructionGrid(
        model.preprocess(pictures(4)), folder / "grids", every=1
    )
    history = model.fit(
        endless,
        validation_data=finite,
        steps_per_epoch=steps // epochs,
        epochs=epochs,
        callbacks=[grid, CodebookHealth(patience=99)],
        verbose=0,
    )
    result["logs"] = history.history
    result["moved"] = min(
        float(np.abs(new - old).max())
        for weight, old, new in zip(
            model.weights, start, model.get_weights(), strict=True
        )
        if weight.name == "kernel"
    )
    result["evaluate"] = model.evaluate(finite, verbose=0, return_dict=True)
    result["evaluate_array"] = model.evaluate(
        model.preprocess(pictures(17, seed=1)),
        batch_size=8,
        verbose=0,
        return_dict=True,
    )
    arrays["predict"] = model.predict(
        model.preprocess(pictures(19, seed=2)), batch_size=8, verbose=0
    )
    for index, value in enumerate(values(model)):
        arrays[f"variable_{index:03}"] = value
    result["paths"] = [v.path for v in variables(model)]
    save_and_go_on(model, endless, folder, strategy, arrays)
    np.savez(folder / "arrays.npz", **arrays)
    return result


def save_and_go_on(model, endless, folder, strategy, arrays):
    """The chief's file, read by all, continues like the model itself."""
    scope = strategy.scope() if strategy else contextlib.nullcontext()
    shared = folder.parent / f"shared-{'many' if strategy else 'one'}"
    if workers.is_chief(strategy):
        shared.mkdir()
        model.save(shared / "model.keras")
        model.save_to_preset(shared / "preset")
    workers.leave_together(strategy)
    with scope:
        loaded = keras.models.load_model(shared / "model.keras")
    for number, some in enumerate((loaded, model)):
        some.fit(endless, steps_per_epoch=2, verbose=0)
        for index, value in enumerate(values(some)):
            arrays[f"after_{number}_{index:03}"] = value


if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    number = strategy.cluster_resolver.task_id
    folder = pathlib.Path.cwd() / f"worker-{number}"
    report(main(int(sys.argv[1]), *sys.argv[2:], folder, strategy))
