"""One training run: from a recipe and its data to preset, results and card."""

import dataclasses
import json
import os
import pathlib
import platform
import time

import keras
import numpy as np

from keras_vq.callbacks import CodebookHealth, ReconstructionGrid
from keras_vq.metrics import PSNR
from keras_vq.presets import load_preset, save_preset
from keras_vq.training.card import write_card
from keras_vq.training.evaluation import evaluate
from keras_vq.training.recipe import Recipe
from keras_vq.utils.files import atomic_path


@dataclasses.dataclass(frozen=True)
class Run:
    """What a user chooses about a run.

    Args:
        data_dir: Directory of the data, as the recipe describes it.
        output_dir: Directory that everything is written to.
        strategy: `"one"` or `"mirrored"`.
        dtype: Dtype policy, or None for the global one.
        seed: Seed of weights and data.
        resume: Whether to go on from the checkpoint in `output_dir`.
        tensorboard: Whether to write TensorBoard logs.
        jit_compile: Whether to compile the step with XLA.
        command: The command line, for results.json.
    """

    data_dir: pathlib.Path
    output_dir: pathlib.Path
    strategy: str = "one"
    dtype: str | None = None
    seed: int = 0
    resume: bool = False
    tensorboard: bool = False
    jit_compile: bool = False
    command: str = ""

    @property
    def checkpoint(self) -> pathlib.Path:
        """File of the newest checkpoint."""
        return self.output_dir / "checkpoint.keras"


def train(recipe: Recipe, run: Run) -> dict:
    """Trains a recipe and writes preset, results.json and README.md.

    Args:
        recipe: The `Recipe`.
        run: The `Run`.

    Returns:
        The results, as written to results.json.

    Raises:
        FileNotFoundError: If the data is not where the recipe looks for it,
            or there is no checkpoint to resume from.
    """
    evaluation_set = recipe.evaluation_set(run.data_dir)
    validation = recipe.validation_data(run.data_dir, recipe.batch_size)
    keras.utils.set_random_seed(run.seed)
    with _strategy(run.strategy).scope():
        model = _model(recipe, run)
    first = _number(model.steps)
    dataset = recipe.train_data(
        run.data_dir,
        batch_size=recipe.batch_size,
        seed=run.seed,
        start_step=first,
    )
    run.output_dir.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    model.fit(
        dataset,
        validation_data=validation,
        steps_per_epoch=recipe.steps_per_epoch,
        initial_epoch=first // recipe.steps_per_epoch,
        epochs=-(-recipe.steps // recipe.steps_per_epoch),
        callbacks=[*_callbacks(model, run, evaluation_set), clock],
    )
    preset = run.output_dir / "preset"
    save_preset(model, preset, _metadata(recipe), float16=True, overwrite=True)
    # What is measured is what users get: the averaged weights, as stored.
    figures = evaluate(load_preset(type(model), preset), evaluation_set)
    results = _results(recipe, run, model, figures, clock)
    _write_text(run.output_dir / "results.json", json.dumps(results, indent=2))
    _write_text(run.output_dir / "README.md", write_card(results))
    return results


def _number(counter) -> int:
    # `int` cannot read a variable that every replica has a copy of.
    return int(keras.ops.convert_to_numpy(counter))


def _strategy(name):
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _model(recipe, run):
    if run.resume:
        if not run.checkpoint.exists():
            raise FileNotFoundError(
                f"There is no checkpoint to resume from. Expected: "
                f"{run.checkpoint}. Start the run without --resume."
            )
        return keras.saving.load_model(run.checkpoint)
    model = recipe.build_model(run.dtype)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=recipe.steps - recipe.warmup_steps,
        warmup_target=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
    )
    model.compile(
        keras.optimizers.Adam(schedule),
        metrics=[PSNR((-1, 1))],
        weight_ema=recipe.weight_ema,
        jit_compile=run.jit_compile,
    )
    return model


def _callbacks(model, run, evaluation_set):
    samples = model.preprocess(evaluation_set.images[:16])
    callbacks = [
        _Checkpoint(run.checkpoint),
        keras.callbacks.CSVLogger(
            str(run.output_dir / "log.csv"), append=run.resume
        ),
        CodebookHealth(),
        ReconstructionGrid(samples, run.output_dir / "reconstructions"),
    ]
    if run.tensorboard:
        callbacks.append(
            keras.callbacks.TensorBoard(str(run.output_dir / "tensorboard"))
        )
    return callbacks


class _Checkpoint(keras.callbacks.Callback):
    """Saves the whole state at each epoch, over the one before, atomically."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with atomic_path(self.path) as temporary:
            self.model.save(temporary)


class _Clock(keras.callbacks.Callback):
    """Counts steps and the seconds that they took."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds += time.perf_counter() - self._start
        self.steps += 1


def _results(recipe, run, model, figures, clock):
    weights = model.encoder.count_params() + model.decoder.count_params()
    codebook = int(np.prod(model.quantizer.codebook.shape))
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "licence": recipe.licence,
        "model_class": type(model).__name__,
        "parameters": weights + codebook,
        "evaluation": figures,
        "training": {
            "training_data": recipe.data,
            "command": run.command,
            "steps": _number(model.steps),
            "skipped_steps": _number(model.skipped_steps),
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate,
            "warmup_steps": recipe.warmup_steps,
            "weight_ema": recipe.weight_ema,
            "seed": run.seed,
            "strategy": run.strategy,
            "dtype": model.dtype_policy.name,
            "hours": round(clock.seconds / 3600, 2),
            "images_per_second": round(
                clock.steps * recipe.batch_size / max(clock.seconds, 1e-9)
            ),
            "device": _device(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "backend_version": _backend_version(),
            "date": time.strftime("%Y-%m-%d"),
        },
    }


def _device() -> str:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"{len(gpus)} x {details.get('device_name', 'GPU')}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _backend_version() -> str:
    import tensorflow as tf

    return tf.__version__


def _metadata(recipe) -> dict:
    return {
        "description": recipe.summary,
        "licence": recipe.licence,
        "data": recipe.data,
    }


def _write_text(path, text):
    with atomic_path(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n")
