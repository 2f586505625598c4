"""Recipes with a discriminator: phases, comparison, published weights."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

import keras_vq
from keras_vq.cli import main as program
from keras_vq.losses import lpips_files
from keras_vq.trainers.state import training_variables
from keras_vq.training import run as run_module
from keras_vq.training.baseline import read_baseline
from keras_vq.training.card import write_card
from keras_vq.training.evaluation import Evaluation, published_files
from keras_vq.training.optimization import AdamPlan
from keras_vq.training.recipe import EvaluationSet, Recipe, load_recipe
from keras_vq.training.run import Run
from keras_vq.utils.snapshots import newest_snapshot


def _images(count, seed, size=16):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (count, size // 8, size // 8, 3))
    return corners.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")


def _small_networks(**kwargs):
    return keras_vq.models.VQGAN(
        base_channels=4,
        channel_multipliers=(1, 2),
        residual_blocks=1,
        attention_factors=(),
        middle_attention=False,
        latent_channels=4,
        groups=2,
        discriminator=keras_vq.models.PatchGAN(
            filters=4, num_layers=1, name="discriminator"
        ),
        **kwargs,
    )


def _build_model(recipe, dtype=None):
    return _small_networks(
        codebook_dim=4,
        codebook_size=8,
        adversarial=recipe.adversarial_training(),
        perceptual_loss=None,
        dtype=dtype,
    )


def _train_data(data_dir, batch_size, seed):
    return keras_vq.data.from_arrays(
        _images(64, 0),
        batch_size=batch_size,
        seed=seed,
        shuffle=True,
        repeat=True,
    )


def _validation_data(data_dir, batch_size):
    return keras_vq.data.from_arrays(_images(8, 1), batch_size=batch_size)


RECIPE = Recipe(
    name="tiny",
    summary="A tiny VQGAN.",
    data="Made in the test.",
    licence="CC0-1.0",
    build_model=_build_model,
    train_data=_train_data,
    validation_data=_validation_data,
    evaluation_set=lambda _: EvaluationSet(_images(20, 2), "squares."),
    steps=8,
    batch_size=4,
    optimizer=AdamPlan(1e-2, warmup_steps=1),
    discriminator_optimizer=AdamPlan(1e-3, beta_1=0.5),
    discriminator_start=0.5,
    weight_ema=0.9,
    steps_per_epoch=2,
)
WITHOUT = dataclasses.replace(RECIPE, discriminator_start=None)


def _final(run):
    """The model as the newest checkpoint has it."""
    _, arrays, _ = newest_snapshot(run.checkpoints)
    model = run_module._model(RECIPE, run)
    for i, variable in enumerate(training_variables(model)["model"]):
        variable.assign(arrays[f"model/{i}"])
    return model


def _equal(layer, other):
    """For each trainable variable, whether it is the same in both."""
    pairs = zip(
        layer.trainable_variables, other.trainable_variables, strict=True
    )
    return [np.array_equal(a.numpy(), b.numpy()) for a, b in pairs]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run that was stopped, and went on without and with."""
    folder = tmp_path_factory.mktemp("runs")
    first = Run(None, folder / "with", stop_after=4)
    assert run_module.train(RECIPE, first) == {}
    assert not (first.output_dir / "preset").exists()
    shutil.copytree(folder / "with", folder / "without")
    begun = _final(first)
    without = Run(None, folder / "without", resume=True)
    run_module.train(WITHOUT, without)
    baseline = folder / "without"
    run = Run(None, folder / "with", resume=True, baseline=baseline)
    results = run_module.train(RECIPE, run)
    return {"run": run, "without": without, "begun": begun, "results": results}


@pytest.mark.soak
def test_discriminator_learns_in_the_second_half_only(both):
    before, after, without = (
        both["begun"],
        _final(both["run"]),
        _final(both["without"]),
    )
    judge = before.discriminator
    assert len(judge.trainable_variables) > 5
    assert all(_equal(judge, without.discriminator))
    # The hinge has no gradient at the last bias while no logit exceeds 1.
    assert sum(_equal(judge, after.discriminator)) <= 1
    assert not any(_equal(after.last_layer, without.last_layer))
    assert int(after.steps) == int(without.steps) == 8
    assert int(before.steps) == 4


