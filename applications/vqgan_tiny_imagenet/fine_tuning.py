"""Three ways of fine-tuning a VQGAN on somebody's photographs, measured.

    python -m keras_vq.applications.vqgan_tiny_imagenet.fine_tuning \
        --data-dir DIR --output fine_tuning.json

DIR holds `photos`, a folder of pictures, and `weights`, the files of LPIPS.
Every ninth picture is kept for the evaluation. Each picture is resized to a
short side of 128 pixels; training sees random 64x64 pieces of it, mirrored at
random, the evaluation five fixed ones.

What is trained is chosen as for any Keras model, by `trainable`, before
`compile`. The discriminator that the preset was trained against goes on; a
fresh one learns alone first (`AdversarialTraining.pretraining_steps`), or it
would spoil a good autoencoder with its noise.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np

from keras_vq import data
from keras_vq.losses import AdversarialTraining
from keras_vq.models import VQGAN, PatchGAN
from keras_vq.training.evaluation import Evaluation, published_files
from keras_vq.training.recipe import EvaluationSet
from keras_vq.utils.files import atomic_path

SIZE = 64
SHORT_SIDE = 128
STEPS = 500
BATCH_SIZE = 16
LEARNING_RATE = 1e-4
# Of the adversarial loss, as in the recipe of the preset.
WEIGHT = 0.2
# Of a discriminator that starts anew.
PRETRAINING_STEPS = 100
WARMUP_STEPS = 100


def train_decoder(model):
    """The codes of every image stay what they are."""
    model.encoder.trainable = False
    model.quantizer.trainable = False


def keep_codebook(model):
    """Codes mean the same as before, and the encoder may choose others."""
    model.quantizer.trainable = False


def train_everything(model):
    """Codes get a new meaning."""


RECIPES = {
    "decoder": train_decoder,
    "codebook frozen": keep_codebook,
    "everything": train_everything,
}


def read_photos(data_dir) -> tuple[np.ndarray, np.ndarray]:
    """Pictures for training and for the evaluation, uint8, 128x128 pixels."""
    dataset = data.from_folder(
        pathlib.Path(data_dir) / "photos",
        image_size=SHORT_SIDE,
        batch_size=100,
        on_error="skip",
    )
    images = np.concatenate([VQGAN.postprocess(np.asarray(x)) for x in dataset])
    kept = np.arange(len(images)) % 9 == 0
    return images[~kept], images[kept]


def pieces(images: np.ndarray) -> np.ndarray:
    """The middle and the corners of each image."""
    end = SHORT_SIDE - SIZE
    places = [(end // 2, end // 2), (0, 0), (0, end), (end, 0), (end, end)]
    return np.concatenate(
        [images[:, y : y + SIZE, x : x + SIZE] for y, x in places]
    )


def load(preset: str, fresh_discriminator: bool) -> VQGAN:
    """The preset, with its discriminator or with one that starts anew."""
    if not fresh_discriminator:
        return VQGAN.from_preset(
            preset, adversarial=AdversarialTraining(weight=WEIGHT)
        )
    return VQGAN.from_preset(
        preset,
        discriminator=PatchGAN(filters=32, num_layers=2, name="discriminator"),
        adversarial=AdversarialTraining(
            weight=WEIGHT,
            pretraining_steps=PRETRAINING_STEPS,
            warmup_steps=WARMUP_STEPS,
        ),
    )


def fine_tune(model, choose, images: np.ndarray, steps: int, seed: int):
    """Trains what `choose` leaves trainable.

    Args:
        model: A `VQGAN`.
        choose: Function of the model that freezes parts of it.
        images: uint8 images, larger than the pieces that are trained on.
        steps: Integer, steps of the autoencoder.
        seed: Integer, seed of the data.
    """
    choose(model)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, beta_1=0.5, beta_2=0.9),
        discriminator_optimizer=keras.optimizers.Adam(
            LEARNING_RATE, beta_1=0.5, beta_2=0.9
        ),
    )
    dataset = data.from_arrays(
        images,
        image_size=SIZE,
        resize=SHORT_SIDE,
        crop="random",
        flip=True,
        shuffle=True,
        repeat=True,
        seed=seed,
        batch_size=BATCH_SIZE,
    )
    # Steps in which the discriminator learns alone come on top.
    steps += model.adversarial.adversarial_start
    model.fit(dataset, steps_per_epoch=steps, verbose=2)


def measure_all(preset: str, data_dir, steps: int, seed: int = 0) -> dict:
    """Fine-tunes the preset in each way, and measures before and after.

    Args:
        preset: Name or directory.
        data_dir: Directory with `photos` and `weights`.
        steps: Integer, steps of the autoencoder.
        seed: Integer, seed of data and fresh weights.

    Returns:
        Dict of `protocol` and of the figures by recipe.
    """
    train, kept = read_photos(data_dir)
    evaluation = Evaluation(
        EvaluationSet(
            pieces(kept),
            f"Middle and corners of {len(kept)} photographs, 64x64 of "
            "128x128 pixels, none of which was trained on.",
        ),
        "squeeze",
    )
    codes_before = None
    results = {}
    for fresh in (False, True):
        for name, choose in RECIPES.items():
            keras.utils.set_random_seed(seed)
            model = load(preset, fresh)
            images = model.preprocess(evaluation.set.images[:100])
            if codes_before is None:
                results["as it is"] = evaluation.measure(model)
                codes_before = np.asarray(model.encode(images))
            started = time.monotonic()
            fine_tune(model, choose, train, steps, seed)
            label = f"{name}, {'fresh' if fresh else 'stored'} discriminator"
            changed = np.asarray(model.encode(images)) != codes_before
            results[label] = {
                **evaluation.measure(model),
                "codes_changed": round(float(changed.mean()), 4),
                "seconds": round(time.monotonic() - started),
            }
            print(label, json.dumps(results[label]), flush=True)
    return {
        "protocol": (
            f"{steps} steps of {BATCH_SIZE} random pieces of {len(train)} "
            f"photographs, Adam({LEARNING_RATE}, beta_1=0.5, beta_2=0.9) for "
            f"both networks, an adversarial weight of {WEIGHT}, seed {seed}. "
            "A fresh discriminator learns alone "
            f"for {PRETRAINING_STEPS} steps before that, and its weight grows "
            f"over {WARMUP_STEPS}."
        ),
        "results": results,
    }


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--preset", default="vqgan_tiny_imagenet")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    with published_files(pathlib.Path(arguments.data_dir)):
        found = measure_all(
            arguments.preset, arguments.data_dir, arguments.steps
        )
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
