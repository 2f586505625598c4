"""One training run: from a recipe and its data to preset, results and card."""

import dataclasses
import json
import pathlib
import time
import warnings

import keras
import numpy as np

from keras_vq.callbacks import (
    CodebookHealth,
    DiscriminatorHealth,
    ReconstructionGrid,
)
from keras_vq.callbacks.summaries import check_summaries
from keras_vq.metrics import PSNR
from keras_vq.presets import add_metadata, load_preset, save_preset
from keras_vq.presets.parts import model_parts
from keras_vq.trainers import workers
from keras_vq.trainers.devices import number_of_devices
from keras_vq.training.baseline import add_baseline, read_baseline
from keras_vq.training.card import write_card
from keras_vq.training.environment import backend_version, devices
from keras_vq.training.evaluation import (
    Evaluation,
    images_at_a_time,
    published_files,
)
from keras_vq.training.log import EpochLog, training_seconds
from keras_vq.training.recipe import Recipe
from keras_vq.training.steps import (
    Stopped,
    StoppingCheckpoint,
    steps_of_epoch,
)
from keras_vq.training.strategies import make_strategy
from keras_vq.utils.files import atomic_path
from keras_vq.utils.snapshots import find_snapshots


@dataclasses.dataclass(frozen=True)
class Run:
    """What a user chooses about a run.

    Args:
        data_dir: Directory of the data, as the recipe describes it.
        output_dir: Directory that everything is written to.
        strategy: `"one"`, `"mirrored"`, `"multiworker"` or
            `"data-parallel"`; see `keras_vq.training.strategies`.
        dtype: Dtype policy, or None for the global one.
        seed: Seed of weights and data.
        resume: Whether to go on from the newest checkpoint in `output_dir`,
            if there is one.
        stop_after: Steps after which the run stops, to be resumed later; None:
            it goes on to the end.
        save_every: Steps between two checkpoints.
        baseline: Output directory of another run, whose figures the model
            card puts beside this run's; or None. See `baseline.py`.
        tensorboard: Whether to write TensorBoard logs.
        jit_compile: Whether to compile the step with XLA, as JAX always does.
        command: The command line, for results.json.
    """

    data_dir: pathlib.Path
    output_dir: pathlib.Path
    strategy: str = "one"
    dtype: str | None = None
    seed: int = 0
    resume: bool = False
    stop_after: int | None = None
    save_every: int = 1000
    baseline: pathlib.Path | None = None
    tensorboard: bool = False
    jit_compile: bool = False
    command: str = ""

    @property
    def checkpoints(self) -> pathlib.Path:
        """Directory of the checkpoints."""
        return self.output_dir / "checkpoints"

    @property
    def log(self) -> pathlib.Path:
        """File with a line for each epoch."""
        return self.output_dir / "log.csv"


def train(recipe: Recipe, run: Run) -> dict:
    """Trains a recipe and writes preset, results.json and README.md.

    Args:
        recipe: The `Recipe`.
        run: The `Run`.

    Returns:
        The results, as written to results.json; nothing if the run was to
        stop before the end, and on the workers that are not the first, which
        write nothing.

    Raises:
        FileNotFoundError: If the data is not where the recipe looks for it.
        FileExistsError: If the output directory holds the checkpoints of an
            earlier run, which is not to be resumed.
        ValueError: If the recipe's steps are no whole number of epochs, or
            `baseline` is no such run.
        ImportError: If TensorBoard's logs are asked for without its packages.
        ConversionError: If published weights that the recipe needs are
            missing, or are not what they should be.
    """
    per_epoch = steps_of_epoch(recipe.steps, recipe.steps_per_epoch)
    recipe = dataclasses.replace(recipe, steps_per_epoch=per_epoch)
    if run.tensorboard:
        check_summaries("--tensorboard")
    # Before anything else: TensorFlow joins the workers only at its start.
    strategy = make_strategy(run.strategy)
    if not run.resume and find_snapshots(run.checkpoints):
        raise FileExistsError(
            f"{run.checkpoints} holds the checkpoints of an earlier run. Go on "
            "with it (--resume), or give another output directory "
            "(--output-dir)."
        )
    with published_files(run.data_dir):
        # First of all, so that what is missing is not found at the end.
        evaluation = Evaluation(
            recipe.evaluation_set(run.data_dir), recipe.lpips
        )
        if run.baseline is not None and workers.is_chief(strategy):
            facts = _settings(recipe, run)
            read_baseline(run.baseline, facts, evaluation.protocol)
        keras.utils.set_random_seed(run.seed)
        with strategy.scope():
            model = _model(recipe, run)
        run.output_dir.mkdir(parents=True, exist_ok=True)
        finished = _fit(model, recipe, run, evaluation)
        if not finished or not workers.is_chief(model):
            return {}
        return _finish(model, recipe, run, evaluation)