@pytest.mark.soak
def test_results_compare_both_runs(both):
    run, results = both["run"], both["results"]
    other = json.loads(
        (both["without"].output_dir / "results.json").read_text()
    )
    compared = results["baseline"]
    assert compared["evaluation"] == other["evaluation"]
    assert other["training"]["discriminator_start"] is None
    assert results["training"]["discriminator_start"] == 4
    assert results["training"]["steps"] == other["training"]["steps"] == 8
    card = (run.output_dir / "README.md").read_text()
    assert card == write_card(results)
    assert f"| without | {other['evaluation']['psnr_db']:.2f} dB |" in card
    assert f"| with | {results['evaluation']['psnr_db']:.2f} dB |" in card
    assert (run.output_dir / "comparison.png").stat().st_size > 0


@pytest.mark.soak
def test_preset_holds_the_discriminator_if_it_has_learned(both):
    files = {
        kind: {p.name for p in (both[kind].output_dir / "preset").iterdir()}
        for kind in ("run", "without")
    }
    part = {"discriminator.weights.h5"}
    assert files["run"] - files["without"] == part
    results = both["results"]
    assert 0 < results["parts"]["discriminator"] < results["parameters"]
    preset = str(both["run"].output_dir / "preset")
    stored = keras_vq.models.VQGAN.from_preset(preset).discriminator
    final = _final(both["run"]).discriminator
    for ours, theirs in zip(stored.weights, final.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3)


@pytest.mark.soak
def test_results_are_written_whatever_the_baseline_became(both, tmp_path):
    run = both["run"]
    for name in ("results.json", "README.md"):
        (run.output_dir / name).unlink()

    def fail(*args):
        raise OSError("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "add_baseline", fail)
        with pytest.raises(OSError, match="gone"):
            run_module.train(RECIPE, run)
    results = json.loads((run.output_dir / "results.json").read_text())
    assert results["evaluation"] == both["results"]["evaluation"]
    assert "baseline" not in results
    # The same command again: all that is left to do is done.
    again = run_module.train(RECIPE, run)
    assert "baseline" in again
    assert json.loads((run.output_dir / "results.json").read_text()) == again


def _write_baseline(folder, **changes):
    """A finished run without the discriminator, as far as it is read."""
    (folder / "preset").mkdir(parents=True)
    evaluation = Evaluation(RECIPE.evaluation_set(None))
    training = run_module._settings(WITHOUT, Run(None, folder))
    results = {
        "training": {**training, **changes},
        "evaluation": {"protocol": evaluation.protocol},
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 9},
        {"batch_size": 8},
        {"seed": 1},
        {"optimizer": "another"},
        {"weight_ema": None},
        {"discriminator_start": 4},
    ],
)
def test_wrong_baseline_is_found_before_the_first_step(tmp_path, changes):
    baseline = _write_baseline(tmp_path / "without", **changes)
    run = Run(None, tmp_path / "with", baseline=baseline)
    with pytest.raises(ValueError, match=f"differs in {next(iter(changes))}"):
        run_module.train(RECIPE, run)
    assert not run.output_dir.exists()


def test_baseline_must_be_finished(tmp_path):
    baseline = _write_baseline(tmp_path / "without")
    run = Run(None, tmp_path / "with", baseline=baseline)
    facts = run_module._settings(RECIPE, run)
    protocol = Evaluation(RECIPE.evaluation_set(None)).protocol
    assert read_baseline(baseline, facts, protocol)["training"]["steps"] == 8
    with pytest.raises(ValueError, match="differs in protocol"):
        read_baseline(baseline, facts, "another")
    with pytest.raises(ValueError, match="for a run with a discriminator"):
        run_module.train(WITHOUT, run)
    (baseline / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match="finished run"):
        run_module.train(RECIPE, run)


def test_baseline_of_a_run_without_is_a_usage_error(capsys):
    words = ["train", "vqgan_tiny_imagenet", "--data-dir", "none"]
    words += ["--without-discriminator", "--baseline", "other"]
    assert program(words) == 2
    error = capsys.readouterr().err
    assert "Leave one of the two out" in error and error.count("\n") == 1


def test_start_after_the_end_is_refused(tmp_path):
    late = dataclasses.replace(RECIPE, discriminator_start=100)
    with pytest.raises(ValueError, match="after the end of training"):
        run_module.train(late, Run(None, tmp_path / "late"))


def test_learning_rates_keep_their_ratio():
    changed = RECIPE.with_learning_rate(0.05)
    assert changed.optimizer.learning_rate == pytest.approx(0.05)
    other = changed.discriminator_optimizer
    assert other.learning_rate == pytest.approx(0.005)
    recipe = load_recipe("vqgan_imagenet").with_learning_rate(1.0)
    assert recipe.optimizer.peak(256) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["1.0", "-0.1", "half", "nan"])
