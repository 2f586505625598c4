"""The losses that a run of `keras-vq train` has at each step.

    python tests/backends/recorded_runs.py train START RECIPE --data-dir DIR \
        --output-dir OUT --stop-after 50
    python tests/backends/recorded_runs.py compare OUT OTHER

The first is `keras-vq train` with the same words, from the weights and codes in
the file START, which is written where it is not there yet; it validates and
measures on few images. Run it once on each backend. The second prints how far
the losses of the two runs are apart.

The functions train small networks of the recipes, for `recorded`.
"""

import dataclasses
import io
import pathlib
import sys
import tempfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import networks
import numpy as np
from PIL import Image

from keras_vq.cli import main as program
from keras_vq.data.examples import serialize_example
from keras_vq.data.tfrecord import write_records
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQGAN, VQVAE, PatchGAN
from keras_vq.training import recipe as recipes
from keras_vq.training import run

STEPS = 50
_FILE = "losses.npz"


def vqvae_cifar(*words):
    """The losses of each step of the recipe, with a small network.

    Args:
        *words: Further words of the command line.
    """

    def build_model(recipe, dtype=None):
        return VQVAE(
            hidden_units=16,
            residual_units=8,
            residual_blocks=1,
            codebook_size=32,
            codebook_dim=8,
            dtype=dtype,
            name=recipe.name,
        )

    return _run_on_made_data("vqvae_cifar", build_model, *words)


def vqgan_tiny_imagenet():
    """The same of a VQGAN; the discriminator joins after five steps."""

    def build_model(recipe, dtype=None):
        return VQGAN(
            base_channels=4,
            channel_multipliers=(1, 2),
            residual_blocks=1,
            attention_factors=(),
            middle_attention=False,
            latent_channels=8,
            groups=2,
            codebook_dim=8,
            quantizer=EMAVectorQuantizer(
                32,
                8,
                decay=0.97,
                revival_threshold=0.05,
                dtype=dtype,
                name="quantizer",
            ),
            discriminator=PatchGAN(
                filters=4, num_layers=1, dtype=dtype, name="discriminator"
            ),
            adversarial=recipe.adversarial_training(
                loss="non_saturating", weight=0.8, warmup_steps=5
            ),
            # At the kinks of |x| and of the hinge rounding decides.
            reconstruction_loss="mse",
            perceptual_loss=None,
            dtype=dtype,
            name=recipe.name,
        )

    # Smaller images.
    data = recipes.load_recipe("vqvae_cifar")
    names = ("train_data", "validation_data", "evaluation_set")
    return _run_on_made_data(
        "vqgan_tiny_imagenet",
        build_model,
        # Adam's first steps are about the sign of a gradient, whatever its
        # size. At the recipe's rate what rounding decides there grows to
        # percents of a loss within ten steps, with other kernels of the same
        # backend, too.
        *("--discriminator-start", 5, "--learning-rate", 1e-5),
        lpips=None,
        **{name: getattr(data, name) for name in names},
    )


def _run_on_made_data(name, build_model, *words, **changes):
    """Trains on made files of CIFAR-10, with start values of NumPy."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "cifar10").mkdir()
        for split, count in (("train", 64), ("test", 8)):
            examples = [_example(10 * count + i) for i in range(count)]
            write_records(directory / f"cifar10/{split}.tfrecord", examples)
        recipe = dataclasses.replace(
            recipes.load_recipe(name),
            build_model=lambda *a: networks.randomized(build_model(*a)),
            **changes,
        )
        losses = train(
            recipe,
            *(name, "--data-dir", directory, "--output-dir", directory / "out"),
            *("--steps", STEPS, "--batch-size", 4, *words),
        )
    return np.stack(list(losses.values()), axis=1)


def _example(seed):
    """A picture of colours that run into each other, as a PNG."""
    rng = np.random.RandomState(seed)
    rows = np.linspace(-1, 1, 32)
    waves = rng.uniform(-4, 4, (3, 3))
    angles = (
        waves[0] * rows[:, None, None]
        + waves[1] * rows[:, None] ** 2
        + waves[2]
    )
    pixels = np.uint8(np.rint(127.5 + 120 * np.sin(angles)))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return serialize_example({"image": stream.getvalue(), "label": [0]})


class Losses(keras.callbacks.Callback):
    """Collects the losses of each step of an epoch."""

    def __init__(self):
        super().__init__()
        self.sums = [{}]

    def on_train_batch_end(self, batch, logs=None):
        # Keras shows the means over the steps of the epoch so far.
        self.sums.append(
            {
                name: (batch + 1) * float(value)
                for name, value in logs.items()
                if name.endswith("loss")
            }
        )

    def by_name(self):
        names = sorted(self.sums[-1])
        return {
            name: np.diff([sums.get(name, 0.0) for sums in self.sums])
            for name in names
        }


def train(recipe, *words) -> dict:
    """Trains with the words of the command line; the losses by name."""
    losses, callbacks = Losses(), run._callbacks
    with (
        mock.patch.object(recipes, "load_recipe", lambda *_: recipe),
        mock.patch.object(
            run, "_callbacks", lambda *a: [losses, *callbacks(*a)]
        ),
    ):
        status = program(["train", *map(str, words)])
    assert status == 0, words
    return losses.by_name()


def _train(start, name, *words):
    recipe = recipes.load_recipe(name)

    data_dir, output_dir = (
        pathlib.Path(words[words.index(option) + 1])
        for option in ("--data-dir", "--output-dir")
    )

    def build_model(changed, dtype=None):
        model = recipe.build_model(changed, dtype)
        if not start.exists():
            size = changed.batch_size
            model.adapt(recipe.train_data(data_dir, batch_size=size, seed=0))
            model.save_weights(start)
        model.load_weights(start)
        return model

    def evaluation_set(data_dir):
        found = recipe.evaluation_set(data_dir)
        return dataclasses.replace(found, images=found.images[:16])

    changed = dataclasses.replace(
        recipe,
        build_model=build_model,
        validation_data=lambda d, b: recipe.validation_data(d, b).take(1),
        evaluation_set=evaluation_set,
    )
    losses = train(changed, name, *words)
    np.savez(output_dir / _FILE, **losses)


def _compare(*folders):
    one, other = (np.load(pathlib.Path(f) / _FILE) for f in folders)
    for name in one:
        if not one[name].any():
            continue  # No discriminator yet.
        apart = np.abs(other[name] - one[name])
        # A generator's loss passes 0.
        mean = np.abs(one[name]).mean()
        print(f"{name}: {apart.max() / mean:.1e} of its mean apart at most")


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    {"train": _train, "compare": _compare}[command](pathlib.Path(first), *rest)