def _fit(model, recipe, run, evaluation) -> bool:
    """Takes the steps; says whether these were all."""
    validation = _validation(model, recipe, run, evaluation)
    dataset = recipe.train_data(
        run.data_dir, batch_size=recipe.batch_size, seed=run.seed
    )
    stops = run.stop_after is not None and run.stop_after < recipe.steps
    checkpoint = StoppingCheckpoint(
        run.checkpoints, run.save_every, run.stop_after if stops else None
    )
    with warnings.catch_warnings():
        if stops or recipe.discriminator_start is None:
            warnings.filterwarnings("ignore", "This `fit` ends after step")
        try:
            model.fit(
                checkpoint.resume(dataset),
                validation_data=validation,
                steps_per_epoch=recipe.steps_per_epoch,
                epochs=recipe.steps // recipe.steps_per_epoch,
                callbacks=_callbacks(
                    model, recipe, run, evaluation, checkpoint
                ),
            )
        except Stopped:
            workers.leave_together(workers.strategy_of(model))
    return not stops


def _validation(model, recipe, run, evaluation):
    """The recipe's validation images, as many at a time as there is room."""
    # Which images these are can depend on the batch size that is asked for.
    dataset = recipe.validation_data(run.data_dir, recipe.batch_size)
    strategy = workers.strategy_of(model)
    replicas = getattr(strategy, "num_replicas_in_sync", number_of_devices())
    image_size = evaluation.set.images.shape[1:3]
    size = _validation_batch(recipe, image_size, replicas)
    if size >= recipe.batch_size:
        return dataset
    if hasattr(dataset, "rebatch"):  # Not TensorFlow's.
        return dataset.rebatch(size)
    dataset = dataset.unbatch().batch(size)
    if replicas > 1:
        # Keras would warn at the end of data of unknown length.
        import tensorflow as tf

        count = dataset.reduce(np.int64(0), lambda count, _: count + 1)
        known = tf.data.experimental.assert_cardinality(int(count))
        dataset = dataset.apply(known)
    return dataset.prefetch(2)


def _validation_batch(recipe, image_size, replicas=1) -> int:
    """Images of a step of validation, over all replicas."""
    # Never more than a part of a training step, which fits.
    part = recipe.batch_size // recipe.accumulation_steps // replicas
    return max(1, min(part, images_at_a_time(*image_size))) * replicas


def _finish(model, recipe, run, evaluation) -> dict:
    """Writes preset, results and card."""
    preset = run.output_dir / "preset"
    save_preset(
        model,
        preset,
        _metadata(recipe),
        float16=True,
        overwrite=True,
        # A discriminator that has learned nothing helps nobody.
        include_parts=recipe.discriminator_start is not None,
    )
    # What is measured is what users get: the averaged weights, as stored.
    stored = load_preset(type(model), preset)
    figures = evaluation.measure(stored)
    results = _results(recipe, run, model, figures)
    facts = {name: results[name] for name in ("evaluation", "training")}
    add_metadata(preset, facts)
    _write_results(results, run)
    if run.baseline is not None:
        # Whatever became of the other run, this one is written.
        add_baseline(results, stored, run, evaluation)
        _write_results(results, run)
    return results


def _write_results(results, run):
    _write_text(run.output_dir / "results.json", json.dumps(results, indent=2))
    _write_text(run.output_dir / "README.md", write_card(results))


