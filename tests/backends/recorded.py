"""What trainings and presets compute, to be compared between backends.

    KERAS_BACKEND=tensorflow python tests/backends/recorded.py FILE [PART ...]

writes what the running backend computes; of parts of a file that is there
already, the others stay. `recorded_by_tensorflow.npz` is that of TensorFlow.
Start values and batches are NumPy's, so they are the same everywhere; nothing
is drawn while a model trains. The part `evaluation` needs KERAS_VQ_DATA.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras
import networks
import numpy as np
import recorded_runs
from replicas import values, variables

from keras_vq.applications.samples import load_samples
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder
from keras_vq.training.evaluation import Evaluation, published_files
from keras_vq.training.recipe import EvaluationSet

STEPS = 50
FILE = pathlib.Path(__file__).with_name("recorded_by_tensorflow.npz")
# And the side of the images that each was made for.
PRESETS = {
    "vqvae_cifar": 32,
    "vqvae2_tiny_imagenet": 64,
    "vqgan_tiny_imagenet": 64,
}


def _quantizer():
    return EMAVectorQuantizer(16, 4, decay=0.9, codebook_initializer="zeros")


def vqvae():
    """A VQ-VAE whose codes are moving averages, with revival."""
    model = VQVAE(
        hidden_units=8,
        residual_units=4,
        residual_blocks=1,
        codebook_dim=4,
        quantizer=_quantizer(),
    )
    return networks.randomized(model)


def vqvae2():
    """A VQ-VAE-2 of two such levels."""
    return networks.randomized(networks.vqvae2(_quantizer))


def vqgan(start=0):
    """A VQGAN with every term, whose discriminator starts after some steps."""
    model = networks.vqgan(
        {
            "loss": "non_saturating",
            "discriminator_start": start,
            "warmup_steps": 10,
            "r1_weight": 0.1,
            "lecam_weight": 0.1,
        },
        quantizer=_quantizer(),
        # At the kinks of |x| rounding decides on a gradient.
        reconstruction_loss="mse",
        perceptual_loss=None,
    )
    return networks.randomized(model)


def batch(step):
    images = networks.images(8, 8, 8, 3, seed=step)
    return np.asarray(images, keras.config.floatx())


def compiled(model, rate, kind, **arguments):
    if getattr(model, "discriminator", None) is not None:
        arguments["discriminator_optimizer"] = kind(rate)
    model.compile(kind(rate), **arguments)
    return model


def curve(model) -> np.ndarray:
    """The losses of each of `STEPS` steps."""
    compiled(model, 1e-3, keras.optimizers.Adam, weight_ema=0.9)
    # The codes are as good as any others; `fit` would start them from data.
    logs = [
        model.train_on_batch(batch(i), return_dict=True) for i in range(STEPS)
    ]
    names = [name for name in sorted(logs[0]) if name.endswith("loss")]
    return np.array([[float(step[name]) for name in names] for step in logs])


def one_step(model, **arguments) -> np.ndarray:
    """What a step of SGD changes, seen from a few sides, by variable."""
    compiled(
        model,
        0.1,
        keras.optimizers.SGD,
        clipnorm=1.0,
        accumulation_steps=2,
        weight_ema=0.9,
        **arguments,
    )
    before = values(model)
    model.train_on_batch(batch(0))
    rows, rng = [], np.random.RandomState(1)
    for variable, old, new in zip(
        variables(model), before, values(model), strict=True
    ):
        change = new.astype("float64") - old
        sides = rng.normal(size=(3, *change.shape)).reshape(3, -1)
        if variable.dtype == "float32":
            norm = np.linalg.norm(change)
            rows.append([norm, *(sides @ change.reshape(-1))])
    return np.array(rows)


def outputs(name: str) -> dict:
    """Codes, and every fourth row of the reconstructions, in float32.

    Args:
        name: Of a bundled preset, or of a small network, which then goes
            through a file.
    """
    if name in PRESETS:
        model = VQAutoencoder.from_preset(name, dtype="float32")
    else:
        model = _through_a_file(MODELS[name]())
    rows = np.linspace(-0.9, 0.9, PRESETS.get(name, 64))
    waves = np.sin(3 * rows[:, None] + 4 * rows**2)[..., None]
    images = np.stack([waves * [1, 0.5, -0.5], np.cos(2 * waves) * [0.2, 1, 1]])
    images = images.astype("float32")
    levels = keras.tree.flatten(model.encode(images))
    found = {f"{name}_codes_{i}": codes for i, codes in enumerate(levels)}
    found[f"{name}_rows"] = model.reconstruct(images)[:, ::4]
    return {key: keras.ops.convert_to_numpy(x) for key, x in found.items()}


def evaluation() -> np.ndarray:
    """What the launcher measures of a preset, on its samples."""
    name = "vqgan_tiny_imagenet"
    samples = EvaluationSet(load_samples(name, 64), "samples.")
    with published_files(os.environ["KERAS_VQ_DATA"]):
        measured = Evaluation(samples, "squeeze", batch_size=8)
    figures = measured.measure(VQAutoencoder.from_preset(name))
    return np.array([figures[key] for key in FIGURES])


def in_float64(name: str) -> np.ndarray:
    """A part computed in float64, by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "part.npz"
        script = pathlib.Path(__file__).with_name("in_float64.py")
        subprocess.run(
            [sys.executable, script, "recorded.py", file, name],
            env={**os.environ, "JAX_ENABLE_X64": "1"},
            check=True,
        )
        with np.load(file) as arrays:
            return arrays[name]


def _through_a_file(model):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path)


FIGURES = ("psnr_db", "ssim", "lpips", "frechet_distance", "perplexity")
MODELS = {"vqvae": vqvae, "vqvae2": vqvae2, "vqgan": vqgan}
OUTPUTS = [*PRESETS, *MODELS]
PARTS = {
    "vqvae_curve": lambda: curve(vqvae()),
    "vqvae2_curve": lambda: curve(vqvae2()),
    "vqgan_curve": lambda: curve(vqgan(start=10)),
    "vqvae_step": lambda: one_step(vqvae()),
    "vqvae2_step": lambda: one_step(vqvae2()),
    "vqgan_step": lambda: one_step(vqgan()),
    **{name: functools.partial(outputs, name) for name in OUTPUTS},
    "evaluation": evaluation,
    "vqgan_curve_in_float64": lambda: in_float64("vqgan_curve"),
    "vqvae_run": recorded_runs.vqvae_cifar,
    "vqgan_run": recorded_runs.vqgan_tiny_imagenet,
}


def compute(parts) -> dict:
    """Arrays by name."""
    arrays = {}
    for name in parts:
        found = PARTS[name]()
        arrays |= found if isinstance(found, dict) else {name: found}
    return arrays


if __name__ == "__main__":
    path, *parts = sys.argv[1:]
    known = {}
    if os.path.exists(path):
        with np.load(path) as file:
            known = dict(file)
    np.savez_compressed(path, **known | compute(parts or PARTS))
