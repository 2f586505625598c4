"""A recipe from the command line to its preset, over two replicas."""

import dataclasses
import json

import numpy as np

import keras_vq
from keras_vq.training import train as train_module
from keras_vq.training.recipe import EvaluationSet, load_recipe


def _small_evaluation(recipe, data_dir):
    images = next(iter(recipe.validation_data(data_dir, 8))).numpy()
    images = keras_vq.models.VQGAN.postprocess(images)
    return EvaluationSet(images, "few.")


def test_recipe_of_vqgan_tiny_imagenet_runs(
    data_dir, tmp_path, monkeypatch, mirrored_is_two_replicas
):
    """The command line on real data, both phases, over two replicas."""
    recipe = load_recipe("vqgan_tiny_imagenet")
    few = _small_evaluation(recipe, data_dir)
    shortened = dataclasses.replace(
        recipe,
        evaluation_set=lambda _: few,
        validation_data=lambda d, b: recipe.validation_data(d, b).take(1),
    )
    monkeypatch.setattr(
        "keras_vq.training.recipe.load_recipe",
        lambda name, variant=None: shortened,
    )
    words = ["vqgan_tiny_imagenet", "--data-dir", str(data_dir)]
    words += ["--output-dir", str(tmp_path), "--strategy", "mirrored"]
    words += ["--steps", "2", "--steps-per-epoch", "1", "--batch-size", "4"]
    assert train_module.main(words) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["training"]["steps"] == 2
    assert results["training"]["skipped_steps"] == 0
    assert results["training"]["discriminator_start"] == 1
    assert 0 < results["evaluation"]["lpips"] < 2
    sizes = [p.stat().st_size for p in (tmp_path / "preset").iterdir()]
    assert sum(sizes) < 12e6
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert log["adaptive_weight"][0] == 0 < log["adaptive_weight"][1]