def _number(counter) -> int:
    # `int` cannot read a variable that every replica has a copy of.
    return int(keras.ops.convert_to_numpy(counter))


def _model(recipe, run):
    model = recipe.build_model(recipe, run.dtype)
    optimizers = {
        "optimizer": recipe.optimizer.optimizer(recipe.steps, recipe.batch_size)
    }
    if recipe.discriminator_optimizer is not None:
        optimizers["discriminator_optimizer"] = (
            recipe.discriminator_optimizer.optimizer(
                max(recipe.discriminator_steps, 1), recipe.batch_size
            )
        )
    model.compile(
        **optimizers,
        metrics=[PSNR((-1, 1))],
        weight_ema=recipe.weight_ema,
        accumulation_steps=recipe.accumulation_steps,
        clipnorm=recipe.clipnorm,
        # JAX compiles with XLA or not at all.
        jit_compile=run.jit_compile or keras.backend.backend() == "jax",
    )
    return model


def _callbacks(model, recipe, run, evaluation, checkpoint):
    samples = model.preprocess(evaluation.set.images[:16])
    callbacks = [
        CodebookHealth(),
        ReconstructionGrid(samples, run.output_dir / "reconstructions"),
    ]
    if recipe.discriminator_start is not None:
        callbacks.append(DiscriminatorHealth())
    chief = workers.is_chief(model)
    if chief:
        callbacks.append(EpochLog(run.log, checkpoint))
    if chief and run.tensorboard:
        callbacks.append(
            keras.callbacks.TensorBoard(str(run.output_dir / "tensorboard"))
        )
    # Last, so that what the others do at the end of an epoch is in it.
    return [*callbacks, checkpoint]


def _results(recipe, run, model, figures):
    seconds = training_seconds(run.log)
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "licence": recipe.licence,
        "model_class": type(model).__name__,
        "parameters": model.count_params(),
        "parts": {
            name: part.count_params()
            for name, part in model_parts(model).items()
        },
        "evaluation": figures,
        "training": {
            "training_data": recipe.data,
            "command": run.command,
            **_settings(recipe, run),
            "arguments": _arguments(recipe, model),
            "steps": _number(model.steps),
            "skipped_steps": _number(model.skipped_steps),
            "strategy": run.strategy,
            "dtype": model.dtype_policy.name,
            "hours": round(seconds / 3600, 2),
            "images_per_second": round(
                _number(model.steps) * recipe.batch_size / max(seconds, 1e-9)
            ),
            "device": devices(),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "backend_version": backend_version(),
            "date": time.strftime("%Y-%m-%d"),
        },
    }


def _settings(recipe, run) -> dict:
    """What of the training is known before it begins."""
    return {
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        **_optimization(recipe),
        "accumulation_steps": recipe.accumulation_steps,
        "clipnorm": recipe.clipnorm,
        "weight_ema": recipe.weight_ema,
        "seed": run.seed,
    }


def _arguments(recipe, model) -> dict:
    """Those of `AdamPlan` and `AdversarialTraining`, to go on alike."""
    found = {
        "optimizer": recipe.optimizer,
        "discriminator_optimizer": recipe.discriminator_optimizer,
        "adversarial": getattr(model, "adversarial", None),
    }
    return {
        name: dataclasses.asdict(value)
        for name, value in found.items()
        if value is not None
    }


def _optimization(recipe) -> dict:
    """What the optimizers did, in words."""
    size = recipe.batch_size
    facts = {"optimizer": recipe.optimizer.describe(recipe.steps, size)}
    if recipe.discriminator_optimizer is None:
        return facts
    if recipe.discriminator_start is None:
        return {**facts, "discriminator_start": None}
    return {
        **facts,
        "discriminator_start": recipe.steps - recipe.discriminator_steps,
        "discriminator_optimizer": recipe.discriminator_optimizer.describe(
            recipe.discriminator_steps, size
        ),
    }


def _metadata(recipe) -> dict:
    return {
        "description": recipe.summary,
        "licence": recipe.licence,
        "data": recipe.data,
    }


def _write_text(path, text):
    with atomic_path(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n")
