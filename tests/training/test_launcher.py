"""The launcher: a run from data to card, and a run that goes on."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_vq
from keras_vq.callbacks import summaries
from keras_vq.cli import main as program
from keras_vq.training import run as run_module
from keras_vq.training import train as train_module
from keras_vq.training.card import write_card
from keras_vq.training.evaluation import Evaluation, images_at_a_time
from keras_vq.training.log import EpochLog, training_seconds
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import (
    EvaluationSet,
    Recipe,
    load_recipe,
    recipe_names,
)
from keras_vq.training.run import Run
from keras_vq.training.steps import steps_of_epoch
from keras_vq.utils.snapshots import newest_snapshot


def _images(count, seed):
    """Smooth uint8 images that a small network can learn."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, 2, 2, 3)).astype("float32")
    return np.asarray(
        keras.ops.image.resize(corners, (16, 16), interpolation="bilinear")
    ).astype("uint8")


def _build_model(recipe, dtype=None):
    return keras_vq.models.VQVAE(
        hidden_units=16,
        residual_units=8,
        residual_blocks=1,
        codebook_size=16,
        codebook_dim=8,
        dtype=dtype,
    )


def _train_data(data_dir, batch_size, seed):
    return keras_vq.data.from_arrays(
        _images(64, 0),
        batch_size=batch_size,
        seed=seed,
        shuffle=True,
        flip=True,
        repeat=True,
    )


def _validation_data(data_dir, batch_size):
    return keras_vq.data.from_arrays(_images(16, 1), batch_size=batch_size)