def test_discriminator_start_is_steps_or_a_fraction(text, capsys):
    words = ["train", "vqgan_tiny_imagenet", "--data-dir", "none"]
    words += ["--discriminator-start", text]
    assert program(words) == 2
    assert f"Received: {text}" in capsys.readouterr().err


def test_recipes_without_discriminator_refuse_its_options(capsys):
    words = ["train", "vqvae_cifar", "--data-dir", "none"]
    assert program([*words, "--without-discriminator"]) == 1
    assert "in any case" in capsys.readouterr().err


# Published weights


def test_weights_are_found_in_the_data_directory(tmp_path, monkeypatch):
    inner = tmp_path / "weights" / "lpips"
    inner.mkdir(parents=True)
    monkeypatch.setenv(lpips_files.FOLDERS_VARIABLE, "/elsewhere")
    with published_files(tmp_path):
        found = os.environ[lpips_files.FOLDERS_VARIABLE].split(os.pathsep)
        assert found == ["/elsewhere", str(inner.parent), str(inner)]
    assert os.environ[lpips_files.FOLDERS_VARIABLE] == "/elsewhere"
    monkeypatch.delenv(lpips_files.FOLDERS_VARIABLE)
    with published_files(None):
        assert not os.environ[lpips_files.FOLDERS_VARIABLE]
    assert lpips_files.FOLDERS_VARIABLE not in os.environ


def test_evaluation_with_lpips(data_dir):
    """Figures of a model that gives its images back: only rounding is lost."""

    class Copy:
        preprocess = staticmethod(keras_vq.models.VQGAN.preprocess)
        postprocess = staticmethod(keras_vq.models.VQGAN.postprocess)
        quantizer = keras_vq.layers.VectorQuantizer(4, 2)

        def encode(self, images):
            self.images = images
            return np.zeros((len(images), 2, 2), "int32")

        def decode(self, codes):
            return self.images

        def bits_per_image(self, height, width):
            return 8

    images = EvaluationSet(_images(30, 0, 32), "squares.")
    with published_files(data_dir):
        evaluation = Evaluation(images, "squeeze", batch_size=20)
    figures = evaluation.measure(Copy())
    assert figures["lpips"] == 0
    assert figures["frechet_distance"] < 1e-3
    assert (figures["psnr_db"], figures["mse"]) == (100.0, 0)
    assert figures["codes_used"] == 1
    assert "squeeze.pth" in figures["protocol"]
    assert "no FID" in figures["protocol"]
    assert str(data_dir) not in figures["protocol"]


# The recipes of the repository


def test_original_tiny_imagenet_folders_are_read(tmp_path):
    folder = tmp_path / "tiny-imagenet-200" / "train" / "n01443537" / "images"
    folder.mkdir(parents=True)
    keras_vq.utils.write_png(folder / "a.png", _images(1, 0, 64)[0])
    recipe = load_recipe("vqgan_tiny_imagenet")
    batch = next(iter(recipe.train_data(tmp_path, batch_size=2, seed=0)))
    assert batch.shape == (2, 64, 64, 3)
    with pytest.raises(FileNotFoundError, match="tiny-imagenet-200"):
        recipe.validation_data(tmp_path / "none", 2)


def test_a_preset_holds_the_arguments_of_its_recipe():
    """What fine-tuning goes on with, beside the networks."""
    recipe = load_recipe("vqgan_tiny_imagenet")
    info = keras_vq.presets.preset_info("vqgan_tiny_imagenet")
    arguments = dict(info["metadata"]["training"]["arguments"])
    options = arguments.pop("adversarial")
    assert options == dataclasses.asdict(recipe.build_model(recipe).adversarial)
    assert keras_vq.losses.AdversarialTraining(**options).first_step == 3000
    for name, values in arguments.items():
        assert AdamPlan(**values) == getattr(recipe, name)
    assert len(arguments) == 2


@pytest.mark.parametrize(
    "name", ["vqvae_cifar", "vqvae2_tiny_imagenet", "vqgan_tiny_imagenet"]
)
def test_large_variants_are_small_enough_to_be_bundled(name):
    recipe, large = load_recipe(name), load_recipe(name, "large")
    models = [r.build_model(r) for r in (recipe, large)]
    counts = [
        model.count_params()
        + sum(part.count_params() for part in model.preset_parts().values())
        for model in models
    ]
    assert counts[0] < counts[1]
    # In float16, and 4 % for what else the files hold.
    assert 2 * counts[1] < 12e6 / 1.04
    assert models[1].name == large.name != recipe.name
    # The same codes of the same images, so that figures compare.
    bits = [model.bits_per_image(64, 64) for model in models]
    assert bits[0] == bits[1]
