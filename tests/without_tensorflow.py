"""Uses the package on JAX; run by `test_without_tensorflow.py`.

Prints a line for each part that went well.
"""

import json
import pathlib
import sys

import keras
import numpy as np

import keras_vq
from keras_vq.applications.samples import load_samples
from keras_vq.cli import main
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import EvaluationSet, Recipe
from keras_vq.training.run import Run, train


def images(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def recipe():
    """A model that learns nothing in no time."""

    def build(recipe, dtype):
        return keras_vq.models.VQVAE(
            hidden_units=8,
            residual_units=4,
            codebook_size=16,
            codebook_dim=4,
            dtype=dtype,
        )

    def data(_, batch_size, seed):
        return keras_vq.data.from_arrays(
            images(24),
            batch_size=batch_size,
            seed=seed,
            shuffle=True,
            flip=True,
            repeat=True,
        )

    def validation(_, batch_size):
        options = {"batch_size": batch_size}
        return keras_vq.data.from_arrays(images(10, 1), **options).take(2)

    return Recipe(
        name="tiny",
        summary="A tiny model.",
        data="Noise.",
        licence="None.",
        build_model=build,
        train_data=data,
        validation_data=validation,
        evaluation_set=lambda _: EvaluationSet(images(8, 1), "noise."),
        steps=4,
        batch_size=6,
        optimizer=AdamPlan(1e-3),
        weight_ema=0.9,
        accumulation_steps=2,
        steps_per_epoch=2,
    )


def command(*words):
    status = main([str(word) for word in words])
    assert status == 0, words


def use_presets(folder):
    model = keras_vq.models.VQVAE.from_preset("vqvae_cifar")
    samples = load_samples("vqvae_cifar", 32)
    codes = model.encode(model.preprocess(samples[:2]))
    decoded = model.postprocess(model.decode(codes))
    error = np.asarray(decoded).astype(float) - samples[:2]
    assert np.square(error).mean() < 1000, "no reconstruction"
    model.save_to_preset(str(folder / "preset"))
    again = keras_vq.models.VQVAE.from_preset(str(folder / "preset"))
    assert (again.encode(model.preprocess(samples[:2])) == codes).all()
    for number, sample in enumerate(samples[:3]):
        path = folder / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        keras_vq.utils.write_png(path, sample)


def use_program(folder):
    pictures, preset = folder / "pictures", folder / "preset"
    command("list")
    command("info", preset)
    command("encode", pictures, folder / "codes.npz", "--preset", preset)
    command("decode", folder / "codes.npz", folder / "decoded")
    assert len(list((folder / "decoded").glob("*.png"))) == 3
    shards = folder / "shards"
    command("encode", pictures, shards, "--tfrecord", "--preset", preset)
    command("reconstruct", pictures, folder / "seen", "--preset", preset)
    assert list((folder / "seen").glob("*.png"))


def use_training(folder):
    run = Run(folder, folder / "run", save_every=2)
    results = train(recipe(), run)
    assert results["training"]["backend"] == "jax"
    assert results["training"]["steps"] == 4
    written = json.loads((folder / "run" / "results.json").read_text())
    assert written["evaluation"]["psnr_db"] > 0


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[2])
    assert keras.backend.backend() == "jax"
    for step in (use_presets, use_program, use_training):
        step(directory)
        print(f"done: {step.__name__}", flush=True)
    assert sys.modules.get("tensorflow") is None