RECIPE = Recipe(
    name="tiny",
    summary="A tiny model.",
    data="Made in the test.",
    licence="CC0-1.0",
    build_model=_build_model,
    train_data=_train_data,
    validation_data=_validation_data,
    evaluation_set=lambda _: EvaluationSet(_images(20, 2), "smooth images."),
    steps=20,
    batch_size=8,
    optimizer=AdamPlan(1e-2, warmup_steps=2),
    weight_ema=0.9,
    steps_per_epoch=5,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run and its results."""
    run = Run(None, tmp_path_factory.mktemp("run"), command="the command")
    return run, run_module.train(RECIPE, run)


def test_run_writes_everything(finished):
    run, results = finished
    written = {path.name for path in run.output_dir.iterdir()}
    assert {
        "checkpoints",
        "log.csv",
        "preset",
        "reconstructions",
        "results.json",
        "README.md",
    } <= written
    assert json.loads((run.output_dir / "results.json").read_text()) == results
    assert (run.output_dir / "README.md").read_text() == write_card(results)
    assert results["training"]["steps"] == 20
    arguments = results["training"]["arguments"]
    assert AdamPlan(**arguments["optimizer"]) == RECIPE.optimizer
    log = np.genfromtxt(run.output_dir / "log.csv", delimiter=",", names=True)
    assert log["val_loss"][-1] < log["val_loss"][0]


def test_figures_are_those_of_the_written_preset(finished):
    run, results = finished
    model = keras_vq.models.VQVAE.from_preset(str(run.output_dir / "preset"))
    images = RECIPE.evaluation_set(None).images
    decoded = np.asarray(model(model.preprocess(images)))
    decoded = np.clip(np.rint((decoded + 1) * 127.5), 0, 255)
    error = np.mean((decoded - images.astype("float64")) ** 2, axis=(1, 2, 3))
    figures = results["evaluation"]
    psnr = np.mean(10 * np.log10(255**2 / error))
    np.testing.assert_allclose(figures["psnr_db"], psnr, atol=2e-3)
    np.testing.assert_allclose(
        figures["mse"], np.mean(error) / 255**2, rtol=1e-3
    )
    codes = np.asarray(model.encode(model.preprocess(images)))
    counts = np.bincount(codes.ravel(), minlength=16)
    assert figures["codes_used"] == np.count_nonzero(counts)
    share = counts[counts > 0] / counts.sum()
    perplexity = np.exp(-np.sum(share * np.log(share)))
    np.testing.assert_allclose(figures["perplexity"], perplexity, atol=0.01)
    assert figures["bits_per_image"] == 4 * 4 * 4


def test_preset_says_what_was_measured_of_it(finished):
    run, results = finished
    facts = json.loads((run.output_dir / "preset/metadata.json").read_text())
    assert facts["metadata"] == {
        name: results[name] for name in ("evaluation", "training")
    }
    assert facts["parameter_count"] == results["parameters"]
    keras_vq.presets.verify(run.output_dir / "preset")


def test_resumed_run_equals_the_uninterrupted_one(finished, tmp_path):
    uninterrupted, _ = finished
    run = Run(None, tmp_path / "run")
    # The schedule of the learning rate is that of the whole run: stop early.
    with pytest.MonkeyPatch.context() as patch:
        stop = _StopAfter(2)
        callbacks = run_module._callbacks
        patch.setattr(
            run_module, "_callbacks", lambda *a: [*callbacks(*a), stop]
        )
        run_module.train(RECIPE, run)
    run_module.train(RECIPE, dataclasses.replace(run, resume=True))
    first, second = (
        newest_snapshot(r.checkpoints) for r in (uninterrupted, run)
    )
    assert first[0].name == second[0].name == "0004-000000"
    assert first[2] == second[2]
    for name, array in first[1].items():
        np.testing.assert_array_equal(second[1][name], array, err_msg=name)
    assert _log(run) == _log(uninterrupted)


def _log(run):
    with open(run.log, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(float(row.pop("seconds")) > 0 for row in rows)
    return rows


def test_lines_of_epochs_that_are_taken_again_are_removed(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,seconds\n0,3.0,1.5\n1,2.0,2.5\n2,1")
    log = EpochLog(path, SimpleNamespace(epoch=1))
    log.on_train_begin()
    log.on_epoch_begin(1)
    log.on_epoch_end(1, {"loss": 2.0})
    log.on_train_end()
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["epoch"], r["loss"]) for r in rows] == [
        ("0", "3.0"),
        ("1", "2.0"),
    ]
    assert training_seconds(path) == 1.5


class _StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 >= self.epochs


@pytest.mark.parametrize(
    "steps, wanted, expected",
    [
        (8000, 500, 500),
        (100, 500, 100),
        (1, 500, 1),
        (1200, 500, 400),
        (750, 500, 375),
        (12, 5, 4),
    ],
)
def test_epochs_make_up_the_steps(steps, wanted, expected):
    assert steps_of_epoch(steps, wanted) == expected


@pytest.mark.parametrize(
    "steps, wanted, fits", [(1009, 500, 1000), (503, 500, 500), (14, 5, 15)]
)
def test_steps_that_are_no_epochs_are_refused(steps, wanted, fits):
    expected = f"steps_per_epoch={wanted}.*--steps {fits}. Received: {steps} "
    with pytest.raises(ValueError, match=expected):
        steps_of_epoch(steps, wanted)


def test_run_takes_exactly_its_steps(tmp_path):
    """Also when it stops in the middle of an epoch, and goes on from there."""
    shorter = dataclasses.replace(RECIPE, steps=12)
    whole = Run(None, tmp_path / "whole")
    assert run_module.train(shorter, whole)["training"]["steps"] == 12
    stopped = Run(None, tmp_path / "stopped", stop_after=6)
    assert run_module.train(shorter, stopped) == {}
    path, _, info = newest_snapshot(stopped.checkpoints)
    assert (path.name, info["batches"]) == ("0001-000002", 6)
    resumed = dataclasses.replace(stopped, resume=True)
    # Once more: it has come as far already.
    assert run_module.train(shorter, resumed) == {}
    other = dataclasses.replace(shorter, steps=15)
    with pytest.raises(ValueError, match="give --steps-per-epoch 4"):
        run_module.train(other, resumed)
    resumed = dataclasses.replace(resumed, stop_after=None)
    assert run_module.train(shorter, resumed)["training"]["steps"] == 12
    first, second = (newest_snapshot(r.checkpoints) for r in (whole, resumed))
    assert first[0].name == second[0].name == "0003-000000"
    for name, array in first[1].items():
        np.testing.assert_array_equal(second[1][name], array, err_msg=name)


@pytest.mark.parametrize(
    "height, width, expected",
    [(32, 32, 100), (64, 64, 100), (128, 128, 25), (256, 256, 6)],
)
def test_large_images_are_measured_few_at_a_time(height, width, expected):
    assert images_at_a_time(height, width) == expected
    images = np.zeros((1, height, width, 3), "uint8")
    assert Evaluation(EvaluationSet(images, "")).batch_size == expected
    assert images_at_a_time(5000, 5000) == 1


@pytest.mark.parametrize(
    "size, batch_size, accumulation_steps, replicas, expected",
    [
        (64, 16, 1, 1, 16),
        (64, 256, 1, 1, 100),
        (256, 256, 1, 1, 6),
        (256, 256, 64, 1, 4),
        (256, 256, 512, 1, 1),
        (256, 256, 1, 8, 48),
        (256, 16, 1, 8, 16),
    ],
)
def test_validation_needs_no_more_memory_than_training(
    size, batch_size, accumulation_steps, replicas, expected
):
    recipe = dataclasses.replace(
        RECIPE, batch_size=batch_size, accumulation_steps=accumulation_steps
    )
    found = run_module._validation_batch(recipe, (size, size), replicas)
    assert found == expected


def test_validation_is_the_same_in_smaller_batches(finished, monkeypatch):
    """The last batch is smaller, and counts by its images."""
    run, _ = finished
    model = run_module._model(RECIPE, run)
    model.adapt(_train_data(None, 8, 0))
    evaluation = SimpleNamespace(set=RECIPE.evaluation_set(None))
    logs = []
    for most in (100, 3):
        monkeypatch.setattr(
            run_module, "images_at_a_time", lambda h, w, most=most: most
        )
        batches = run_module._validation(model, RECIPE, run, evaluation)
        sizes = [len(batch) for batch in batches]
        logs.append(model.evaluate(batches, verbose=0, return_dict=True))
    assert sizes == [3, 3, 3, 3, 3, 1]
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-5)


def test_another_run_in_a_used_directory_is_refused(finished):
    run, _ = finished
    before = (run.output_dir / "log.csv").read_text()
    with pytest.raises(FileExistsError, match="--resume.*--output-dir"):
        run_module.train(RECIPE, run)
    assert (run.output_dir / "log.csv").read_text() == before


def test_tensorboard_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "can_write_summaries", lambda: False)
    run = Run(tmp_path, tmp_path / "out", tensorboard=True)
    with pytest.raises(ImportError, match="--tensorboard needs.*pip install"):
        run_module.train(RECIPE, run)
    assert not run.output_dir.exists()


def test_unknown_recipe_lists_the_known_ones():
    assert "vqvae_cifar" in recipe_names()
    with pytest.raises(ValueError, match="vqvae_cifar"):
        load_recipe("vqvae_mnist")


def test_missing_data_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cifar10/train\.tfrecord"):
        load_recipe("vqvae_cifar").train_data(tmp_path, batch_size=8, seed=0)


def test_command_hides_paths():
    words = ["x", "--data-dir", "/a/b", "--steps", "3"]
    expected = "keras-vq train x --data-dir DIR --steps 3"
    assert train_module._command(words) == expected


@pytest.mark.parametrize("strategy", ["one", "mirrored"])
def test_recipe_of_vqvae_cifar_runs(
    strategy, data_dir, tmp_path, monkeypatch, mirrored_is_two_replicas
):
    """The command line on real data; a few steps with a small evaluation."""
    recipe = load_recipe("vqvae_cifar")
    small = EvaluationSet(recipe.evaluation_set(data_dir).images[:100], "few.")
    shortened = dataclasses.replace(
        recipe,
        evaluation_set=lambda _: small,
        validation_data=lambda d, b: recipe.validation_data(d, b).take(1),
    )
    monkeypatch.setattr(
        "keras_vq.training.recipe.load_recipe",
        lambda name, variant=None: shortened,
    )
    words = ["vqvae_cifar", "--data-dir", str(data_dir)]
    words += ["--output-dir", str(tmp_path / "out"), "--strategy", strategy]
    words += ["--steps", "4", "--steps-per-epoch", "2", "--batch-size", "16"]
    assert train_module.main(words) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["training"]["steps"] == 4
    assert results["training"]["strategy"] == strategy
    assert np.isfinite(results["evaluation"]["psnr_db"])


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--steps", "0"], "whole number from 1. Received: 0"),
        (["--steps", "-3"], "whole number from 1. Received: -3"),
        (["--batch-size", "0"], "whole number from 1. Received: 0"),
        (["--steps-per-epoch", "1.5"], "whole number from 1. Received: 1.5"),
        (["--save-every", "0"], "whole number from 1. Received: 0"),
        (["--learning-rate", "0"], "number above 0. Received: 0"),
        (["--learning-rate", "nan"], "number above 0. Received: nan"),
        (["--seed", "-1"], "whole number from 0"),
        (["--strategy", "two"], "--strategy"),
        (["--stepz", "3"], "--stepz"),
    ],
)
def test_usage_errors_are_one_line(words, expected, capsys):
    command = ["train", "vqvae_cifar", "--data-dir", "none", *words]
    assert program(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-vq: error: ") and error.count("\n") == 1
    assert expected in error
